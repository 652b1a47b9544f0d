"""Supervised stages, each in a process of its own (sft_program.py), on the tiny model in float32."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rl.sft import last_checkpoint, packed_batch

PROGRAM = Path(__file__).resolve().parent / "sft_program.py"


def run(name, model, folder, *, processes=0, code=0):
    """What the program printed last, as JSON."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    words = [sys.executable, *(launcher if processes else []), str(PROGRAM), name]
    done = subprocess.run(
        [*words, str(model), str(folder)],
        env={**os.environ, "PYTHONPATH": str(PROGRAM.parent.parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1]) if code == 0 else None


def test_the_loss_is_the_mean_over_completion_tokens(tiny_model, tmp_path):
    found = run("losses", tiny_model, tmp_path)
    assert found["packed"] == pytest.approx(found["by_hand"], rel=2e-5)
    assert found["unpacked"] == pytest.approx(found["by_hand"], rel=2e-5)


@pytest.mark.slow
def test_a_killed_stage_goes_on_to_the_same_weights(tiny_model, tmp_path):
    run("killed", tiny_model, tmp_path / "cut", code=-signal.SIGKILL)
    assert last_checkpoint(tmp_path / "cut").name == "update-000004"
    went_on = run("resumed", tiny_model, tmp_path / "cut")
    never_stopped = run("resumed", tiny_model, tmp_path / "whole")
    assert went_on["updates"][0] == 5
    assert went_on["updates"][-1] == never_stopped["updates"][-1]
    assert went_on["checksum"] == never_stopped["checksum"]


@pytest.mark.slow
def test_two_processes_train_as_one(tiny_model, tmp_path):
    one = run("whole", tiny_model, tmp_path / "one")
    two = run("whole", tiny_model, tmp_path / "two", processes=2)
    assert one["numbers"]["updates"] == two["numbers"]["updates"]
    masters = [torch.load(tmp_path / f"{count}.pt") for count in (1, 2)]
    for name, master in masters[0].items():
        torch.testing.assert_close(masters[1][name], master, atol=2e-6, rtol=0)


@pytest.mark.slow
def test_cosine_to_a_tenth(tiny_model, tmp_path):
    told = run("schedule", tiny_model, tmp_path)
    rates, numbers = told["rates"], told["numbers"]
    assert rates[0] == pytest.approx(1e-3)
    assert rates == sorted(rates, reverse=True)
    assert 1e-4 <= rates[-1] < 2.5e-4
    assert (numbers["examples"], numbers["updates"]) == (24, len(rates))


def test_what_is_learnt_of_a_packed_row():
    batch = packed_batch(
        torch.tensor([5, 6, 8, 2, 5, 9]),
        torch.tensor([-100, -100, 8, 2, -100, 9]),
        torch.tensor([0, 1, 2, 3, 0, 1]),
    )
    assert batch.lengths == [4, 2]
    assert batch.prompt_lengths == [2, 1]
    assert batch.sampled.tolist() == [False, False, True, True, False, True]


def test_a_checkpoint_that_is_not_whole_is_removed(tmp_path):
    for name in ("update-000002", "update-000010"):
        (tmp_path / name).mkdir()
    (tmp_path / "update-000002" / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path).name == "update-000002"
    assert [path.name for path in tmp_path.iterdir()] == ["update-000002"]
    assert last_checkpoint(tmp_path / "none") is None
