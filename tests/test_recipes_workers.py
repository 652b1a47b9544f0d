"""A recipe whose engines are Ray workers: the run of one engine, ahead of training, killed and resumed."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from rollouts.records import read_groups

ROOT = Path(__file__).resolve().parent.parent
SIZES = {
    "--train.num-rounds": "4",
    "--train.updates-per-round": "1",
    "--train.max-tokens": "0 12",
    "--train.problems-per-round": "4",
    "--train.save-every": "1",
    "--test.num-problems": "3",
    "--test.max-tokens": "12",
    "--validation.num-problems": "3",
    "--validation.max-tokens": "12",
    "--policy.dtype": "float32",
    "--engine.dtype": "float32",
    "--policy.micro-batch-tokens": "512",
    "--scoring.workers": "1",
}
RAY = ("rollouts:ray", "--rollouts.num-workers", "2")
SHARED = ("rollouts:ray", "--engine.tensor-parallel", "2")
"""Two workers, and one whose engine two processes share."""

# The driver dies when its third round's update begins.
DYING = """
import os, signal
import recipes.progress as progress
phase, seen = progress.Progress.phase, []
def watched(self, name):
    seen.append(name)
    if seen.count("update") == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    phase(self, name)
progress.Progress.phase = watched
from recipes.cli import main
main("r1_zero", "dying", "r1_zero")
"""


def run(*words, program=("-m", "recipes.r1_zero")) -> subprocess.CompletedProcess:
    command = [sys.executable, *program, *map(str, words)]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    return subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True)


def words(model: Path, folder: Path, *more: str) -> list:
    given = [word for name, value in SIZES.items() for word in (name, *value.split())]
    return ["r1_zero_tiny", "--run-folder", folder, "--model", model, *given, *more]


def rounds(folder: Path) -> list:
    return [list(read_groups(path)) for path in sorted((folder / "rollouts").glob("round-*"))]


def tokens(groups) -> list[tuple[int, ...]]:
    return [rollout.token_ids for group in groups for rollout in group.rollouts]


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def ahead(tiny_model, tmp_path_factory) -> Path:
    """A run whose sampling is a round ahead, and whose weights go past the hosts' memory."""
    folder = tmp_path_factory.mktemp("workers") / "ahead"
    more = (*RAY, "--rollouts.transfer", "gloo", "--train.max-staleness", "1")
    done = run(*words(tiny_model, folder, *more))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the hosts' memory" not in done.stderr
    speeds = [int(speed) for speed in re.findall(r"(\d+) tok/s", done.stdout)]
    assert len(speeds) == 4 and max(speeds) < 100_000  # not tokens over no time of waiting
    return folder


def test_sampling_is_ahead_by_at_most_as_much_as_was_asked(ahead):
    found = lines(ahead)
    assert [line["round"] for line in found] == [0, 1, 2, 3]
    assert found[0]["rollouts/age_max"] == 0
    assert max(line["rollouts/age_max"] for line in found) == 1
    for index, groups in enumerate(rounds(ahead)):
        for group in groups:
            for rollout in group.rollouts:
                assert all(index - 1 <= version <= index for version, _, _ in rollout.versions)


def test_no_problem_is_drawn_twice(ahead):
    drawn = Counter(group.problem.id for groups in rounds(ahead) for group in groups)
    assert len(drawn) == 4 * 4 and set(drawn.values()) == {1}


def test_the_workers_words_are_kept(ahead):
    assert {"worker-0.log", "worker-1.log"} <= {path.name for path in (ahead / "workers").iterdir()}


def test_what_is_trained_is_told_by_age(ahead):
    found = lines(ahead)
    assert found[0]["age/0/tokens_frac"] == 1
    assert found[-1]["age/1/tokens_frac"] + found[-1].get("age/0/tokens_frac", 0) == pytest.approx(
        1
    )
    assert found[-1]["age/1/k3"] >= 0


def test_what_sampling_ahead_took_is_told(ahead):
    for line in lines(ahead):
        assert line["time/engine_s"] > 0.01 and line["time/score_work_s"] >= 0
        assert all(line[name] >= 0 for name in line if name.startswith("time/"))


def test_the_ledger_tells_of_every_problem(ahead):
    told = [json.loads(line) for line in (ahead / "ledger.jsonl").read_text().splitlines()]
    for index, groups in enumerate(rounds(ahead)):
        drawn = sorted(group.problem.id for group in groups)
        assert told[index]["round"] == index
        assert sorted(told[index]["trained"] + told[index]["spent"]) == drawn
    assert lines(ahead)[-1]["ledger/pending"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("given", [RAY, SHARED])
def test_workers_make_the_run_of_one_engine(tiny_model, tmp_path, given):
    done = run(*words(tiny_model, tmp_path / "inline"))
    assert done.returncode == 0, done.stderr[-3000:]
    done = run(*words(tiny_model, tmp_path / "ray", *given))
    assert done.returncode == 0, done.stderr[-3000:]
    pairs = zip(rounds(tmp_path / "inline"), rounds(tmp_path / "ray"), strict=True)
    for mine, theirs in pairs:
        assert tokens(mine) == tokens(theirs)
    assert all(line["rollouts/age_max"] == 0 for line in lines(tmp_path / "ray"))


@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on_and_loses_nothing(tiny_model, tmp_path):
    folder = tmp_path / "killed"
    given = words(tiny_model, folder, *RAY, "--train.max-staleness", "1")
    assert run(*given, program=("-c", DYING)).returncode == -signal.SIGKILL
    before = {path.name: path.read_bytes() for path in (folder / "rollouts").glob("round-*")}
    assert len(before) >= 2
    done = run("--resume", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert all((folder / "rollouts" / name).read_bytes() == data for name, data in before.items())
    drawn = Counter(group.problem.id for groups in rounds(folder) for group in groups)
    assert len(drawn) == 4 * 4 and set(drawn.values()) == {1}
    assert [line["round"] for line in lines(folder)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ("--train.max-staleness", "1"),
            "error: train.max_staleness is 1, but the engine is in the trainer's process: name "
            "rollouts:ray, or leave max_staleness at 0",
        ),
        (
            ("rollouts:ray", "--rollouts.address", "127.0.0.1:9"),
            "error: no Ray answers at rollouts.address 127.0.0.1:9 ([Errno 111] Connection refused): "
            "start one there by ray start --head, or leave the address out",
        ),
        (
            ("rollouts:ray", "--rollouts.transfer", "nccl"),
            "error: rollouts.transfer is nccl, between whole GPUs, and workers have CPUs: choose host",
        ),
    ],
)
def test_what_cannot_be_is_told_in_one_line(tiny_model, tmp_path, more, message):
    done = run(*words(tiny_model, tmp_path / "run", *more))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == message
    assert not (tmp_path / "run").exists()
