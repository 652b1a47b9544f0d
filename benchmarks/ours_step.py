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
from benchmarks.step import Silent, gemm_seconds
from benchmarks.step_work import (
    FixedRollouts,
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
    from rl.train import TrainConfig, Trainer
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
    from rl.train import sample_round, synchronise, train_on, trained_groups

    clock = Clock(report=run.report)
    problems = [
        run.ledger.problems["work"][index * work.problems + i] for i in range(work.problems)
    ]
    synchronise(run, index, clock)
    with clock("sample"):
        groups = sample_round(run, problems, index, index)
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


def described(groups: list[Any]) -> StepRow:
    """The sizes of an update, without its times."""
    trained = [r for group in groups if group.has_signal for r in group.rollouts]
    shared = {r.token_ids[: r.sampled.index(True)] for r in trained}
    rewards = [value for group in groups for value in group.rewards]
    return StepRow(
        step_s=0.0,
        trained_tokens=sum(sum(r.sampled) for r in trained),
        sequence_tokens=sum(len(r.token_ids) for r in trained),
        padded_tokens=sum(sum(r.sampled) for r in trained) + sum(map(len, shared)),
        reward_mean=sum(rewards) / len(rewards),
        signal_frac=sum(group.has_signal for group in groups) / len(groups),
    )


def run_work(run: Any, work: StepWork, given: argparse.Namespace, result: StepResult, peak: int):
    """Every step of the work, each timed one followed by its floor."""
    from rl.packing import pack

    rows: list[StepRow] = []
    floors: list[dict[str, float]] = []
    result = replace(result, kv_pool_bytes=run.engine.kv_pool_bytes)
    for index in range(len(work.prompts)):
        if work.watched(index):
            with MemoryWatch() as watch:
                row, groups = one_step(run, work, index)
            peak, row = max(peak, watch.peak), replace(row, watched=True)
        else:
            row, groups = one_step(run, work, index)
        rows.append(row)
        if not given.no_floor and not row.watched:
            batch = pack(groups, run.packing, keep_no_signal=False)
            run.engine.reset_prefix_cache()
            began = time.perf_counter()
            completions, _ = sample_bare(run.engine._llm, work, work.prompts[index])
            bare = time.perf_counter() - began
            drawn = sum(len(ids) for group in completions for ids in group)
            floor = {"bare_s": bare, "bare_tokens": drawn, "gemm_s": gemm_seconds(run, batch)}
            floors.append(floor | {"sampled_tokens": row.sampled_tokens})
        extra = {"floors": floors}
        replace(result, steps=tuple(rows), peak_memory_bytes=peak, extra=extra).write(given.out)
        if good_enough(work, rows):
            break


def groups_of(rollouts: FixedRollouts) -> list[Any]:
    """The fixed batch as groups."""
    from rewards.problem import Problem, Response, Score, Verdict
    from rollouts.rollout import Group, Rollout

    groups = []
    for index, prompt in enumerate(rollouts.prompts):
        members = []
        cells = (rollouts.completions[index], rollouts.logprobs[index], rollouts.rewards[index])
        for ids, logprobs, reward in zip(*cells, strict=True):
            start, stop = len(prompt), len(prompt) + len(ids)
            members.append(
                Rollout(
                    token_ids=prompt + ids,
                    sampled=(False,) * start + (True,) * len(ids),
                    logprobs=(0.0,) * start + logprobs,
                    response=Response(text="", num_tokens=len(ids)),
                    score=Score(value=reward, verdict=Verdict.WRONG),
                    versions=((0, start, stop),),
                )
            )
        problem = Problem(id=f"{index}", prompt="", answer="", source="work")
        groups.append(Group(problem=problem, rollouts=tuple(members)))
    return groups


def run_updates(run: Any, rollouts: FixedRollouts, given: Any, result: StepResult) -> None:
    """Timed updates on one batch, with one before and one after them under the memory watch."""
    from rl.clock import Clock
    from rl.packing import pack
    from rl.train import train_on

    groups, rows, peak = groups_of(rollouts), [], 0
    for index in range(given.updates + 2):
        watched = index in (0, given.updates + 1)
        watch = MemoryWatch()
        if watched:
            watch.start()
        began = time.perf_counter()
        train_on(run, groups, index, index, Clock(report=run.report))
        seconds = time.perf_counter() - began
        if watched:
            watch.__exit__()
            peak = max(peak, watch.peak)
        row = replace(described(groups), step_s=seconds, update_s=seconds, watched=watched)
        rows.append(row)
        replace(result, steps=tuple(rows), peak_memory_bytes=peak).write(given.out)
    if not given.no_floor:
        batch = pack(groups, run.packing, keep_no_signal=False)
        extra = {"gemm_s": min(gemm_seconds(run, batch) for _ in range(3))}
        replace(result, steps=tuple(rows), peak_memory_bytes=peak, extra=extra).write(given.out)


def write_gradients(run: Any, rollouts: FixedRollouts, path: Path) -> None:
    """The gradient of one update before clipping, float32, by parameter name."""
    from safetensors.torch import save_file

    from rl.objective import batch_loss
    from rl.packing import micro_batches, pack

    batch = pack(groups_of(rollouts), run.packing, keep_no_signal=False)
    for part in micro_batches(batch, run.policy.config.micro_batch_tokens):
        logprobs, entropy = run.policy.logprobs(part, run.config.temperature)
        batch_loss(logprobs, entropy, part, run.loss)[0].backward()
    save_file({name: m.grad for name, m in run.policy.optimizer.masters.items()}, path)


def main() -> None:
    """Run one work file, or updates of one batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--states", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--micro-batch-tokens", type=int, default=4096, help="prompts once")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    parser.add_argument("--eager", action="store_true", help="leave the compiler out")
    parser.add_argument("--rollouts", type=Path, help="update alone, on this batch")
    parser.add_argument("--updates", type=int, default=3, help="timed, with --rollouts")
    parser.add_argument("--gradients", type=Path, help="write the batch's gradient and stop")
    parser.add_argument("--no-floor", action="store_true", help="no bare vLLM, no products")
    given = parser.parse_args()
    prepare_process()
    from recipes.versions import versions

    work = read_work(given.work)
    settings = {name: str(value) for name, value in vars(given).items()}
    result = StepResult(subject="ours", settings=settings, versions=versions())
    rollouts = read_rollouts(given.rollouts) if given.rollouts else None
    with tempfile.TemporaryDirectory() as folder:
        with MemoryWatch() as watch:
            run = build(work, given, Path(folder), engine=rollouts is None)
        if given.gradients:
            write_gradients(run, rollouts, given.gradients)
        elif rollouts:
            run_updates(run, rollouts, given, result)
        else:
            run_work(run, work, given, result, watch.peak)


if __name__ == "__main__":
    main()
