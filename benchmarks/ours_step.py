"""Groupwise on the same work: `python -m benchmarks.ours_step WORK.json OUT.json`.

The loop's own functions, as a recipe calls them. With `--rollouts FILE` the update alone, on one
fixed batch; with `--gradients FILE.safetensors` its gradient in float32. Unless `--no-floor` is
given, each timed step is followed by its floor: bare vLLM on the same requests without seeds, and
the model's own matrix products on the tokens of the update.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.memory import MemoryWatch
from benchmarks.minimal_loop import sample_bare
from benchmarks.ours_updates import described, run_updates, write_gradients
from benchmarks.step import Silent
from benchmarks.step_work import (
    StepResult,
    StepRow,
    StepWork,
    good_enough,
    read_rollouts,
    read_work,
    reward_of,
)
from rollouts.process import prepare_process


@dataclass(kw_only=True)
class Scored:
    """The work's reward as a `RewardFn`, with the seconds spent in it."""

    work: StepWork
    seconds: float = 0.0

    def __call__(self, problem: Any, response: Any) -> float:
        """The value of one completion; the problem's id says which it is of."""
        began = time.perf_counter()
        step, row = (int(number) for number in problem.id.split("/"))
        value = reward_of(self.work, step, row, response.text)
        self.seconds += time.perf_counter() - began
        return value


def policy_of(work: StepWork, given: argparse.Namespace) -> Any:
    """The work's model as it is asked for."""
    from rl.optimizer import OptimizerConfig
    from rl.policy import Policy, PolicyConfig

    dtype = "float32" if given.gradients else work.dtype
    states = "float32" if given.gradients else given.states
    return Policy(
        Path(work.model),
        PolicyConfig(
            dtype=dtype,
            micro_batch_tokens=given.micro_batch_tokens,
            compile=not given.eager,
            gradient_checkpointing=given.checkpointing,
        ),
        OptimizerConfig(learning_rate=work.learning_rate, states=states),
    )


def build(work: StepWork, given: argparse.Namespace, folder: Path, *, engine: bool) -> Any:
    """A trainer on the work's prompts, with TRL's loss: token mean, clip 0.2, no correction."""
    from rewards.adapters import adapted
    from rewards.problem import Problem
    from rewards.scorer import Inline
    from rl.objective import LossConfig
    from rl.packing import PackingConfig
    from rl.run_folder import RunFolder
    from rl.trainer import TrainConfig, Trainer
    from rollouts.collect import Collector
    from rollouts.ledger import Ledger
    from rollouts.sampler import EngineConfig

    policy = policy_of(work, given)
    problems = {
        f"{step}/{row}": Problem(id=f"{step}/{row}", prompt="", answer="", source="work")
        for step, prompts in enumerate(work.prompts)
        for row in range(len(prompts))
    }
    sampler = None
    if engine:
        from rollouts.engine import Engine

        config = EngineConfig(dtype=work.dtype, max_kv_gib=float(work.kv_gib))
        count = work.problems * work.group
        sampler = Engine(Path(work.model), config, max_tokens=work.longest, num_requests=count)
    ids = {f"{s}/{r}": p for s, row in enumerate(work.prompts) for r, p in enumerate(row)}
    return Trainer(
        config=TrainConfig(
            num_rounds=len(work.prompts),
            problems_per_round=work.problems,
            group_size=work.group,
            max_tokens=((0, work.max_tokens),),
            temperature=work.temperature,
            seed=work.seed,
        ),
        packing=PackingConfig(normalise="token"),
        loss=LossConfig(importance="none"),
        policy=policy,
        engine=sampler,
        collector=Collector(
            sampler=sampler,
            render=lambda problem: ids[problem.id],
            score=Inline(adapted(Scored(work=work))),
            group_size=work.group,
            seed=work.seed,
        ),
        ledger=Ledger(problems={"work": list(problems.values())}),
        folder=RunFolder.create(folder / "run", "", {}),
        report=Silent(),
        evaluate=lambda label: None,
        should_stop=lambda: False,
    )


def one_step(run: Any, work: StepWork, index: int) -> tuple[StepRow, list[Any]]:
    """A whole round on a step's prompts; its row and its groups."""
    from rl.clock import Clock
    from rl.rounds import sample_round, synchronise
    from rl.train import train_on, trained_groups

    clock = Clock(report=run.report)
    problems = [
        run.ledger.problems["work"][index * work.problems + i] for i in range(work.problems)
    ]
    synchronise(run, index, clock)
    with clock("sample"):
        groups = sample_round(run, problems, index, index, index)
    run.folder.write_round(index, groups)
    with clock("update"):
        train_on(run, trained_groups(run.config, groups), index, index, clock)
    times = clock.metrics()
    row = replace(
        described(groups),
        step_s=times["time/round_s"],
        publish_s=times["time/publish_s"],
        sample_s=times["time/sample_s"],
        update_s=times["time/update_s"] + times["time/pack_s"],
        sampled_tokens=sum(sum(r.sampled) for g in groups for r in g.rollouts),
    )
    return row, groups


def give_lengths(engine: Any, work: StepWork) -> None:
    """Let each request have the length that the work gives it; its id is step/row/sample."""
    add = engine._core.add_request

    def add_length(name: str, prompt: Any, params: Any, **options: Any) -> Any:
        step, row, sample = map(int, name.split("/"))
        params.max_tokens, params.ignore_eos = work.lengths[step][row][sample], True
        return add(name, prompt, params, **options)

    engine._core.add_request = add_length


def run_work(run: Any, work: StepWork, given: Any, result: StepResult, watch: MemoryWatch) -> None:
    """Every step of the work, each timed one followed by its floor."""
    rows: list[StepRow] = []
    floors: list[dict[str, float]] = []
    result = replace(result, kv_pool_bytes=run.engine.kv_pool_bytes)
    own = run.engine._core.add_request
    for index in range(len(work.prompts)):
        if work.lengths is not None:
            give_lengths(run.engine, work)
        row, groups = one_step(run, work, index)
        run.engine._core.add_request = own
        rows.append(replace(row, warm_up=work.warms_up(index)))
        peak = watch.peak
        replace(result, steps=tuple(rows), peak_memory_bytes=peak, extra={"floors": floors}).write(
            given.out
        )
        if good_enough(work, rows):
            break
        if not given.no_floor and not work.warms_up(index):
            floors.append(floor_of(run, work, index, groups))
            replace(
                result, steps=tuple(rows), peak_memory_bytes=peak, extra={"floors": floors}
            ).write(given.out)


def floor_of(run: Any, work: StepWork, index: int, groups: list[Any]) -> dict[str, float]:
    """Seconds of bare vLLM on the step's requests, and of the update's own products and attention."""
    from benchmarks.floor import attention_seconds, product_seconds
    from rl.packing import pack

    batch = pack(groups, run.packing, keep_no_signal=False)
    run.engine.reset_prefix_cache()
    began = time.perf_counter()
    completions, _ = sample_bare(run.engine._llm, work, index)
    return {
        "bare_s": time.perf_counter() - began,
        "bare_tokens": sum(len(ids) for group in completions for ids in group),
        "gemm_s": product_seconds(run.policy, batch),
        "attention_s": attention_seconds(
            run.policy.model.config, batch.lengths, run.policy.head.dtype
        ),
        "sampled_tokens": sum(sum(r.sampled) for g in groups for r in g.rollouts),
    }


def main() -> None:
    """Run one work file, or updates of one batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--states", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--micro-batch-tokens", type=int, default=4096, help="prompts once")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    parser.add_argument("--eager", action="store_true", help="leave the compiler out")
    parser.add_argument("--rollouts", type=Path, nargs="+", help="updates alone, on these batches")
    parser.add_argument(
        "--warm-ups", type=int, default=3, help="updates of the first that do not count"
    )
    parser.add_argument("--updates", type=int, default=3, help="timed of each, with --rollouts")
    parser.add_argument("--gradients", type=Path, help="write the batch's gradient and stop")
    parser.add_argument("--no-floor", action="store_true", help="no bare vLLM, no products")
    given = parser.parse_args()
    prepare_process()
    from recipes.versions import versions

    work = read_work(given.work)
    settings = {name: str(value) for name, value in vars(given).items()}
    result = StepResult(subject="ours", settings=settings, versions=versions())
    batches = [read_rollouts(path) for path in given.rollouts or ()]
    with tempfile.TemporaryDirectory() as folder, MemoryWatch() as watch:
        run = build(work, given, Path(folder), engine=not batches)
        if given.gradients:
            write_gradients(run, batches[0], given.gradients)
        elif batches:
            run_updates(run, batches, given, result, watch)
        else:
            run_work(run, work, given, result, watch)


if __name__ == "__main__":
    main()
