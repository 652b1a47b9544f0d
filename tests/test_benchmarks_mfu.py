"""The GPU benchmark's lengths and table, and all of it with a tiny model on the CPU."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.mfu import GROUP, Sizes, completion_lengths, groups_until, utilisation

ROOT = Path(__file__).resolve().parent.parent


def test_lengths_have_a_heavy_tail_and_reach_the_longest():
    drawn = [completion_lengths(4096, random.Random(seed)) for seed in range(500)]
    assert {max(lengths) for lengths in drawn} == {4096}
    assert {len(lengths) for lengths in drawn} == {GROUP}
    others = sorted(length for lengths in drawn for length in lengths[1:])
    assert others[0] >= 1
    assert abs(others[len(others) // 2] / 1024 - 1) < 0.06  # the median; 1.25 x 0.8 / sqrt(3,500)


def test_groups_are_drawn_until_there_are_tokens_enough():
    sizes = Sizes(prompt=10, step_tokens=1000)
    groups = groups_until(sizes, 64)
    tokens = [10 + sum(group) for group in groups]
    assert sum(tokens) >= 1000 > sum(tokens[:-1])


def test_utilisation_by_hand():
    found = utilisation({"step_s": 2.0, "tokens": 10, "lengths": [4, 6]}, 8 * 10**12, 10**13)
    assert (found["mfu"], found["tokens_per_s"], found["sequences"]) == (0.4, 5.0, 2)
    assert utilisation({"failed": "why"}, 1, 1.0) == {"failed": "why"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.mfu", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    done = run()
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: no GPU")


@pytest.mark.slow
def test_all_of_it_runs_with_a_tiny_model():
    done = run("--tiny", "--steps", "1")
    assert done.returncode == 0, done.stderr
    case = json.loads(done.stdout.strip().splitlines()[-1])["cases"][0]
    # Prompts of 8 before 8 completions: ours computes one a group, a supervised step one each.
    groups = case["trl_sft"]["sequences"] // GROUP
    assert case["trl_sft"]["tokens"] - case["ours"]["tokens"] == groups * 8 * (GROUP - 1)
    assert case["ours"]["mfu"] > 0 < case["trl_sft"]["mfu"]
