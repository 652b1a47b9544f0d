"""Several processes watch each other: one that falls silent ends the run instead of blocking it.

A thread in each process beats into the store over which they met and reads the others' beats.
Work, however slow, does not keep it from beating; a process that is stopped, a machine or a
network that is gone does. A process that waits for ever but still runs is not noticed.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType

from torch.distributed import DistError, Store, TCPStore

from rl.ranks import Ranks

SILENCE_S = 120.0
"""A process that was not heard of for so long counts as lost; GROUPWISE_SILENCE_S overrides it, 0 is off."""
EXIT_CODE = 75
UNHEARD, GONE = "0", "gone"


class Watchdog:
    """`with Watchdog(ranks, path):` around a run; with one process it does nothing.

    A process is listened for from its first beat on: one may load for long before it comes here.
    On a normal end it says goodbye, and the others no longer listen for it. On an error it just
    falls silent: were it to hang on its way out, the others would end after the silence.
    """

    def __init__(self, ranks: Ranks, path: object, phase: Callable[[], str] = str):
        """`path` is the folder to go on from, `phase` what this process is at, if that is known."""
        self._ranks, self._path, self._phase = ranks, path, phase
        self._silence_s = silence_s()
        self._tick_s = min(5.0, self._silence_s / 8)
        self._stop, self._goodbye = threading.Event(), False
        self._clock_s = self._answered_s = 0.0
        self._said: dict[int, tuple[str, float]] = {}  # its last words, and when they were new
        self._threads = [
            threading.Thread(target=target, name=f"watchdog-{name}", daemon=True)
            for name, target in (("beat", self._beat), ("listen", self._listen))
        ]

    def __enter__(self) -> "Watchdog":
        if self._ranks.count > 1 and self._silence_s > 0:
            self._stderr = os.dup(2)  # a library's notes may be kept off the screen just then
            for thread in self._threads:
                thread.start()
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._goodbye = kind is None
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=2 * self._tick_s)

    def _beat(self) -> None:
        """Talk to the store; a call that it does not answer blocks this thread and no other."""
        store, number = None, 0
        while True:
            leaving = self._stop.is_set()
            try:
                store = store or self._connect()
                number += 1
                word = GONE if leaving and self._goodbye else str(number)
                if word == GONE or not leaving:
                    store.set(_key(self._ranks.index), f"{word} {socket.gethostname()}")
                if leaving:
                    return
                self._hear(store)
            except DistError:  # the listener counts how long
                store = None
                if leaving:
                    return
            self._stop.wait(self._tick_s)

    def _connect(self) -> Store:
        """A connection of its own: that of the process group is held by whoever waits on it."""
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        patience = timedelta(seconds=self._silence_s)
        store = TCPStore(host, port, is_master=False, timeout=patience, wait_for_workers=False)
        for index in range(self._ranks.count):  # so that nobody waits for the first word
            store.compare_set(_key(index), "", UNHEARD)
        return store

    def _hear(self, store: Store) -> None:
        words = store.multi_get([_key(index) for index in range(self._ranks.count)])
        for index, word in enumerate(map(bytes.decode, words)):
            last, _ = self._said.get(index, (UNHEARD, 0.0))
            if word != last:
                self._said[index] = (word, self._clock_s)
        self._answered_s = self._clock_s

    def _listen(self) -> None:
        """Count how long it has been; stands still while this process is stopped itself."""
        last = time.monotonic()
        while not self._stop.wait(self._tick_s):
            now = time.monotonic()
            self._clock_s += min(now - last, 2 * self._tick_s)
            last = now
            if self._clock_s - self._answered_s > self._silence_s:
                self._end("the store where the processes met does not answer", self._answered_s)
            for index, (word, heard_s) in list(self._said.items()):
                mute = self._clock_s - heard_s > self._silence_s
                if mute and not word.startswith(GONE) and index != self._ranks.index:
                    host = word.partition(" ")[2]
                    self._end(f"process {index} on {host} was not heard of", heard_s)

    def _end(self, fault: str, since_s: float) -> None:
        phase = self._phase()
        line = (
            f"error: process {self._ranks.index}: {fault} for {self._clock_s - since_s:.0f} s"
            f"{f' (phase here: {phase})' if phase else ''}; the run ends. Its checkpoints are whole: "
            f"go on with --resume {self._path}\n"
        )
        os.write(self._stderr, line.encode())
        os._exit(EXIT_CODE)  # the main thread may wait in a collective, which nothing interrupts


def silence_s() -> float:
    """After how many seconds a process counts as lost. Raises ValueError for what is no number."""
    told = os.environ.get("GROUPWISE_SILENCE_S") or str(SILENCE_S)
    try:
        return float(told)
    except ValueError as error:
        raise ValueError(f"GROUPWISE_SILENCE_S is {told!r}: give seconds, or 0 for off") from error


def _key(index: int) -> str:
    """One a start: torchrun's restarts share a store."""
    return f"groupwise/beat/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{index}"
