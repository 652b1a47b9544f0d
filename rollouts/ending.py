"""Run a worker's process, wait for it, and write down how it ended, which Ray tells nobody.

Ray starts `python ending.py ARGUMENTS` in the place of `python ARGUMENTS`. Standard library only,
since it stays beside the worker for as long as that lives.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

ENDINGS = "GROUPWISE_ENDINGS"
"""The variable that names the file for one line a process."""
PR_SET_PDEATHSIG = 1
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def line_of(host: str, pid: int) -> str:
    """How the line of a process begins, after the time."""
    return f"{host} process {pid} "


def find(endings: Path, host: str, pid: int, patience_s: float) -> str:
    """How a process ended, in words; waits a little for its line, and is empty without one."""
    end = time.monotonic() + patience_s
    while True:
        lines = endings.read_text().splitlines() if endings.is_file() else []
        for line in reversed(lines):
            _, found, words = line.partition(line_of(host, pid))
            if found:
                return words
        if time.monotonic() > end:
            return ""
        time.sleep(0.05)


def told(status: int, peak_kib: int) -> str:
    """A process's end in words: by which signal or with which code, and its memory at most."""
    code = os.waitstatus_to_exitcode(status)
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return f"{how}, {peak_kib / 2**20:.1f} GiB at most"


def main() -> None:
    """Be the parent of what Ray wanted to start."""
    began = time.monotonic()
    pid = os.fork()
    if not pid:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: os.kill(pid, number))
    _, status, used = os.wait4(pid, 0)
    words = f"{told(status, used.ru_maxrss)}, after {time.monotonic() - began:.0f} s"
    moment = time.strftime("%Y-%m-%d %H:%M:%S")
    with open(os.environ[ENDINGS], "a") as file:
        file.write(f"{moment} {line_of(os.uname().nodename, pid)}{words}\n")
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        if -code in PASSED_ON:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main()
