"""One worker as the driver sees it: where it is, what it was given, how it was lost and came back.

Where its engine is tensor-parallel, it is several processes of one machine. Ray places the first,
with resources for all, and the others are put beside it; if one dies, all end and come back.
"""

import contextlib
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rollouts import ending
from rollouts.exchange import EngineError
from rollouts.placement import Ray
from rollouts.ray_cluster import PLACE_S, resources, worker_environment
from rollouts.rollout import Completion, Request
from rollouts.worker import (
    READY,
    Facts,
    Meeting,
    NotStartedError,
    Progress,
    Seat,
    Spec,
    Worker,
    log_name,
)

ENDINGS_LOG = "endings.log"
LAST_LINES = 8
ENDING_S = 5.0
"""So long is waited for the line of how a process ended."""
RETRY_S = 0.25
KILL = r"Task was killed due to.*"
EXIT_OR_KILL = rf"Worker exit type.*|{KILL}"
"""What Ray says of a process's end, and of one that it killed itself, for memory."""
Call = list[Future[Progress]]


@dataclass(kw_only=True, eq=False)
class Remote:
    """A worker. `call` is what its processes are asked now, and `held` what it has not finished.

    Attributes:
        dropped: Ids of what it was asked for and nobody waits for any more.
        heard: Where a call of it goes that has come to an end, with the worker.
        actors: Its processes; the first speaks for them and is started again by Ray.
        place: Node id, host and process id of the first, once it has one.
        beside: Process ids of the others.
        failures: Deaths in a row without anything finished.
    """

    number: int
    spec: Spec
    placement: Ray
    heard: "SimpleQueue[tuple[Remote, Call]]"
    actors: list[Any] = field(default_factory=list)
    place: tuple[str, str, int] | None = None
    beside: list[int] = field(default_factory=list)
    held: dict[str, Request] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    call: Call | None = None
    since: float = 0.0
    version: int = -1
    failures: int = 0
    resident_bytes: int = 0
    _order: threading.Lock = field(default_factory=threading.Lock)

    @property
    def size(self) -> int:
        """Its processes."""
        return self.spec.config.tensor_parallel

    def create(self) -> None:
        """Ask Ray for the first process, with room for all; does not wait."""
        room = resources(self.placement, self.size)
        self.actors = [self._process(max_restarts=-1, max_task_retries=0, **room)]

    def _process(self, **options: Any) -> Any:
        settings = worker_environment(self.placement, self.size)
        settings |= {ending.ENDINGS: str(self.spec.logs / ENDINGS_LOG)}
        # As Ray would start it, but with a parent that learns how it ended.
        python = f"{shlex.quote(sys.executable)} -S -E {shlex.quote(ending.__file__)}"
        runtime = {"env_vars": settings, "py_executable": python}
        return ray.remote(Worker).options(runtime_env=runtime, **options).remote()

    def find(self) -> None:
        """Wait until Ray has placed it, for the first time or again, in a new process.

        Raises ValueError if there is no room at first, GetTimeoutError if it does not come back.
        """
        end = time.monotonic() + PLACE_S
        while True:
            left = end - time.monotonic()
            try:
                place = ray.get(self.actors[0].place.remote(), timeout=max(left, 0.1))
                if place != self.place:
                    self.place, self.actors, self.beside = place, self.actors[:1], []
                    return
                self.kill()  # it was out of reach, not dead: what it holds is nobody's now
                time.sleep(RETRY_S)
            except (ActorUnavailableError, GetTimeoutError) as error:
                if left <= 0 and self.place is not None:
                    ray.kill(self.actors[0], no_restart=False)  # it may be there, and stopped
                    raise GetTimeoutError(f"worker {self.number} does not come back") from error
                if left <= 0:
                    raise ValueError(
                        f"Ray has not placed worker {self.number} in {PLACE_S:.0f} s; free are "
                        f"{_told(ray.available_resources())} of {_told(ray.cluster_resources())}: "
                        "lower rollouts.num_workers, or wait until others have ended"
                    ) from error
                time.sleep(RETRY_S)

    def load(self, index: int, count: int) -> Facts:
        """Load its engine as the `index`-th of `count` workers of its machine.

        Raises what `Worker.start` raises, RayActorError if it dies, and GetTimeoutError.
        """
        end = time.monotonic() + self.placement.start_s
        meeting = self._gather(end) if self.size > 1 else None
        seats = [
            Seat(index=index, count=count, pid=pid, rank=rank, meeting=meeting)
            for rank, pid in enumerate(self._pids)
        ]
        taken = zip(self.actors, seats, strict=True)
        started = [actor.start.remote(self.number, self.spec, seat) for actor, seat in taken]
        return self.get(started, end - time.monotonic())

    def _gather(self, end: float) -> Meeting:
        """Put the other processes beside the first; gives where all will meet."""
        there = NodeAffinitySchedulingStrategy(self.place[0], soft=False)
        others = [
            self._process(num_cpus=0, num_gpus=0, scheduling_strategy=there)
            for _ in range(1, self.size)
        ]
        self.actors = [self.actors[0], *others]
        asked = [self.actors[0].invite.remote(self.size), *(o.place.remote() for o in others)]
        meeting, *places = ray.get(asked, timeout=max(end - time.monotonic(), 0.1))
        self.beside = [pid for _, _, pid in places]
        return meeting

    def tell(self, method: str, *args: Any) -> list[Any]:
        """Have every process do the same, in one order, whoever asks; the first's answer is first."""
        with self._order:
            return [getattr(actor, method).remote(*args) for actor in self.actors]

    def ask(self, requests: Sequence[Request], patience_s: float) -> None:
        """Give it more, and let it work for so long; `answer` has what came of it."""
        self.held.update((request.id, request) for request in requests)
        self.since = time.monotonic()
        asked = self.tell("advance", tuple(requests), patience_s, tuple(self.dropped))
        self.dropped = set()
        self.call = calls = [each.future() for each in asked]
        told = threading.Lock()  # taken by the first of those who see that it is over

        def hear(ended: Future[Progress]) -> None:
            over = ended.exception() or all(call.done() for call in calls)
            if over and told.acquire(blocking=False):
                self.heard.put((self, calls))

        for call in calls:
            call.add_done_callback(hear)

    def answer(self) -> list[Completion]:
        """What the call came to; nothing if it was buried since. Raises RayActorError if it died."""
        if not (ended := [call.result() for call in self.call or () if call.done()]):
            return []
        progress, self.call = ended[0], None
        if any(each.drawn != progress.drawn for each in ended):
            raise EngineError(f"the processes of worker {self.number} drew different tokens")
        self.resident_bytes = progress.resident_bytes
        finished = {each.request_id: each for each in progress.completions}
        self.dropped -= finished.keys()
        wanted = [finished[key] for key in finished if self.held.pop(key, None)]
        if progress.num_unfinished != len(self.held) + len(self.dropped):
            raise EngineError(f"worker {self.number} lost requests without a word")
        self.failures = 0 if wanted else self.failures
        return wanted

    def drop(self, ids: Set[str]) -> None:
        """Let it forget some of what it holds, when it is asked next."""
        gone = ids & self.held.keys()
        self.dropped |= gone
        for key in gone:
            del self.held[key]

    def is_silent(self) -> bool:
        """Whether it was asked and has said nothing for too long."""
        return self.call is not None and time.monotonic() - self.since > self.placement.silence_s

    def get(self, asked: Sequence[Any], patience_s: float) -> Any:
        """The first's answer, when all have answered.

        Raises RayActorError if one died, whatever the others say of that, and GetTimeoutError if one
        hangs.
        """
        try:
            return ray.get(list(asked), timeout=max(patience_s, 0.1))[0]
        except RayTaskError:
            end = time.monotonic() + ENDING_S * (self.size > 1)
            for call in asked:  # a process may fail of another's death before Ray has told that
                with contextlib.suppress(RayTaskError, GetTimeoutError):
                    ray.get(call, timeout=max(end - time.monotonic(), 0))
            raise

    def release(self) -> list[Request]:
        """Take back what it holds; what it says of that is not listened to."""
        held, self.held, self.dropped, self.call = self.held, {}, set(), None
        return list(held.values())

    def dismiss(self) -> None:
        """End it for good."""
        for actor in self.actors:
            ray.kill(actor)

    def kill(self) -> None:
        """End its processes, which may be stopped and deaf to Ray; Ray starts the first again."""
        if self.place is None:
            ray.kill(self.actors[0], no_restart=False)
            return
        for other in self.actors[1:]:
            ray.kill(other)
        node, host, _ = self.place
        if host == os.uname().nodename:
            _kill(self._pids)
            return
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        with contextlib.suppress(RayError):  # the machine may be gone
            ray.remote(_kill).options(scheduling_strategy=there, num_cpus=0).remote(self._pids)

    def death(self, error: Exception) -> str:
        """Who died of what, for the log: signal or memory as far as they are known."""
        rank, how = self._end(ENDING_S)
        host = self.place[1] if self.place else "an unknown machine"
        memory = f"{self.resident_bytes / 2**30:.1f} GiB when last heard of"
        who = f"worker {self.number}, process {self._pids[rank]} on {host}"
        told = how or "how it ended is not known"
        return f"{who}: {told} ({memory}){cause(error, with_exit=not how)}"

    def last_words(self) -> str:
        """The end of what it printed since it was ready, if its file can be seen from here."""
        path = self.spec.logs / log_name(self.number, self._end(0)[0])
        with contextlib.suppress(OSError):
            said = path.read_text(errors="replace").rpartition(READY)[2]
            lines = [each for each in said.splitlines() if each.strip()]
            return "\n".join(f"    {_printable(line)}" for line in lines[-LAST_LINES:])
        return ""

    def _end(self, patience_s: float) -> tuple[int, str]:
        """Which of its processes ended first, and how, in words if that is known."""
        host, pids = self.place[1] if self.place else "", self._pids
        pid, how = ending.find(self.spec.logs / ENDINGS_LOG, host, pids, patience_s)
        return pids.index(pid), how

    @property
    def _pids(self) -> list[int]:
        return [self.place[2] if self.place else 0, *self.beside]


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def cause(error: Exception, *, with_exit: bool) -> str:
    """What Ray knows of a death beyond its happening, in one line; often nothing.

    Of how a process exited it knows less than rollouts/ending.py, and tells that at length.
    """
    if isinstance(error, NotStartedError):
        return "; it was started again unasked"
    if isinstance(error, GetTimeoutError):
        return "; it did not answer in time"
    if isinstance(error, EngineError):
        return f"; {_printable(str(error).splitlines()[-1])}"
    said = " ".join(str(error).split())
    found = re.search(EXIT_OR_KILL if with_exit else KILL, said)
    return f"; Ray: {_printable(found[0])}" if found else ""


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)[:200]


def _told(found: Mapping[str, float]) -> str:
    return ", ".join(f"{found.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))
