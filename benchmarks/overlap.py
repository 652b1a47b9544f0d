"""How much of scoring and packing runs while the engine samples: `python -m benchmarks.overlap`.

Whole rounds on the real engine and model, as the loop runs them, under three rewards: none to
speak of, the math reward on answers that need algebra, and a program in the sandbox. The model's own
answers would be too poor to be work, so that each completion stands for a given answer, and its
value is a coin's by its text. Then packing alone, at three sizes. The last line is JSON.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.overlap_work import REWARDS
from benchmarks.step import Silent, build
from rewards.problem import Problem, Response, Score, Verdict
from rollouts.process import prepare_process

SIZES = ((64, 64), (1_024, 1_000), (8_192, 1_000))
"""Completions, and tokens of each, behind prompts of 64 tokens in groups of 16."""


def one_round(run: Any, index: int) -> dict[str, float]:
    """A whole round's times, as metrics.jsonl has them."""
    from rl.clock import Clock
    from rl.rounds import sample_round, synchronise
    from rl.train import train_on, trained_groups

    clock = Clock(report=run.report)
    problems = run.ledger.draw(run.config.problems_per_round)
    synchronise(run, index, clock)
    with clock("sample"):
        groups = sample_round(run, problems, index, index, index)
    clock.timeline.take(run.collector.timeline)
    run.folder.write_round(index, groups)
    with clock("update"):
        train_on(run, trained_groups(run.config, groups), index, index, clock)
    return {name.removeprefix("time/"): round(s, 5) for name, s in clock.metrics().items()}


def rounds_of(arguments: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, float]]]:
    """Rounds by reward, interleaved, after one of each that is not kept."""
    from rewards.pool import RewardPool, ScoringConfig

    run, _ = build(arguments, folder)
    run = replace(run, report=Silent())
    kept: dict[str, list[dict[str, float]]] = {name: [] for name in REWARDS}
    pools = {n: RewardPool(reward, ScoringConfig(workers=arguments.workers)) for n, reward in REWARDS.items()}  # fmt: skip
    for number in range(arguments.rounds + 1):
        for place, (name, pool) in enumerate(pools.items()):
            turn = replace(run, collector=replace(run.collector, score=pool))
            times = one_round(turn, number * len(pools) + place)
            if number:
                kept[name].append(times)
                print(name, json.dumps(times), flush=True)
    for pool in pools.values():
        pool.close()
    return kept


def packing_seconds(count: int, length: int) -> dict[str, float]:
    """Seconds of both parts of packing: what can run beside the sampling, and the rest (median of 3)."""
    from rl.packing import PackingConfig, pack

    groups = drawn_groups(count, length)
    began = time.perf_counter()
    for group in groups:
        for rollout in group.rollouts:
            rollout.arrays  # noqa: B018  made here, kept by the rollout
    flattened = time.perf_counter() - began
    rest = []
    for _ in range(3):
        began = time.perf_counter()
        pack(groups, PackingConfig(), keep_no_signal=False)
        rest.append(time.perf_counter() - began)
    return {
        "completions": count,
        "tokens_each": length,
        "flatten_s": flattened,
        "pack_s": statistics.median(rest),
    }


def drawn_groups(count: int, length: int) -> list[Any]:
    """Groups of 16 random completions, half of them right."""
    from rollouts.rollout import Group, Rollout

    draw, groups = random.Random(count), []
    for index in range(count // 16):
        prompt, rollouts = tuple(draw.choices(range(49_000), k=64)), []
        for sample in range(16):
            score = Score(value=float(sample % 2), verdict=Verdict.CORRECT)
            rollouts.append(
                Rollout(
                    token_ids=prompt + tuple(draw.choices(range(49_000), k=length)),
                    sampled=(False,) * 64 + (True,) * length,
                    logprobs=(0.0,) * 64 + tuple(-draw.random() for _ in range(length)),
                    response=Response(text="", num_tokens=length),
                    score=score,
                    versions=((0, 64, 64 + length),),
                )
            )
        problem = Problem(id=str(index), prompt="", answer="", source="drawn")
        groups.append(Group(problem=problem, rollouts=tuple(rollouts)))
    return groups


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--workers", type=int, default=None, help="scoring processes")
    arguments = parser.parse_args()
    prepare_process()
    with tempfile.TemporaryDirectory() as folder:
        rounds = rounds_of(arguments, Path(folder))
    middle = {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for name, rows in rounds.items()
    }
    packing = [packing_seconds(*size) for size in SIZES]
    print(json.dumps({"median_round": middle, "packing_alone": packing}))


if __name__ == "__main__":
    main()
