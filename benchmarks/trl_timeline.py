"""The clock of `benchmarks.trl_step`: TRL's own methods timed, steps noted as they end.

TRL's code runs as it is; only the colocated engine's weight update is replaced.
"""

import argparse
import functools
import statistics
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
    batches: list[FixedRollouts]
    """Fixed rollouts, all of one shape; empty where the work is run."""

    @property
    def rollouts(self) -> FixedRollouts | None:
        """The first batch."""
        return self.batches[0] if self.batches else None

    @property
    def group(self) -> int:
        """Completions of each prompt."""
        return self.rollouts.group if self.rollouts else self.work.group

    @property
    def num_steps(self) -> int:
        """Optimizer steps, those for warming up and memory included."""
        if self.given.gradients:
            return 1
        return (
            1 + self.given.updates * len(self.batches) if self.batches else len(self.work.prompts)
        )

    def batch_of(self, step: int) -> int:
        """Which of the batches a step trains; the first step warms up on the first."""
        return max(0, step - 1) // self.given.updates if self.batches else 0

    @property
    def batch(self) -> int:
        """Completions of a step."""
        return self.group * (len(self.rollouts.prompts) if self.rollouts else self.work.problems)

    def warms_up(self, step: int) -> bool:
        """True for a step whose times do not count."""
        return step == 0 if self.batches else self.work.warms_up(step)

    def rewards(self, step: int, texts: list[str]) -> list[float]:
        """Of completions in the order of the prompts, group after group."""
        if self.batches:
            rewards = self.batches[self.batch_of(step)].rewards
            return [value for group in rewards for value in group]
        size = self.group
        groups = [texts[i : i + size] for i in range(0, len(texts), size)]
        return [value for group in rewards_of(self.work, step, groups) for value in group]


@dataclass(kw_only=True)
class Timeline:
    """Seconds and sizes of the step that runs, and the rows of those that ended."""

    job: Job
    out: Path
    result: StepResult
    watch: MemoryWatch
    rows: list[StepRow] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)
    micro_batches: list[float] = field(default_factory=list)
    """Seconds of each of the step's forward and backward passes so far."""
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
        self.seconds, self.sizes, self.micro_batches = {}, {}, []
        self.began = time.perf_counter()

    def end(self) -> None:
        """Note the step and write the result."""
        self.note(time.perf_counter() - self.began, self.job.warms_up(len(self.rows)))

    def note(self, step_s: float, warm_up: bool, **extra: Any) -> None:
        """Add a row and write the result."""
        spent = self.seconds
        publish_s, prepare_s = spent.get("publish", 0.0), spent.get("prepare", 0.0)
        row = StepRow(
            step_s=step_s,
            publish_s=publish_s,
            sample_s=0.0 if self.job.batches else spent.get("sample", 0.0) - publish_s,
            score_s=spent.get("score", 0.0),
            update_s=step_s - prepare_s,
            warm_up=warm_up,
            batch=self.job.batch_of(len(self.rows)),
            **self.sizes,
        )
        self.rows.append(row)
        found = {"steps": tuple(self.rows), "peak_memory_bytes": self.watch.peak, "extra": extra}
        replace(self.result, **found).write(self.out)

    def micro_batch(self, train: Callable[..., Any]) -> Callable[..., Any]:
        """`train`, timed; after as many as asked for the step is made up from them, and ends.

        All of a step's micro-batches are padded to one width, so each takes the same time. The
        first is left out, as the one that warms up; the optimizer's step is not added.
        """
        limit = self.job.given.micro_batches

        @functools.wraps(train)
        def run(*arguments: Any, **options: Any) -> Any:
            began, prepared = time.perf_counter(), self.seconds.get("prepare", 0.0)
            out = train(*arguments, **options)
            prepared = self.seconds.get("prepare", 0.0) - prepared
            self.micro_batches.append(time.perf_counter() - began - prepared)
            if limit and len(self.micro_batches) == 1 + limit:
                total = self.job.batch // (self.job.given.micro_batch or 8)
                update_s = total * statistics.median(self.micro_batches[1:])
                of = {"micro_batches_timed": limit, "micro_batches": total}
                self.note(self.seconds.get("prepare", 0.0) + update_s, False, **of)
                raise EnoughError
            return out

        return run


class EnoughError(Exception):
    """As many micro-batches ran as were asked for."""


def measure(trainer: Any, timeline: Timeline) -> None:
    """Time the trainer's own methods, and note the sizes of what they make."""
    prepare = trainer._generate_and_score_completions

    def noted(inputs: Any) -> Any:
        output = prepare(inputs)
        prompts, completions = output["prompt_mask"], output["completion_mask"]
        sampled = int(completions.sum())
        timeline.sizes |= {
            "sampled_tokens": 0 if timeline.job.batches else sampled,
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
    trainer.training_step = timeline.micro_batch(trainer.training_step)
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
