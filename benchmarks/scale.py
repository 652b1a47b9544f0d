"""What the driver of many workers costs, and what sampling ahead buys: `python -m benchmarks.scale`.

Simulated engines (benchmarks/simulated_crew.py) behind the real driver: ledger, requests,
dealing out, answers, scoring, groups. 1 to 1,000 workers of 100 slots, each rollout 237 tokens on
average. Ray's part of a call is measured apart, with real actors. The last line is JSON.

    driver_us_per_rollout      CPU of the whole driver process, simulation left out, at 1,000 workers
    driver_bytes_per_rollout   resident memory of a rollout that is kept, tokens and all
    growth                     driver_us_per_rollout at 1,000 workers over 10
    ray_us_per_call            CPU of one call to an actor and its answer, in this process
    throughput_by_staleness    rollouts a second of sampling and training, over those of staleness 0
"""

import argparse
import gc
import json
import statistics
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import psutil

from benchmarks.simulated_crew import LONGEST, SimulatedCrew, Times, completion
from benchmarks.step import Silent
from rewards.problem import Problem
from rewards.scorer import Inline
from rl.checkpoint import RunState
from rl.clock import Clock
from rl.metrics import ages_of
from rl.ranks import ALONE
from rl.rounds import rounds_of
from rl.trainer import TrainConfig, Trainer
from rollouts.collect import Collector
from rollouts.ledger import Ledger
from rollouts.placement import Ray
from rollouts.process import prepare_process
from rollouts.rollout import Request, Sampling
from rollouts.sampler import EngineConfig
from rollouts.tasks.arithmetic import Arithmetic
from rollouts.workers import Workers

SLOTS = 100
GROUP_SIZE = 16
WORKERS = (1, 10, 100, 1000)
LEAST_ROLLOUTS = 20_000
"""Sampled at each size; of many workers as many as are in flight at once, twice."""
CURVE = {"workers": 16, "slots": 16, "problems": 32, "rounds": 16, "token_s": 0.001}
"""Of the throughput by staleness: a round is twice what is in flight at once."""
STALENESS = (0, 1, 2, 4)


def parts(num_workers: int, slots: int, times: Times, num_problems: int) -> tuple[Any, Any, Any]:
    """Crew, collector and ledger: simulated, real, real."""
    crew: Any = SimulatedCrew(num_workers, slots, times)
    workers = Workers(crew, None, EngineConfig(), max_tokens=8192, room=round(1.25 * slots))
    rows = [
        Problem(id=f"sum/{i}", prompt=f"{i} + 0?", answer=str(i), source="sum")
        for i in range(num_problems)
    ]
    prompts = {row.id: tuple(range(i, i + 60)) for i, row in enumerate(rows)}
    collector = Collector(
        sampler=workers,
        render=lambda problem: prompts[problem.id],
        score=Inline(Arithmetic().score),
        group_size=GROUP_SIZE,
        seed=0,
    )
    return crew, collector, Ledger(problems={"sum": rows})


def driver(num_workers: int) -> dict[str, float]:
    """CPU and memory of a rollout with so many workers."""
    times = Times(token_s=8 / 30, is_real=False)  # a token stands for 8, at 30 a second
    num_problems = 2 * num_workers * SLOTS // GROUP_SIZE
    crew, collector, ledger = parts(num_workers, SLOTS, times, num_problems)
    rounds = max(1, -(-LEAST_ROLLOUTS // (num_problems * GROUP_SIZE)))
    sampling = Sampling(max_tokens=LONGEST)
    kept, tokens = [], 0
    gc.collect()
    before, began = psutil.Process().memory_info().rss, time.process_time()
    for index in range(rounds):
        problems = ledger.draw(num_problems)
        kept.append(collector.collect(problems, sampling, round_index=index, version=0))
    cpu_s = time.process_time() - began - crew.outside_s
    count = rounds * num_problems * GROUP_SIZE
    resident = psutil.Process().memory_info().rss - before
    for groups in kept:
        tokens += sum(r.response.num_tokens for group in groups for r in group.rollouts)
    return {
        "us_per_rollout": 1e6 * cpu_s / count,
        "bytes_per_rollout": resident / count,
        "tokens": tokens / count,
        "rollouts": count,
    }


def ray_call() -> float:
    """CPU seconds of the driver for one call to an actor, with a request there and its answer back."""
    import ray

    from rollouts.ray_cluster import start_ray

    start_ray(Ray(num_workers=1))
    asked = Request(
        id="0/0/0", token_ids=tuple(range(60)), sampling=Sampling(max_tokens=LONGEST), seed=7,
        min_version=-1,
    )  # fmt: skip
    answer = completion(asked, "0", 0)

    @ray.remote
    class Answering:
        def advance(self, requests: Any) -> Any:
            return [answer for _ in requests]

    actor = Answering.remote()
    ray.get(actor.advance.remote((asked,)))
    began, count = time.process_time(), 2000
    for _ in range(count // 10):
        ray.get([actor.advance.remote((asked,)) for _ in range(10)])
    seconds = (time.process_time() - began) / count
    ray.shutdown()
    return seconds


class Engine:
    """What a trainer publishes to: a number on the simulated crew."""

    def __init__(self, crew: SimulatedCrew):
        self._crew = crew

    @property
    def version(self) -> int:
        """Of the simulated weights."""
        return self._crew.version

    def publish(self, weights: Any, version: int) -> None:
        """Simulated tokens carry the version from now on."""
        self._crew.version = version

    def reset_prefix_cache(self) -> None:
        """Nothing."""

    def wake(self, *parts: str) -> None:
        """Nothing."""


def throughput(staleness: int, train_s: float) -> tuple[float, float]:
    """Rollouts a second when updates take `train_s`, in real time; and the largest age."""
    times = Times(token_s=CURVE["token_s"], is_real=True)
    workers, slots, size = (int(CURVE[name]) for name in ("workers", "slots", "problems"))
    crew, collector, ledger = parts(workers, slots, times, num_problems=1000)
    config = TrainConfig(
        num_rounds=int(CURVE["rounds"]),
        problems_per_round=size,
        group_size=GROUP_SIZE,
        max_tokens=((0, LONGEST),),
        max_staleness=staleness,
    )
    unused: Any = None
    run = Trainer(
        config=config,
        packing=unused,
        loss=unused,
        policy=SimpleNamespace(published=lambda: {}, ranks=ALONE),
        engine=Engine(crew),
        collector=collector,
        ledger=ledger,
        folder=SimpleNamespace(read_round=lambda index: None, write_round=lambda *row: None),
        report=Silent(),
        evaluate=unused,
        should_stop=unused,
    )
    state, oldest = RunState(), 0.0
    began = time.perf_counter()
    with rounds_of(run, state) as rounds:
        for index in range(config.num_rounds):
            clock = Clock(report=Silent())
            sampled = rounds.take(index, state.updates, clock)
            oldest = max(oldest, ages_of(sampled.groups, state.updates)["rollouts/age_max"])
            time.sleep(train_s)
            state = replace(state, round=index + 1, updates=index + 1)
            rounds.updated(state, clock)
    seconds = time.perf_counter() - began
    return config.num_rounds * size * GROUP_SIZE / seconds, oldest


def main() -> None:
    """The sizes, then Ray's call, then the curve."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=3, help="of the sizes; medians are told")
    arguments = parser.parse_args()
    prepare_process()
    found: dict[int, list[dict[str, float]]] = {size: [] for size in WORKERS}
    for _ in range(arguments.turns):
        for size in WORKERS:
            found[size].append(driver(size))
            told = ", ".join(f"{name} {value:,.0f}" for name, value in found[size][-1].items())
            print(f"{size} workers: {told}", flush=True)
    cost = {
        size: statistics.median(each["us_per_rollout"] for each in turns)
        for size, turns in found.items()
    }
    curve = {}
    for train_s in (0.25, 0.5, 1.0):
        speeds = {staleness: throughput(staleness, train_s) for staleness in STALENESS}
        shown = {k: round(speed / speeds[0][0], 2) for k, (speed, _) in speeds.items()}
        ages = {k: age for k, (_, age) in speeds.items()}
        print(f"updates of {train_s} s: {shown}, oldest {ages}", flush=True)
        curve[str(train_s)] = shown
    told = {
        "driver_us_per_rollout": cost[1000],
        "driver_bytes_per_rollout": found[1000][0]["bytes_per_rollout"],
        "growth": cost[1000] / cost[10],
        "us_per_rollout_by_workers": cost,
        "tokens_per_rollout": found[1000][0]["tokens"],
        "ray_us_per_call": 1e6 * ray_call(),
        "throughput_by_staleness": curve,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
