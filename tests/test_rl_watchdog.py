"""Processes that watch each other, under torchrun: the stopped, the slow, the leaving one."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from rl.ranks import ALONE
from rl.watchdog import Watchdog, silence_s
from tests.ranks_program import ROOT, torchrun

PROGRAM = ROOT / "tests" / "watchdog_program.py"
SILENCE_S = 3


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def runs(pid):
    """Whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def started(tmp_path):
    """torchrun with two processes of which the first waits for the second; and their ids."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    environ = {"PYTHONPATH": str(ROOT), "GROUPWISE_SILENCE_S": str(SILENCE_S)}
    with (tmp_path / "stderr").open("w") as stderr:
        job = subprocess.Popen(
            [*command, str(PROGRAM), str(tmp_path), "waits"],
            env=os.environ | environ,
            stderr=stderr,
            stdout=subprocess.DEVNULL,
        )
    files = [tmp_path / str(index) for index in range(2)]
    wait_until(lambda: all(file.exists() and file.read_text() for file in files))
    pids = [int(file.read_text()) for file in files]
    time.sleep(1)  # a few beats
    yield job, pids
    for pid in pids:
        if runs(pid):
            os.kill(pid, signal.SIGKILL)
    job.kill()
    job.wait()


def error_lines(tmp_path):
    lines = (tmp_path / "stderr").read_text().splitlines()
    return [line for line in lines if line.startswith("error: ")]


def test_when_one_is_stopped_the_other_ends_and_says_which(tmp_path, started):
    job, (waiting, stopped) = started
    os.kill(stopped, signal.SIGSTOP)
    began = time.monotonic()
    wait_until(lambda: not runs(waiting))
    assert SILENCE_S - 1 < time.monotonic() - began < 3 * SILENCE_S
    os.kill(stopped, signal.SIGCONT)  # torchrun's SIGTERM reaches it now, not its SIGKILL in 30 s
    assert job.wait(timeout=60) != 0
    (line,) = error_lines(tmp_path)
    assert line.startswith(
        f"error: process 0: process 1 on {socket.gethostname()} was not heard of for "
    )
    assert line.endswith(
        " s (phase here: update); the run ends. Its checkpoints are whole: go on with "
        f"--resume {tmp_path}/run"
    )
    assert "exitcode  : 75" in (tmp_path / "stderr").read_text()


@pytest.mark.slow
def test_when_the_store_does_not_answer_all_end(tmp_path, started):
    job, pids = started
    os.kill(job.pid, signal.SIGSTOP)  # torchrun holds the store
    wait_until(lambda: not any(map(runs, pids)))
    os.kill(job.pid, signal.SIGCONT)
    assert job.wait(timeout=60) != 0
    told = [line.partition(" for ")[0] for line in sorted(error_lines(tmp_path))]
    assert told == [
        f"error: process {index}: the store where the processes met does not answer"
        for index in range(2)
    ]


@pytest.mark.slow
def test_when_all_were_stopped_together_they_go_on(started):
    _, pids = started
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(2 * SILENCE_S)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    time.sleep(2 * SILENCE_S)
    assert all(map(runs, pids))


@pytest.mark.slow
def test_one_that_comes_late_works_long_and_ends_slowly_is_waited_for(tmp_path):
    done = torchrun(PROGRAM, tmp_path, "takes_its_time", GROUPWISE_SILENCE_S=str(SILENCE_S))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "error: " not in done.stderr
    assert [(tmp_path / f"end-{index}").read_text() for index in range(2)] == ["well", "well"]


def test_one_process_watches_nobody(tmp_path):
    with Watchdog(ALONE, tmp_path) as watchdog:
        assert not any(thread.is_alive() for thread in watchdog._threads)


def test_the_silence_is_a_number_of_seconds(monkeypatch):
    monkeypatch.delenv("GROUPWISE_SILENCE_S", raising=False)
    assert silence_s() == 120
    monkeypatch.setenv("GROUPWISE_SILENCE_S", "7.5")
    assert silence_s() == 7.5
    monkeypatch.setenv("GROUPWISE_SILENCE_S", "soon")
    with pytest.raises(
        ValueError, match="GROUPWISE_SILENCE_S is 'soon': give seconds, or 0 for off"
    ):
        silence_s()
