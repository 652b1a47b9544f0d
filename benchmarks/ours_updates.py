"""Groupwise's update alone on fixed batches: `python -m benchmarks.ours_step --rollouts FILES`."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.memory import MemoryWatch
from benchmarks.step_work import FixedRollouts, StepResult, StepRow


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


def run_updates(
    run: Any, batches: list[FixedRollouts], given: Any, result: StepResult, watch: MemoryWatch
) -> None:
    """Timed updates on each batch, after some for warming up, with their floors in turn."""
    from benchmarks.floor import attention_seconds, product_seconds
    from rl.clock import Clock
    from rl.packing import pack
    from rl.train import train_on

    rows: list[StepRow] = []
    floors: list[dict[str, float]] = []
    for number, rollouts in enumerate(batches):
        groups = groups_of(rollouts)
        batch = pack(groups, run.packing, keep_no_signal=False)
        warm_ups = 1 if number else given.warm_ups
        for index in range(warm_ups + given.updates):
            began = time.perf_counter()
            train_on(run, groups, len(rows), len(rows), Clock(report=run.report))
            spent = time.perf_counter() - began
            row = replace(described(groups), warm_up=index < warm_ups, batch=number)
            rows.append(replace(row, step_s=spent, update_s=spent))
            if not given.no_floor and not row.warm_up:
                dtype = run.policy.head.dtype
                floor = {
                    "batch": number,
                    "gemm_s": product_seconds(run.policy, batch),
                    "attention_s": attention_seconds(run.policy.model.config, batch.lengths, dtype),
                }
                floors.append(floor)
            found = {"steps": tuple(rows), "peak_memory_bytes": watch.peak}
            replace(result, **found, extra={"floors": floors}).write(given.out)


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
