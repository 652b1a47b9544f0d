"""The real engine: killed in the middle of a line and resumed, the rows are those of a run never killed.

A random model is never right about sums, so the reward is one that it meets: an even length. In
float32, where company does not change a token.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from recipes import rejecting
from recipes.cli import guarded
from recipes.rejection import start
from rewards.problem import Problem, Response
from tests.one_core import ONE_CORE

ROOT = Path(__file__).resolve().parent.parent
KEPT: list = []  # vLLM's engines: freeing one would tear down the state of the session's others

# Runs the command, and kills it with SIGKILL in the middle of writing its COUNTth line.
KILLER = """
import os, signal, sys
from rollouts.completions import JsonLines
append, left = JsonLines.append, int(os.environ["KILL_AT"])
def watched(self, row):
    global left
    left -= 1
    if left == 0:
        self._file.write(b'{"problem": "arithmetic/')
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, row)
JsonLines.append = watched
from recipes.cli import guarded
from recipes.rejection import start
sys.exit(guarded(lambda: start(sys.argv[1:])))
"""
FIELDS = [
    "task:arithmetic", "--task.operations", "add", "--num-problems", "6", "--num-samples", "16",
    "--sampling.max-tokens", "111", "--engine.dtype", "float32", "--scoring.workers", "1",
    "--reward", "tests.test_recipes_rejection_engine:even", "--filters.format", "none",
    "--filters.language", "", "--filters.max-per-problem", "2",
]  # fmt: skip
NUM_SAMPLES = 6 * 16


def even(problem: Problem, response: Response) -> float:
    return float(response.num_tokens % 2 == 0)


def lines(folder: Path, name: str) -> list[str]:
    """Sorted: they are written as things finish."""
    return sorted((folder / "samples" / name).read_text().splitlines())


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Engines that are made are kept; the ids of what they are asked."""
    build: Callable = rejecting.build_engine
    asked: list[str] = []

    def kept(*args, **kwargs):
        engine = build(*args, **kwargs)
        KEPT.append(engine)
        sample = engine.sample

        def watched(requests):
            asked.extend(request.id for request in requests)
            return sample(requests)

        monkeypatch.setattr(engine, "sample", watched)
        return engine

    monkeypatch.setattr(rejecting, "build_engine", kept)
    return asked


@pytest.mark.slow
def test_killed_in_the_middle_and_resumed_equals_never_killed(
    tiny_model: Path, tmp_path: Path, built: list[str], capsys: pytest.CaptureFixture[str]
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert guarded(lambda: start([str(tiny_model), *FIELDS, "--run-folder", str(whole)])) == 0
    assert len(set(built)) == NUM_SAMPLES
    rows = [json.loads(line) for line in (whole / "kept.jsonl").read_text().splitlines()]
    counts = json.loads((whole / "counts.json").read_text())
    assert len(rows) == counts["kept"]["rows"] >= 3
    assert (
        counts["sampled"] == NUM_SAMPLES == len(rows) + sum(counts["removed"]["samples"].values())
    )
    saved = {
        (s["problem"], s["sample"]): s for s in map(json.loads, lines(whole, "completions.jsonl"))
    }
    for row in rows:
        sample = saved[row["problem_id"], row["sample"]]
        assert sample["finish"] == "stop"
        assert sample["num_tokens"] % 2 == 0
        assert row["completion"] == sample["text"]

    settings = {**ONE_CORE, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(tiny_model), *FIELDS, "--run-folder", str(killed)],
        env={**os.environ, **settings, "KILL_AT": str(NUM_SAMPLES)},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    file = killed / "samples" / "completions.jsonl"
    before = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
    assert NUM_SAMPLES // 3 < len(before) < NUM_SAMPLES
    assert not (killed / "kept.jsonl").exists()

    built.clear()
    capsys.readouterr()
    assert guarded(lambda: start(["--resume", str(killed)])) == 0
    assert "its last line was incomplete and is dropped" in capsys.readouterr().err
    assert len(built) == len(set(built)) == NUM_SAMPLES - len(before)
    assert file.read_text().splitlines(keepends=True)[: len(before)] == before
    assert lines(killed, "completions.jsonl") == lines(whole, "completions.jsonl")
    for name in ("kept.jsonl", "counts.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()

    built.clear()
    assert guarded(lambda: start(["--resume", str(killed)])) == 0
    assert built == []  # no engine where nothing is missing
