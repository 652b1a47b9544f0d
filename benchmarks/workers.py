"""Ray workers beside one engine: `python -m benchmarks.workers`; the last line is JSON.

Two engines of one core each sample what one engine of two cores samples, in turns, with the same
seeds. Then weights are published to both, and one is killed in mid-sampling; again in float32. Last
the quickstart's rounds, with one worker on one core and the trainer on the other.

    two_workers_over_one_engine    sampled tokens a second, median over the turns
    publish_s                      one publish to both, each with its part of the proof, median
    publish_transfer_s             the same by vLLM's weight transfer over gloo
    recovery_s                     from SIGKILL until the worker can sample again
    lost_groups, duplicated_groups of the sampling that was hit
    equal_frac                     rollouts of it with the tokens of an undisturbed one
    ahead_step_over_sync           a round sampled one ahead over one sampled when it is trained
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rollouts.process import prepare_process
from rollouts.rollout import Completion, Request, Sampling

GROUP_SIZE = 8
NUM_PROBLEMS = 16
MAX_TOKENS = 96
NUM_PUBLISHES = 10
ROUNDS = 8
KILLED_AFTER = 0.3
"""Of the completions."""


def requests(model: Path) -> list[Request]:
    """Groups of completions of short problems."""
    from transformers import AutoTokenizer

    from rollouts.prompts import PromptConfig, Renderer
    from rollouts.tasks.steps import Steps

    renderer = Renderer(tokenizer=AutoTokenizer.from_pretrained(model), config=PromptConfig())
    problems = Steps().problems("train")[:: len(Steps().problems("train")) // NUM_PROBLEMS]
    return [
        Request(
            id=f"{row}/{sample}",
            token_ids=renderer.ids(problem),
            sampling=Sampling(max_tokens=MAX_TOKENS),
            seed=row * GROUP_SIZE + sample,
            min_version=-1,
        )
        for row, problem in enumerate(problems[:NUM_PROBLEMS])
        for sample in range(GROUP_SIZE)
    ]


def speed(sampler: Any, asked: Sequence[Request]) -> float:
    """Sampled tokens a second."""
    sampler.reset_prefix_cache()
    began = time.perf_counter()
    tokens = sum(completion.num_tokens for completion in sampler.sample(asked))
    return tokens / (time.perf_counter() - began)


def published(model: Path) -> dict[str, Any]:
    """A checkpoint's tensors, the head too."""
    from safetensors.torch import load_file

    weights = load_file(model / "model.safetensors")
    if "lm_head.weight" not in weights:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    return weights


def struck(workers: Any, asked: Sequence[Request]) -> Iterator[Completion]:
    """The completions of a sampling in which a worker is killed."""
    for number, completion in enumerate(workers.sample(asked)):
        if number == int(KILLED_AFTER * len(asked)):
            os.kill(workers.crew.members[0].place[2], signal.SIGKILL)
        yield completion


def recovery(workers: Any, asked: Sequence[Request]) -> dict[str, float]:
    """What a kill in mid-sampling costs."""
    calm = {each.request_id: each.token_ids for each in workers.sample(asked)}
    workers.reset_prefix_cache()
    began = time.perf_counter()
    found = []
    for completion in struck(workers, asked):
        if len(found) <= int(KILLED_AFTER * len(asked)):
            began = time.perf_counter()
        found.append(completion)
    while not workers.crew.is_whole():
        time.sleep(0.05)
    seconds = time.perf_counter() - began
    seen = Counter(completion.request_id for completion in found)
    groups = {
        row for request in asked if not seen[request.id] for row in [request.id.split("/")[0]]
    }
    twice = {key.split("/")[0] for key, count in seen.items() if count > 1}
    equal = sum(calm[each.request_id] == each.token_ids for each in found)
    return {
        "recovery_s": seconds,
        "lost_groups": len(groups),
        "duplicated_groups": len(twice),
        "equal_frac": equal / len(asked),
    }


def measured(dtype: str, turns: int, *, beside: bool) -> dict[str, Any]:
    """Publishes and a kill with engines of a dtype; `beside` an engine in this process, if asked."""
    from rollouts.engine import Engine
    from rollouts.models import DEFAULT_MODEL, resolve_model
    from rollouts.placement import Ray
    from rollouts.sampler import EngineConfig
    from rollouts.workers import open_workers

    model = resolve_model(DEFAULT_MODEL)
    asked = requests(model)
    config = EngineConfig(dtype=dtype)
    shape = {"max_tokens": 512, "num_requests": len(asked)}
    with tempfile.TemporaryDirectory() as logs:
        placement = Ray(num_workers=2, transfer="gloo")
        workers = open_workers(model, config, placement, logs=Path(logs), **shape)
        speeds = {}
        if beside:
            engine = Engine(model, config, **shape)
            speeds["two_workers_over_one_engine"] = compared(engine, workers, asked, turns)
        told = publishes(workers, published(model), dtype)
        told |= recovery(workers, [replace(r, min_version=workers.version) for r in asked])
        workers.close()
    return speeds | told


def publishes(workers: Any, weights: dict[str, Any], dtype: str) -> dict[str, float]:
    """Seconds of a publish by the hosts' memory and by vLLM's transfer over gloo, in turns."""
    from rollouts.publishing import Publisher

    by_hosts, seconds = Publisher(workers.crew), {"publish_s": [], "publish_transfer_s": []}
    ways = {"publish_s": by_hosts, "publish_transfer_s": workers.publisher}
    for _ in range(NUM_PUBLISHES + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way.publish(weights, workers.version + 1)
            seconds[name].append(time.perf_counter() - began)
    by_hosts.publish(weights, workers.version + 1)  # who dies after it finds them there
    for name, each in seconds.items():
        print(f"{dtype}: {name}:", *(f"{one:.2f}" for one in each), flush=True)
    # The first of each proves all of it, or meets.
    medians = {name: statistics.median(each[1:]) for name, each in seconds.items()}
    return medians | {"publish_whole_s": seconds["publish_s"][0]}


def compared(engine: Any, workers: Any, asked: Sequence[Request], turns: int) -> float:
    """Two workers' speed over one engine's, the median of some turns in alternating order."""
    for each in (engine, workers):
        speed(each, asked)  # warm
    pairs = []
    for number in range(turns):
        order = (engine, workers) if number % 2 == 0 else (workers, engine)
        found = {id(each): speed(each, asked) for each in order}
        pairs.append((found[id(workers)], found[id(engine)]))
        print("tokens/s, two workers and one engine:", *map(round, pairs[-1]), flush=True)
    return statistics.median(a / b for a, b in pairs)


def round_seconds(staleness: int) -> float:
    """Of the quickstart's rounds, one worker sampling on one core and the trainer on the other."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        words = f"--train.num-rounds {ROUNDS} --train.max-staleness {staleness} --no-measured"
        command = [sys.executable, "-m", "recipes.quickstart", "rollouts:ray", *words.split()]
        environ = os.environ | {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "1"}
        done = subprocess.run(
            [*command, "--run-folder", str(folder)], env=environ, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        seconds = [line["time/round_s"] for line in lines]
    print(f"staleness {staleness}: rounds, s:", *(f"{each:.1f}" for each in seconds), flush=True)
    return statistics.median(seconds[2:])


def main() -> None:
    """Turns of both, publishes, kills, and rounds ahead."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    prepare_process()
    told = measured("bfloat16", arguments.turns, beside=True)
    exact = measured("float32", arguments.turns, beside=False)
    told |= {f"{name}_float32": value for name, value in exact.items()}
    ahead, sync = round_seconds(1), round_seconds(0)
    told |= {"ahead_step_over_sync": ahead / sync, "ahead_step_s": ahead, "sync_step_s": sync}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
