"""One training step by phase, beside bare vLLM and the model's own matrix products.

`python -m benchmarks.step [--steps 5] [--problems 8] [--group 8] [--max-tokens 64]`; the last
line is JSON. A coin decides the rewards, so that every group has signal and is trained.
`--against trl [--case short|long] [--folder FOLDER]` puts the step beside TRL and the best short
loop instead (benchmarks/step_against.py); `--time-to-accuracy` measures seconds until an accuracy
(benchmarks/time_to_accuracy.py).
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.memory import MemoryWatch
from benchmarks.step_work import coin_value
from rollouts.process import prepare_process

PAIRS = 5
SIZES = {
    False: {"steps": 5, "problems": 8, "group": 8, "max_tokens": 64},
    True: {"steps": 60, "problems": 16, "group": 16, "max_tokens": 24},
}
"""Defaults of a step, and of `--time-to-accuracy`, which has the quickstart's."""


def coin(problem: Any, response: Any) -> Any:
    """A reward that has nothing to do with the answer: 0 or 1 by a hash of the text."""
    from rewards.problem import Score, Verdict

    value = coin_value(response.text)
    return Score(value=value, verdict=Verdict.CORRECT if value else Verdict.WRONG)


class Timed:
    """A reward with the seconds spent in it."""

    def __init__(self, reward: Callable[..., Any]):
        self.reward, self.seconds = reward, 0.0

    def __call__(self, problem: Any, response: Any) -> Any:
        began = time.perf_counter()
        score = self.reward(problem, response)
        self.seconds += time.perf_counter() - began
        return score


class Silent:
    """A reporter that shows nothing."""

    def phase(self, name: str) -> None:
        """Nothing."""

    def round(self, metrics: dict[str, float]) -> None:
        """Nothing."""


def build(arguments: argparse.Namespace, folder: Path) -> tuple[Any, Timed]:
    """A trainer as the quickstart has it, at this size, and its timed reward."""
    from recipes import launch
    from recipes.config import to_yaml
    from recipes.data import load_data
    from recipes.presets import quickstart
    from rewards.scorer import Inline
    from rl.run_folder import RunFolder
    from rollouts.models import resolve_model

    config = quickstart()
    config = replace(
        config,
        best_prompt=False,
        train=replace(
            config.train,
            problems_per_round=arguments.problems,
            group_size=arguments.group,
            max_tokens=((0, arguments.max_tokens),),
        ),
        test=replace(config.test, num_problems=1, num_samples=1),
    )
    model = resolve_model(config.model)
    score = Timed(coin)
    data = replace(load_data(config, model), score=Inline(score))
    run_folder = RunFolder.create(folder / "run", to_yaml(config), {})
    run = launch.build(config, model, data, run_folder, Silent(), lambda: False)
    return run, score


def one_step(run: Any, index: int, score: Timed) -> dict[str, float]:
    """Seconds by phase of one whole round."""
    from rl.clock import Clock
    from rl.rounds import sampling_at, synchronise
    from rl.train import train_on

    clock, score.seconds = Clock(report=Silent()), 0.0
    synchronise(run, index, clock)
    with clock("sample"):
        problems = run.ledger.draw(run.config.problems_per_round)
        sampling = sampling_at(run.config, index)
        groups = run.collector.collect(problems, sampling, round_index=index, version=index)
    run.folder.write_round(index, groups)
    with clock("update"):
        metrics = train_on(run, groups, index, index, clock)
    times = clock.metrics()
    rollouts = [r for group in groups for r in group.rollouts]
    return {
        "step_s": times["time/round_s"],
        "sample_s": times["time/sample_s"] - score.seconds,
        "score_s": score.seconds,
        "update_s": times["time/update_s"] + times["time/pack_s"],
        "publish_s": times["time/publish_s"],
        "other_s": times["time/other_s"],
        "sampled_tokens": sum(r.response.num_tokens for r in rollouts),
        "trained_tokens": sum(m["update/trained_tokens"] for m in metrics),
        "sequence_tokens": sum(len(r.token_ids) for r in rollouts),
    }


def sample_over_bare(run: Any) -> list[float]:
    """Our sampling time over bare vLLM's: interleaved pairs of the same requests on one engine."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    from rl.rounds import sampling_at

    problems = run.ledger.draw(run.config.problems_per_round)
    sampling = sampling_at(run.config, 0)
    version, collector = run.engine.version, run.collector
    requests = [
        collector._request(problem, sampling, 10**6, row, sample, version)
        for row, problem in enumerate(problems)
        for sample in range(collector.group_size)
    ]
    prompts = [TokensPrompt(prompt_token_ids=list(r.token_ids)) for r in requests]
    params = [
        SamplingParams(
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            seed=request.seed,
            logprobs=0,
            detokenize=False,
        )
        for request in requests
    ]

    def bare() -> list[tuple[int, ...]]:
        outputs = run.engine._llm.generate(prompts, params, use_tqdm=False)
        return [tuple(output.outputs[0].token_ids) for output in outputs]

    def ours() -> list[tuple[int, ...]]:
        groups = collector.collect(problems, sampling, round_index=10**6, version=version)
        return [r.token_ids[r.sampled.index(True) :] for g in groups for r in g.rollouts]

    assert ours() == bare(), "both must draw the same tokens"
    return [_seconds(run, ours) / _seconds(run, bare) for _ in range(PAIRS)]


def _seconds(run: Any, sample: Callable[[], Any]) -> float:
    run.engine.reset_prefix_cache()
    began = time.perf_counter()
    sample()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, help="5, or 60 with --time-to-accuracy")
    parser.add_argument("--problems", type=int, help="8, or 16")
    parser.add_argument("--group", type=int, help="8, or 16")
    parser.add_argument("--max-tokens", type=int, help="64, or 24")
    parser.add_argument("--against", choices=("trl",))
    parser.add_argument("--case", choices=("short", "long", "both"), default="both")
    parser.add_argument("--time-to-accuracy", action="store_true", help="a command of its own")
    parser.add_argument("--target", type=float, default=0.6, help="accuracy to be reached")
    parser.add_argument("--micro-batch", type=int, default=32, help="TRL's, to that accuracy")
    parser.add_argument("--patience", type=float, default=8, help="TRL's seconds over ours at most")
    parser.add_argument("--folder", type=Path, help="of results; a run cut short goes on there")
    arguments = parser.parse_args()
    for name, value in SIZES[arguments.time_to_accuracy].items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    if arguments.against or arguments.time_to_accuracy:
        return beside_peers(arguments)
    prepare_process()
    with tempfile.TemporaryDirectory() as folder:
        with MemoryWatch() as start:
            run, score = build(arguments, Path(folder))
            one_step(run, 0, score)
        steps = [one_step(run, 1 + index, score) for index in range(arguments.steps)]
        with MemoryWatch() as end:
            one_step(run, 1 + arguments.steps, score)
        print(json.dumps(report(run, steps, max(start.peak, end.peak))))


def beside_peers(arguments: argparse.Namespace) -> None:
    """Every subject on the same work; the last line is JSON."""
    from benchmarks import time_to_accuracy
    from benchmarks.step_against import CASES, Bench, run_all

    kind = "time-to-accuracy" if arguments.time_to_accuracy else f"step-{arguments.case}"
    folder = arguments.folder or Path("runs") / f"benchmark-{kind}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder.mkdir(parents=True, exist_ok=True)
    print(f"results: {folder}", flush=True)
    if arguments.time_to_accuracy:
        return time_to_accuracy.run(arguments, folder)
    cases = list(CASES) if arguments.case == "both" else [arguments.case]
    print(json.dumps(run_all(Bench(folder=folder.resolve()), cases)))


def report(run: Any, steps: list[dict[str, float]], peak: int) -> dict[str, Any]:
    """Medians over steps and the ratios."""
    from benchmarks.floor import product_seconds
    from recipes.versions import versions
    from rl.packing import pack

    middle = {name: statistics.median(step[name] for step in steps) for name in steps[0]}
    batch = pack(run.folder.read_round(len(steps)), run.packing, keep_no_signal=False)
    gemm_s = statistics.median(product_seconds(run.policy, batch) for _ in range(3))
    ratios = sample_over_bare(run)
    outside = middle["publish_s"] + middle["score_s"] + middle["other_s"]
    return middle | {
        "update_s_of_each": [round(step["update_s"], 2) for step in steps],
        "sampled_tokens_per_s": middle["sampled_tokens"] / middle["sample_s"],
        "trained_tokens_per_s": middle["trained_tokens"] / middle["update_s"],
        "other_frac": outside / middle["step_s"],
        "sample_time_over_bare": statistics.median(ratios),
        "sample_time_over_bare_pairs": [round(ratio, 4) for ratio in ratios],
        "update_gemm_frac": gemm_s / middle["update_s"],
        "peak_memory_bytes": peak,
        "peak_memory_without_pool_bytes": peak - run.engine.kv_pool_bytes,
        "versions": versions(),
    }


if __name__ == "__main__":
    main()
