"""Synthetic run folders for the page's benchmark and tests: round files of any number, no model.

Tokens are drawn by Zipf's law over a vocabulary of made-up words, each by itself: text with less
structure than a model's, so that it compresses worse than real rollouts do.
"""

import json
import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from rewards.problem import Problem, Response, Score, Verdict
from rl.run_folder import RunFolder
from rl.trained import Trained
from rollouts.rollout import Group, Rollout

END = 0
PROMPT_TOKENS = 40
VERDICTS = (Verdict.CORRECT, Verdict.WRONG, Verdict.NO_ANSWER)


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """How large a run is."""

    num_rounds: int = 400
    num_groups: int = 16
    group_size: int = 16
    mean_tokens: int = 64
    num_problems: int = 2000
    vocabulary: int = 32_768
    seed: int = 0


def write_run(path: Path, size: Synthetic) -> int:
    """A whole run folder with its tokenizer, both files of each round, and metrics; gives its rollouts."""
    rng = np.random.default_rng(size.seed)
    words = _words(rng, size.vocabulary)
    train = {"num_rounds": size.num_rounds, "group_size": size.group_size}
    config = {"model": "synthetic", "task": {"kind": "synthetic"}, "train": train}
    run = RunFolder.create(path, yaml.safe_dump(config), {"packages": {}})
    (path / "final").mkdir()
    (path / "final" / "tokenizer.json").write_text(_tokenizer(words))
    chances = 1.0 / np.arange(1, size.vocabulary)
    chances /= chances.sum()
    for index in range(size.num_rounds):
        skill = (index + 1) / size.num_rounds
        groups = [_group(rng, size, words, chances, skill) for _ in range(size.num_groups)]
        run.write_round(index, groups)
        run.write_trained(index, _trained(rng, groups))
        run.log(_metrics(index, groups, rng))
    run.close()
    return size.num_rounds * size.num_groups * size.group_size


def _words(rng: np.random.Generator, count: int) -> list[str]:
    letters = np.array(list(string.ascii_lowercase))
    lengths = rng.integers(2, 8, size=count)
    return ["<end>", *("\u2581" + "".join(rng.choice(letters, n)) for n in lengths[1:])]


def _tokenizer(words: list[str]) -> str:
    """A tokenizer.json whose pieces are words, spelled as sentencepiece does."""
    added = [{"id": END, "content": words[END], "special": True}]
    vocabulary = {f"{word}\u2581{i}" if i else word: i for i, word in enumerate(words)}
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    return json.dumps({"model": model, "added_tokens": added, "decoder": {"type": "Metaspace"}})


def _group(
    rng: np.random.Generator, size: Synthetic, words: list[str], chances: np.ndarray, skill: float
) -> Group:
    number = int(rng.integers(size.num_problems))
    problem = Problem(
        id=f"synthetic/{number}", prompt=f"Problem {number}?", answer="1", source="synthetic"
    )
    prompt = tuple((1 + rng.choice(len(words) - 1, PROMPT_TOKENS, p=chances)).tolist())
    right = rng.beta(1 + 3 * skill, 4 - 3 * skill)
    rollouts = []
    for _ in range(size.group_size):
        count = int(rng.integers(size.mean_tokens // 2, size.mean_tokens * 3 // 2))
        ids = (1 + rng.choice(len(words) - 1, count - 1, p=chances)).tolist()
        verdict = VERDICTS[0 if rng.random() < right else 1 if rng.random() < 0.8 else 2]
        value = float(verdict is Verdict.CORRECT)
        logprobs = -rng.gamma(0.4, 2.0, size=count).astype(np.float32).astype(float)
        text = "".join(f"{words[i]}\u2581{i}".replace("\u2581", " ") for i in ids)
        rollouts.append(
            Rollout(
                token_ids=(*prompt, *ids, END),
                sampled=(False,) * PROMPT_TOKENS + (True,) * count,
                logprobs=(0.0,) * PROMPT_TOKENS + tuple(logprobs.tolist()),
                response=Response(text=text, num_tokens=count, max_tokens=2 * size.mean_tokens),
                score=Score(value=value, verdict=verdict, parts={"accuracy": value}),
                versions=((0, PROMPT_TOKENS, PROMPT_TOKENS + count),),
            )
        )
    return Group(problem=problem, rollouts=tuple(rollouts))


def _trained(rng: np.random.Generator, groups: list[Group]) -> list[Trained]:
    rows = []
    for g, group in enumerate(groups):
        mean = sum(group.rewards) / len(group.rewards)
        for s, rollout in enumerate(group.rollouts if group.has_signal else ()):
            drawn = rollout.arrays.logprobs[rollout.arrays.sampled]
            near = drawn + rng.normal(0, 0.05, size=len(drawn)).astype(np.float32)
            advantage = rollout.score.value - mean
            rows.append(Trained(group=g, sample=s, update=0, advantage=advantage, logprobs=near))
    return rows


def _metrics(index: int, groups: list[Group], rng: np.random.Generator) -> dict[str, float]:
    rollouts = [r for group in groups for r in group.rollouts]
    return {
        "round": index,
        "updates": index + 1,
        "reward/mean": sum(r.score.value for r in rollouts) / len(rollouts),
        "rollouts/mean_tokens": sum(r.response.num_tokens for r in rollouts) / len(rollouts),
        "rollouts/sampled_tokens": sum(r.response.num_tokens for r in rollouts),
        "update/entropy": float(2 + rng.normal(0, 0.1)),
        "time/sample_s": float(10 + rng.random()),
        "time/round_s": float(20 + rng.random()),
    }
