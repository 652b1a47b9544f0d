"""A run killed in each of its phases, and resumed each time, equals one that was never killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kill import command, differences
from tests.one_core import ONE_CORE

ROOT = Path(__file__).resolve().parent.parent

# Runs the recipe, and kills it with SIGKILL when a phase begins (PHASE:COUNT), or when a file
# is about to be flushed to the disk (fsync:COUNT), so that a half-written one lies there.
KILLER = """
import os, signal, sys
where, _, count = os.environ["KILL_AT"].partition(":")
seen = 0
def strike(name):
    global seen
    seen += name == where
    if name == where and seen == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
import recipes.progress as progress
phase = progress.Progress.phase
def watched(self, name):
    strike(name)
    phase(self, name)
progress.Progress.phase = watched
fsync = os.fsync
def watched_fsync(descriptor):
    strike("fsync")
    fsync(descriptor)
os.fsync = watched_fsync
from recipes.cli import main
sys.argv = sys.argv[1:]
main("r1_zero", "killer", "r1_zero")
"""

# In the order that one run meets them, so that each process is killed once and goes on further.
INSTANTS = ["fsync:2", "update:2", "save:1"]
MORE = [
    "gate:1",
    "sample:1",
    "evaluate:1",
    "load:1",
    "evaluate base:1",
    "update:1",
    "fsync:9",
    "publish:2",
    "fsync:12",
    "save:2",
    "evaluate trained:1",
]


def run(words: list[str], **environ: str) -> subprocess.CompletedProcess:
    """One process of the recipe, on one thread so that the suite stays polite."""
    settings = {**ONE_CORE, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        words, env={**os.environ, **settings, **environ}, cwd=ROOT, capture_output=True, text=True
    )


def recipe(folder: Path, model: Path, *, resume: bool) -> list[str]:
    words = command(folder, resume=resume, model=str(model))
    if resume:
        return words
    return [*words, "task:arithmetic", "--task.add-max", "9", "--task.subtract-max", "9"]


@pytest.fixture(scope="module")
def never_killed(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "never"
    done = run(recipe(folder, tiny_model, resume=False))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("instants", [INSTANTS, pytest.param(MORE, marks=pytest.mark.slow)])
def test_killed_in_each_phase_equals_never_killed(instants, never_killed, tiny_model, tmp_path):
    folder = tmp_path / "run"
    num_killed = 0
    for instant in instants:
        words = recipe(folder, tiny_model, resume=folder.exists())
        words = [sys.executable, "-c", KILLER, *words[2:]]
        done = run(words, KILL_AT=instant)
        num_killed += done.returncode == -signal.SIGKILL
        assert done.returncode in (0, -signal.SIGKILL), f"{instant}: {done.stderr[-3000:]}"
    done = run(recipe(folder, tiny_model, resume=True))
    assert done.returncode == 0, done.stderr[-3000:]
    assert differences(never_killed, folder) == []
    assert num_killed >= len(INSTANTS)


def test_something_was_trained(never_killed):
    rows = [json.loads(line) for line in (never_killed / "metrics.jsonl").read_text().splitlines()]
    assert [row["round"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert sum(row["update/trained_tokens"] for row in rows) > 0
    assert sum(row["reward/no_signal_frac"] < 1 for row in rows) > 0


def test_a_changed_number_is_seen(never_killed, tmp_path):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", never_killed, copy], check=True)
    assert differences(never_killed, copy) == []
    rows = (copy / "metrics.jsonl").read_text().replace('"round": 3', '"round": 33')
    (copy / "metrics.jsonl").write_text(rows)
    (copy / "rollouts" / "round-000002.jsonl.zst").unlink()
    assert differences(never_killed, copy) == [
        "round-000002.jsonl.zst is missing in one",
        "metrics differ: round",
    ]
