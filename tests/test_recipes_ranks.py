"""A recipe under torchrun in two processes: the run of one, sharded or not, killed and gone on."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rollouts.records import read_groups
from tests.one_core import ONE_CORE
from tests.ranks_program import ROOT, torchrun

SIZES = {
    "--train.num-rounds": "3",
    "--train.max-tokens": "0 12",
    "--train.problems-per-round": "4",
    "--train.save-every": "1",
    "--train.evaluate-every": "2",
    "--test.num-problems": "3",
    "--test.max-tokens": "12",
    "--validation.num-problems": "3",
    "--validation.max-tokens": "12",
    "--policy.dtype": "float32",
    "--engine.dtype": "float32",
    "--policy.micro-batch-tokens": "512",
    "--scoring.workers": "1",
    "--reward": "rewards_by_length:reward",
}
REWARD = "def reward(problem, text):\n    return float(len(text) % 2)\n"

# The last process dies, or is stopped, in the first update after a checkpoint.
DYING = """
import os, signal, sys
import recipes.progress as progress
phase, seen = progress.Progress.phase, []
def watched(self, name):
    seen.append(name)
    last = os.environ.get("RANK", "0") == str(int(os.environ.get("WORLD_SIZE", "1")) - 1)
    if last and "save" in seen and name == "update":
        os.kill(os.getpid(), int(os.environ.get("WITH", signal.SIGKILL)))
    phase(self, name)
progress.Progress.phase = watched
from recipes.cli import main
main("r1_zero", "dying", "r1_zero")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "rewards_by_length.py").write_text(REWARD)
    (folder / "dying.py").write_text(DYING)
    return folder


def words(model, folder, *more):
    given = [word for name, value in SIZES.items() for word in (name, *value.split())]
    return ["r1_zero_tiny", "--run-folder", folder, "--model", model, *given, *more]


def path(place):
    return {"PYTHONPATH": f"{ROOT}{os.pathsep}{place}"}


@pytest.fixture(scope="module")
def alone(tiny_model, place):
    """The run of one process."""
    done = one(place, *words(tiny_model, place / "alone"))
    assert done.returncode == 0, done.stderr[-3000:]
    return place / "alone"


def one(place, *arguments, program=("-m", "recipes.r1_zero")):
    settings = {**ONE_CORE, "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, *map(str, program), *map(str, arguments)],
        env=os.environ | settings | path(place),
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def sharded(tiny_model, place):
    """The run of two, their parameters sharded, and what they said."""
    given = words(tiny_model, place / "sharded", "--policy.fsdp")
    done = torchrun("-m", "recipes.r1_zero", *given, **path(place))
    assert done.returncode == 0, done.stderr[-3000:]
    return place / "sharded", done.stdout


def token_ids(folder):
    rounds = sorted((folder / "rollouts").glob("round-*"))
    return [r.token_ids for path in rounds for g in read_groups(path) for r in g.rollouts]


def masters(run):
    """Of the last checkpoint, whole or in the shards of each process, which are cut by rows."""
    checkpoint = run / "checkpoints" / "round-000003"
    if (checkpoint / "master.safetensors").is_file():
        return load_file(checkpoint / "master.safetensors")
    shards = [load_file(path) for path in sorted((checkpoint / "master").iterdir())]
    return {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}


def assert_masters_near(folder, other):
    found, expected = masters(folder), masters(other)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert (found[key] - tensor).norm() <= 1e-6 * tensor.norm(), key


def test_two_processes_make_the_run_of_one(alone, sharded):
    folder, _ = sharded
    assert token_ids(folder) == token_ids(alone)
    assert len(token_ids(folder)) == 3 * 4 * 8
    assert len(list((folder / "checkpoints" / "round-000003" / "master").iterdir())) == 2
    assert_masters_near(folder, alone)
    for label in ("base", "round-000002", "trained"):
        mine, theirs = (
            json.loads((run / "eval" / f"{label}.json").read_text()) for run in (folder, alone)
        )
        assert mine == theirs


def test_one_process_speaks_for_all(sharded):
    _, printed = sharded
    lines = printed.splitlines()
    assert sum(line.startswith("gate: ") for line in lines) == 1
    assert [line[:10] for line in lines if line.startswith("round ")] == [
        "round    1",
        "round    2",
        "round    3",
    ]
    assert sum("Before and after" in line for line in lines) == 1


def test_the_final_folder_is_that_of_one_process(alone, sharded):
    folder, _ = sharded
    names = [{file.name for file in (run / "final").iterdir()} for run in (folder, alone)]
    assert names[0] == names[1]
    mine, theirs = (load_file(run / "final" / "model.safetensors") for run in (folder, alone))
    assert {n: (t.dtype, t.shape) for n, t in mine.items()} == {
        n: (t.dtype, t.shape) for n, t in theirs.items()
    }
    AutoModelForCausalLM.from_pretrained(folder / "final")


@pytest.fixture(scope="module")
def shared(tiny_model, place):
    """The run of two that share an engine."""
    given = words(tiny_model, place / "shared", "--engine.tensor-parallel", "2")
    done = torchrun("-m", "recipes.r1_zero", *given, **path(place))
    assert done.returncode == 0, done.stderr[-3000:]
    return place / "shared"


@pytest.mark.slow
def test_two_processes_that_share_an_engine_make_the_run_of_one(alone, shared):
    assert token_ids(shared) == token_ids(alone)
    assert_masters_near(shared, alone)
    for label in ("base", "trained"):
        mine, theirs = ((run / "eval" / f"{label}.json").read_text() for run in (shared, alone))
        assert mine == theirs


@pytest.mark.slow
def test_two_engines_of_two_processes_make_the_run_of_one(tiny_model, place, alone):
    given = words(tiny_model, place / "four", "--engine.tensor-parallel", "2", "--policy.fsdp")
    done = torchrun("-m", "recipes.r1_zero", *given, count=4, **path(place))
    assert done.returncode == 0, done.stderr[-3000:]
    assert token_ids(place / "four") == token_ids(alone)
    assert_masters_near(place / "four", alone)


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--policy.fsdp",)], ids=["whole", "sharded"])
def test_when_one_dies_all_end_and_one_process_goes_on(tiny_model, place, alone, more):
    folder = place / f"dying{len(more)}"
    done = torchrun(place / "dying.py", *words(tiny_model, folder, *more), **path(place))
    assert done.returncode != 0
    assert not (folder / "eval" / "trained.json").exists()
    checkpoint = folder / "checkpoints" / "round-000001"
    assert (
        (checkpoint / "master").is_dir() if more else (checkpoint / "master.safetensors").exists()
    )
    done = one(place, "--resume", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert token_ids(folder) == token_ids(alone)
    assert_masters_near(folder, alone)


@pytest.mark.parametrize(
    ("staleness", "processes"),
    [
        (0, 1),
        pytest.param(1, 1, marks=pytest.mark.slow),
        pytest.param(0, 2, marks=pytest.mark.slow),
    ],
)
def test_two_trainers_share_one_worker(tiny_model, place, alone, staleness, processes):
    folder = place / f"shared-{staleness}-{processes}"
    way = "host" if staleness else "gloo"
    more = ("--policy.fsdp", "rollouts:ray", "--rollouts.transfer", way)
    more += ("--train.max-staleness", str(staleness))
    more += ("--engine.tensor-parallel", str(processes))
    done = torchrun("-m", "recipes.r1_zero", *words(tiny_model, folder, *more), **path(place))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the hosts' memory" not in done.stderr
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["rollouts/age_max"] for line in lines] == [0, 2 * staleness, 2 * staleness]
    assert [line["ledger/trained"] + line["ledger/spent"] for line in lines] == [4, 8, 12]
    if not staleness:
        assert token_ids(folder) == token_ids(alone)
        assert_masters_near(folder, alone)


@pytest.mark.slow
def test_when_one_is_stopped_the_other_ends_the_run_with_one_line(tiny_model, place):
    folder = place / "stopped"
    environ = path(place) | {"WITH": str(int(signal.SIGSTOP)), "GROUPWISE_SILENCE_S": "6"}
    done = torchrun(place / "dying.py", *words(tiny_model, folder), **environ)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: process 0: process 1 on {socket.gethostname()} was not heard")
    assert "(phase here: update)" in line
    assert line.endswith(f"go on with --resume {folder}")
    assert (folder / "checkpoints" / "round-000001" / "state.json").exists()


@pytest.mark.slow
def test_two_sharded_processes_go_on_where_one_died(tiny_model, place, alone):
    folder = place / "died-alone"
    given = words(tiny_model, folder, "--policy.fsdp")
    done = one(place, *given, program=[place / "dying.py"])
    assert done.returncode == -9, done.stderr[-3000:]
    assert (folder / "checkpoints" / "round-000001" / "master.safetensors").exists()
    done = torchrun("-m", "recipes.r1_zero", "--resume", folder, **path(place))
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((folder / "checkpoints" / "round-000003" / "master").iterdir())) == 2
    assert token_ids(folder) == token_ids(alone)
    assert_masters_near(folder, alone)


def test_a_mistake_is_told_once(place):
    done = torchrun("-m", "recipes.r1_zero", "--train.num-round", "3", **path(place))
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert lines == ["error: unknown field --train.num-round; did you mean --train.num-rounds?"]


def test_a_folder_that_exists_is_refused_once(tiny_model, place, alone):
    done = torchrun("-m", "recipes.r1_zero", *words(tiny_model, alone), **path(place))
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "exists: continue it with --resume" in line
