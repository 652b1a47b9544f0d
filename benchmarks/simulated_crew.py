"""Workers that compute nothing: what rollouts/workers.py deals to, in the place of a Ray crew.

A request takes as long as its completion, whose length is drawn by its seed from a heavy-tailed
distribution. Time is made up, and jumps to the next event; or it is real.
"""

import heapq
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from statistics import NormalDist
from typing import Any

from rollouts.rollout import Completion, Request
from rollouts.seeds import SEED_MASK

MEDIAN, SPREAD, LONGEST = 180, 0.8, 1024
"""Of the lengths: a log-normal distribution, cut."""


def length(seed: int) -> int:
    """Tokens of the completion that a seed draws."""
    normal = NormalDist().inv_cdf(((seed & SEED_MASK) + 0.5) / (SEED_MASK + 1))
    return max(1, min(LONGEST, round(MEDIAN * 2.718281828 ** (SPREAD * normal))))


def completion(request: Request, answer: str, version: int) -> Completion:
    """A finished request, with tokens and logprobs that share no memory."""
    num_tokens = min(length(request.seed), request.sampling.max_tokens)
    return Completion(
        request_id=request.id,
        token_ids=tuple(range(1000, 1000 + num_tokens)),
        logprobs=tuple(map(float, range(num_tokens))),
        text=answer,
        finish="stop" if num_tokens < request.sampling.max_tokens else "length",
        versions=((version, 0, num_tokens),),
    )


@dataclass(frozen=True, kw_only=True)
class Times:
    """How simulated time passes.

    Attributes:
        token_s: Of one token of one request.
        is_real: Whether waiting takes real time; else the clock jumps to the next event.
    """

    token_s: float
    is_real: bool


class SimulatedCrew:
    """The interface of rollouts/crew.py over simulated workers.

    Attributes:
        outside_s: CPU seconds of the simulation itself, which are not the driver's.
    """

    def __init__(self, num_workers: int, slots: int, times: Times):
        self.times, self.version = times, 0
        self.lock = threading.RLock()
        self.members = [SimulatedWorker(self, number, slots) for number in range(num_workers)]
        self.idle = list(self.members)
        self.orphans: list[Request] = []
        self.events: list[tuple[float, int, object]] = []
        self.outside_s = 0.0
        self._now, self._left = 0.0, time.perf_counter()
        self._woken: SimpleQueue[None] = SimpleQueue()

    @property
    def now(self) -> float:
        """Seconds; while the driver works, its real time passes too."""
        return self._now + time.perf_counter() - self._left

    def hear(self, patience_s: float) -> list["SimulatedWorker"]:
        """Workers whose call has come to an end."""
        began = time.thread_time()
        now = self.now
        with self.lock:
            first = self.events[0][0] if self.events else now + patience_s
        if first > now:
            first = min(first, now + patience_s)
            if self.times.is_real:
                self._wait(first - now)
                first = self.now
            now = first
        self._now, self._left = now, time.perf_counter()
        heard = []
        with self.lock:
            while self.events and self.events[0][0] <= now:
                _, number, call = heapq.heappop(self.events)
                if self.members[number].call is call:
                    heard.append(self.members[number])
        self.outside_s += time.thread_time() - began
        return heard

    def is_ready(self, remote: "SimulatedWorker") -> bool:
        """Nobody dies here."""
        return True

    def rest(self) -> None:
        """All workers that are asked nothing now are idle."""
        self.idle = [remote for remote in self.members if remote.call is None]

    def forget(self, ids: Set[str]) -> None:
        """Not used: nobody leaves a sampling."""

    def wake(self) -> None:
        """End a wait in `hear`."""
        if self.times.is_real:
            self._woken.put(None)

    def _wait(self, seconds: float) -> None:
        try:
            self._woken.get(timeout=seconds)
        except Empty:
            return


class SimulatedWorker:
    """The interface of rollouts/remote.py: so many slots, each a request at a time."""

    def __init__(self, crew: SimulatedCrew, number: int, slots: int):
        self.crew, self.number, self.slots = crew, number, slots
        self.held: dict[str, Request] = {}
        self.call: object | None = None
        self._running: list[tuple[float, str]] = []
        self._waiting: deque[str] = deque()

    def ask(self, requests: Collection[Request], patience_s: float) -> None:
        """Take more, and answer when something is finished or time is up."""
        began = time.thread_time()
        self.held.update((request.id, request) for request in requests)
        self._waiting.extend(request.id for request in requests)
        self._begin(self.crew.now)
        self.call = object()
        ends = self._running[0][0] if self._running else float("inf")
        event = min(ends, self.crew.now + patience_s), self.number, self.call
        with self.crew.lock:
            heapq.heappush(self.crew.events, event)
        self.crew.outside_s += time.thread_time() - began

    def answer(self) -> Sequence[Completion]:
        """What is finished by now."""
        began = time.thread_time()
        self.call, now, done = None, self.crew.now, []
        while self._running and self._running[0][0] <= now:
            ended, key = heapq.heappop(self._running)
            request = self.held.pop(key)
            answer = str(request.seed % 2)
            done.append(completion(request, answer, self.crew.version))
            self._begin(ended)
        self.crew.outside_s += time.thread_time() - began
        return done

    def _begin(self, now: float) -> None:
        while self._waiting and len(self._running) < self.slots:
            key = self._waiting.popleft()
            request: Any = self.held[key]
            tokens = min(length(request.seed), request.sampling.max_tokens)
            heapq.heappush(self._running, (now + tokens * self.crew.times.token_s, key))
