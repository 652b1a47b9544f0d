"""The parent of a Ray worker that tells how it ended, by itself: no Ray is needed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rollouts import ending

WORKER = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(60)"


@pytest.mark.parametrize("kill", [os.kill, os.killpg])
def test_how_a_worker_ended_is_told_though_its_group_is_killed(tmp_path: Path, kill):
    """Ray kills the group of a worker that is gone, which would else end who is to tell of it."""
    endings, told = tmp_path / "endings.log", tmp_path / "pid"
    command = [sys.executable, ending.__file__, "-c", WORKER, told]
    process = subprocess.Popen(command, env=os.environ | {ending.ENDINGS: str(endings)})
    end = time.monotonic() + 30
    while not (told.is_file() and told.read_text()):
        assert time.monotonic() < end
        time.sleep(0.01)
    pid = int(told.read_text())
    kill(pid if kill is os.kill else os.getpgid(pid), signal.SIGKILL)
    found, how = ending.find(endings, os.uname().nodename, [pid], 10)
    assert found == pid and how.startswith("killed by SIGKILL, ")
    process.wait(10)
