"""Stopping early: durations, real signals, and a whole run that is asked to end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipes import stopping
from recipes.stopping import Stopper, parse_duration
from tests.one_core import ONE_CORE

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3h50m", 3 * 3600 + 50 * 60),
        ("90s", 90),
        ("2h", 7200),
        ("1h0m1s", 3601),
        ("90m", 5400),
        (" 5m ", 300),
        ("0s", 0),
    ],
)
def test_durations(text: str, seconds: float):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "h", "3m2h", "1.5h", "-1h", "2 h", "1d", "3h50", "3H"])
def test_what_is_no_duration_is_refused(text: str):
    with pytest.raises(ValueError, match="write it as hours, minutes, seconds, like 3h50m"):
        parse_duration(text)
    with pytest.raises(ValueError, match="stop_after"):
        Stopper(text)


def test_a_deadline_is_counted_from_the_start(monkeypatch: pytest.MonkeyPatch):
    clock = [1000.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: clock[0])
    stopper = Stopper("1m")
    clock[0] = 1059.9
    assert not stopper.asked()
    clock[0] = 1060.0
    assert stopper.asked()
    assert not Stopper(None).asked()


def test_handlers_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Stopper(None) as stopper:
        assert signal.getsignal(signal.SIGTERM) == stopper._ask
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


LOOP = """
import sys, time
from recipes.cli import guarded
from recipes.stopping import Stopper

def loop():
    with Stopper(None) as stopper:
        print("ready", flush=True)
        for _ in range(1000):
            time.sleep(0.02)
            if stopper.asked() and sys.argv[1] == "polite":
                print("ended at a consistent point")
                return

sys.exit(guarded(loop))
"""


def start_loop(manner: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", LOOP, manner],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_at_the_next_consistent_point(number: signal.Signals):
    process = start_loop("polite")
    process.send_signal(number)
    printed, errors = process.communicate(timeout=30)
    assert (process.returncode, printed) == (0, "ended at a consistent point\n")
    assert errors == "stopping after this round; again to stop at once\n"


def test_a_second_signal_ends_at_once():
    process = start_loop("busy")
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("stopping after this round")
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 5  # the loop would go on for 20 s
    assert process.returncode == 130
    assert errors == "stopped at once; what was written is whole\n"


def test_a_run_that_gets_sigterm_ends_after_its_round_and_says_how_to_go_on(tiny_model, tmp_path):
    folder = tmp_path / "run"
    words = [sys.executable, "-m", "recipes.r1_zero", "quickstart", "--run-folder", str(folder)]
    words += ["--model", str(tiny_model), "--no-best-prompt", "--train.num-rounds", "1000"]
    words += ["--train.problems-per-round", "2", "--train.group-size", "2"]
    words += ["--train.max-tokens", "0", "8", "--test.num-problems", "2", "--test.max-tokens", "8"]
    settings = ONE_CORE
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (line := process.stdout.readline()).startswith("round    2"):
        assert line, process.stderr.read()[-3000:]
    process.send_signal(signal.SIGTERM)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors[-3000:]
    first, second = printed.splitlines()[-2:]
    assert first.startswith("stopped after round ")
    rounds = int(first.removeprefix("stopped after round ").partition(";")[0])
    assert 2 <= rounds < 1000
    assert second == f"  python -m recipes.r1_zero --resume {folder}"
    # The checkpoint is that of the last round: nothing is repeated when it goes on.
    assert max(p.name for p in (folder / "checkpoints").iterdir()) == f"round-{rounds:06d}"
