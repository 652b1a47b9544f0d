"""What tests/test_rl_watchdog.py runs under torchrun: `watchdog_program.py FOLDER WHAT`.

Each process leaves its id in FOLDER/INDEX and its last word in FOLDER/end-INDEX.
"""

import os
import sys
import time
from pathlib import Path

from rl.ranks import find_ranks
from rl.watchdog import Watchdog

LONG_S = 5.0
"""Longer than the silence of 3 s that the tests set."""


def waits(ranks):
    """The first waits in a collective for the other, which never comes."""
    if not ranks.is_first:
        time.sleep(3600)
    ranks.any(True)


def takes_its_time(ranks):
    """One works on alone for longer than the silence, then the other, while the one ends."""
    if not ranks.is_first:
        began, total = time.monotonic(), 0
        while time.monotonic() - began < LONG_S:
            total += sum(range(10_000))
    ranks.any(True)
    if ranks.is_first:
        time.sleep(LONG_S)


if __name__ == "__main__":
    folder, what = Path(sys.argv[1]), sys.argv[2]
    ranks = find_ranks()
    slow = what == "takes_its_time" and not ranks.is_first
    time.sleep(LONG_S if slow else 0)
    with Watchdog(ranks, folder / "run", lambda: "update"):
        (folder / str(ranks.index)).write_text(str(os.getpid()))
        globals()[what](ranks)
    time.sleep(LONG_S if slow else 0)
    (folder / f"end-{ranks.index}").write_text("well")
