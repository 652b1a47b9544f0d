"""The clock of `benchmarks.trl_step`: TRL's own methods timed, steps noted as they end.

TRL's code runs as it is; only the colocated engine's weight update is replaced.
"""

import argparse
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.memory import MemoryWatch
from benchmarks.step_work import FixedRollouts, StepResult, StepRow, StepWork, rewards_of


@dataclass(kw_only=True)
class Job:
    """What one run of the trainer is asked for, whichever mode."""

    work: StepWork
    given: argparse.Namespace
    rollouts: FixedRollouts | None

    @property
    def group(self) -> int:
        """Completions of each prompt."""
        return self.rollouts.group if self.rollouts else self.work.group

    @property
    def num_steps(self) -> int:
        """Optimizer steps, those for warming up and memory included."""
        if self.given.gradients:
            return 1
        return self.given.updates + 2 if self.rollouts else len(self.work.prompts)

    @property
    def batch(self) -> int:
        """Completions of a step."""
        return self.group * (len(self.rollouts.prompts) if self.rollouts else self.work.problems)

    def watched(self, step: int) -> bool:
        """As `StepWork.watched`; the first and last update of a fixed batch."""
        if self.rollouts:
            return step in (0, self.num_steps - 1)
        return self.work.watched(step)

    def rewards(self, step: int, texts: list[str]) -> list[float]:
        """Of completions in the order of the prompts, group after group."""
        if self.rollouts:
            return [value for group in self.rollouts.rewards for value in group]
        size = self.group
        groups = [texts[i : i + size] for i in range(0, len(texts), size)]
        return [value for group in rewards_of(self.work, step, groups) for value in group]


@dataclass(kw_only=True)
class Timeline:
    """Seconds and sizes of the step that runs, and the rows of those that ended."""

    job: Job
    out: Path
    result: StepResult
    rows: list[StepRow] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)
    peak: int = 0
    watch: MemoryWatch | None = None
    began: float = 0.0

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, with the seconds that it takes summed under `name`."""

        @functools.wraps(work)
        def run(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*arguments, **options)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

        return run

    def start(self) -> None:
        """A step begins where the last one ended."""
        self.seconds, self.sizes = {}, {}
        if self.job.watched(len(self.rows)):
            self.watch = MemoryWatch()
            self.watch.start()
        self.began = time.perf_counter()

    def end(self) -> None:
        """Note the step and write the result."""
        step_s, spent = time.perf_counter() - self.began, self.seconds
        watched = self.watch is not None
        if self.watch is not None:
            self.watch.__exit__()
            self.peak, self.watch = max(self.peak, self.watch.peak), None
        publish_s, prepare_s = spent.get("publish", 0.0), spent.get("prepare", 0.0)
        row = StepRow(
            step_s=step_s,
            publish_s=publish_s,
            sample_s=0.0 if self.job.rollouts else spent.get("sample", 0.0) - publish_s,
            score_s=spent.get("score", 0.0),
            update_s=step_s - prepare_s,
            watched=watched,
            **self.sizes,
        )
        self.rows.append(row)
        replace(self.result, steps=tuple(self.rows), peak_memory_bytes=self.peak).write(self.out)


def measure(trainer: Any, timeline: Timeline) -> None:
    """Time the trainer's own methods, and note the sizes of what they make."""
    prepare = trainer._generate_and_score_completions

    def noted(inputs: Any) -> Any:
        output = prepare(inputs)
        prompts, completions = output["prompt_mask"], output["completion_mask"]
        sampled = int(completions.sum())
        timeline.sizes |= {
            "sampled_tokens": 0 if timeline.job.rollouts else sampled,
            "trained_tokens": sampled,
            "sequence_tokens": sampled + int(prompts.sum()),
            "padded_tokens": prompts.numel() + completions.numel(),
        }
        return output

    score = trainer._calculate_rewards

    def scored(*arguments: Any) -> Any:
        rewards = score(*arguments)
        groups = rewards.sum(1).view(-1, timeline.job.group)
        timeline.sizes["reward_mean"] = groups.mean().item()
        timeline.sizes["signal_frac"] = (groups.amax(1) > groups.amin(1)).float().mean().item()
        return rewards

    trainer._generate_and_score_completions = timeline.timed("prepare", noted)
    trainer._calculate_rewards = timeline.timed("score", scored)
    trainer._generate_single_turn = timeline.timed("sample", trainer._generate_single_turn)
    if trainer.use_vllm:
        engine = trainer.vllm_generation
        engine.sync_weights = timeline.timed("publish", functools.partial(publish, engine))


def publish(engine: Any) -> None:
    """TRL's `sync_weights` by the one way that vLLM's CPU build takes, tied head included."""
    weights = dict(engine._iter_named_params())
    weights.setdefault("lm_head.weight", engine.model.get_output_embeddings().weight.data)
    iterator = iter(weights.items())
    engine.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iterator})
    engine.llm.reset_prefix_cache()
