"""Run a worker's process, wait for it, and write down how it ended, which Ray tells nobody.

Ray starts `python ending.py ARGUMENTS` in the place of `python ARGUMENTS`. Standard library only,
since it stays beside the worker for as long as that lives.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ENDINGS = "GROUPWISE_ENDINGS"
"""The variable that names the file for one line a process."""
PR_SET_PDEATHSIG = 1


def line_of(host: str, pid: int) -> str:
    """How the line of a process begins, after the time."""
    return f"{host} process {pid} "


def find(endings: Path, host: str, pids: Sequence[int], patience_s: float) -> tuple[int, str]:
    """Which of these processes ended first, and how, in words; waits a little for a line.

    Without one it is the first of them, and no word.
    """
    end = time.monotonic() + patience_s
    while True:
        lines = endings.read_text().splitlines() if endings.is_file() else []
        found = {}
        for number, line in enumerate(lines):
            for pid in pids:
                _, here, words = line.partition(" " + line_of(host, pid))
                if here:  # the last line of each: numbers of processes come again
                    found[pid] = number, words
        if found:
            pid, (_, words) = min(found.items(), key=lambda each: each[1][0])
            return pid, words
        if time.monotonic() > end:
            return pids[0], ""
        time.sleep(0.05)


def told(status: int, peak_kib: int) -> str:
    """A process's end in words: by which signal or with which code, and its memory at most."""
    code = os.waitstatus_to_exitcode(status)
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return f"{how}, {peak_kib / 2**20:.1f} GiB at most"


def main() -> None:
    """Be the parent of the parent of what Ray wanted to start.

    When a worker is gone Ray kills the process group that it started, and the worker's. Who waits is
    in a session and a group of its own, so that it can write its line; the process between ends with it.
    """
    signal.signal(
        signal.SIGCHLD, signal.SIG_DFL
    )  # ignored, as it may be, nobody could be waited for
    waiting = os.fork()
    if not waiting:
        os.setsid()
        _end_with_parent(signal.SIGTERM)
        _watch()
    _, status = os.waitpid(waiting, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def _watch() -> None:
    """Start the worker, wait for it, write how it ended, and end alike."""
    began = time.monotonic()
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)
        _end_with_parent(signal.SIGKILL)
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])

    def end(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(pid, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end)
    _, status, used = os.wait4(pid, 0)
    words = f"{told(status, used.ru_maxrss)}, after {time.monotonic() - began:.0f} s"
    moment = time.strftime("%Y-%m-%d %H:%M:%S")
    with open(os.environ[ENDINGS], "a") as file:
        file.write(f"{moment} {line_of(os.uname().nodename, pid)}{words}\n")
    os._exit(os.waitstatus_to_exitcode(status) % 256)


def _end_with_parent(number: int) -> None:
    """Get a signal when the parent is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


if __name__ == "__main__":
    main()
