"""The real engine: two models in turn, killed in the middle of the second and resumed.

In float32, where company does not change a token, a resumed evaluation equals one never killed.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recipes import measuring
from recipes.cli import guarded
from recipes.evaluate import start
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
from recipes.evaluate import start
sys.exit(guarded(lambda: start(sys.argv[1:])))
"""
FIELDS = [
    "--benchmarks", "arithmetic", "--num-problems", "6", "--num-samples", "4",
    "--temperature", "1", "--max-tokens", "24", "--engine.dtype", "float32",
    "--no-best-template", "--scoring.workers", "1",
]  # fmt: skip
NUM_LINES = 2 * 2 * 6 * 4  # completions and grades of two models


def run(words: list[str], kill_at: int) -> subprocess.CompletedProcess:
    settings = {**ONE_CORE, "PYTHONPATH": str(ROOT)}
    settings["KILL_AT"] = str(kill_at)
    command = [sys.executable, "-c", KILLER, *words]
    return subprocess.run(
        command, env={**os.environ, **settings}, cwd=ROOT, capture_output=True, text=True
    )


def lines(folder: Path, name: str) -> dict[str, list[str]]:
    """The lines of every file of a name, sorted: they are written as things finish."""
    files = sorted((folder / "completions").rglob(name))
    return {f.relative_to(folder).as_posix(): sorted(f.read_text().splitlines()) for f in files}


def standings(folder: Path) -> list[dict]:
    return json.loads((folder / "results.json").read_text())["standings"]


@pytest.fixture(scope="module")
def asked(tiny_model: Path, untied_model: Path) -> list[str]:
    return [str(tiny_model), *FIELDS, "--against", str(untied_model)]


@pytest.fixture(scope="module")
def never_killed(asked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluations") / "never"
    done = run([*asked, "--run-folder", str(folder)], kill_at=0)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    return folder


@pytest.mark.slow
def test_two_models_in_turn_by_one_process(never_killed: Path):
    found = lines(never_killed, "completions.jsonl")
    first, second = (
        found[f"completions/{name}/arithmetic/completions.jsonl"] for name in ("model", "against")
    )
    assert len(first) == len(second) == 24
    rows = [json.loads(line) for line in first]
    assert {(row["problem"], row["sample"]) for row in rows} == {
        (problem, sample) for problem in {row["problem"] for row in rows} for sample in range(4)
    }
    assert all(row["num_tokens"] == len(row["token_ids"]) <= 24 for row in rows)
    assert len({row["text"] for row in rows}) > 12  # samples of one problem differ
    assert first != second  # and so do the models
    model, against = reversed(standings(never_killed))
    assert model["trial"] == "model/arithmetic"
    assert against["rates"]["mean_tokens"] > 1
    streams = json.loads((never_killed / "results.json").read_text())["streams"]
    assert [stream["num_sampled"] for stream in streams] == [24, 24]


@pytest.mark.slow
def test_killed_in_the_middle_and_resumed_equals_never_killed(
    never_killed: Path,
    asked: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    folder = tmp_path / "killed"
    done = run([*asked, "--run-folder", str(folder)], kill_at=NUM_LINES * 3 // 4)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    whole_lines = [
        line
        for file in (folder / "completions").rglob("completions.jsonl")
        for line in file.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]
    assert 24 < len(whole_lines) < 48

    sampled = []
    build = measuring.build_engine

    def kept(*args, **kwargs):
        engine = build(*args, **kwargs)
        KEPT.append(engine)
        sample = engine.sample

        def watched(requests):
            sampled.extend(request.id for request in requests)
            return sample(requests)

        monkeypatch.setattr(engine, "sample", watched)
        return engine

    monkeypatch.setattr(measuring, "build_engine", kept)
    assert guarded(lambda: start(["--resume", str(folder)])) == 0
    assert "its last line was incomplete and is dropped" in capsys.readouterr().err
    assert len(sampled) == len(set(sampled)) == 48 - len(whole_lines)
    assert len(KEPT) == 1  # the first model was finished: no engine for it
    for name in ("completions.jsonl", "grades.jsonl"):
        assert lines(folder, name) == lines(never_killed, name)
    assert standings(folder) == standings(never_killed)
