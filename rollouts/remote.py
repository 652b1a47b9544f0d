"""One worker as the driver sees it: where it is, what it was given, how it was lost and came back."""

import contextlib
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rollouts import ending
from rollouts.exchange import EngineError
from rollouts.placement import Ray
from rollouts.ray_cluster import PLACE_S, resources, worker_environment
from rollouts.rollout import Completion, Request
from rollouts.worker import Facts, NotStartedError, Progress, Spec, Worker

LAST_LINES = 8
ENDING_S = 5.0
"""So long is waited for the line of how a process ended."""
RETRY_S = 0.25


@dataclass(kw_only=True, eq=False)
class Remote:
    """A worker. `call` is what it is asked now, and `held` what it has not finished.

    Attributes:
        dropped: Ids of what it was asked for and nobody waits for any more.
        heard: Where a call of it goes that has come to an end, with the worker.
        place: Node id, host and process id, once it has one.
        failures: Deaths in a row without anything finished.
    """

    number: int
    spec: Spec
    placement: Ray
    heard: "SimpleQueue[tuple[Remote, Future[Progress]]]"
    actor: Any = None
    place: tuple[str, str, int] | None = None
    held: dict[str, Request] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    call: Future[Progress] | None = None
    since: float = 0.0
    version: int = -1
    failures: int = 0
    resident_bytes: int = 0

    def create(self) -> None:
        """Ask Ray for the process; does not wait."""
        kind = ray.remote(max_restarts=-1, max_task_retries=0, **resources(self.placement))(Worker)
        settings = worker_environment(self.placement) | {ending.ENDINGS: str(self._endings)}
        # As Ray would start it, but with a parent that learns how it ended.
        python = f"{shlex.quote(sys.executable)} -S -E {shlex.quote(ending.__file__)}"
        self.actor = kind.options(
            runtime_env={"env_vars": settings, "py_executable": python}
        ).remote()

    def find(self) -> None:
        """Wait until Ray has placed it, for the first time or again, in a new process.

        Raises ValueError if there is no room at first, GetTimeoutError if it does not come back.
        """
        end = time.monotonic() + PLACE_S
        while True:
            left = end - time.monotonic()
            try:
                place = ray.get(self.actor.place.remote(), timeout=max(left, 0.1))
                if place != self.place:
                    self.place = place
                    return
                self.kill()  # it was out of reach, not dead: what it holds is nobody's now
                time.sleep(RETRY_S)
            except (ActorUnavailableError, GetTimeoutError) as error:
                if left <= 0 and self.place is not None:
                    ray.kill(self.actor, no_restart=False)  # it may be there, and stopped
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
        started = self.actor.start.remote(self.number, self.spec, index, count)
        return ray.get(started, timeout=self.placement.start_s)

    def ask(self, requests: Sequence[Request], patience_s: float) -> None:
        """Give it more, and let it work for so long; `answer` has what came of it."""
        self.held.update((request.id, request) for request in requests)
        self.since = time.monotonic()
        call = self.actor.advance.remote(tuple(requests), patience_s, tuple(self.dropped))
        self.dropped = set()
        self.call = call.future()
        self.call.add_done_callback(lambda call: self.heard.put((self, call)))

    def answer(self) -> list[Completion]:
        """What the call came to. Raises RayActorError if the worker died in it."""
        progress = self.call.result()
        self.call = None
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

    def get(self, call: Any, patience_s: float) -> Any:
        """A call's answer. Raises RayActorError if the worker died, GetTimeoutError if it hangs."""
        return ray.get(call, timeout=patience_s)

    def release(self) -> list[Request]:
        """Take back what it holds; what it says of that is not listened to."""
        requests = list(self.held.values())
        self.held, self.dropped, self.call = {}, set(), None
        return requests

    def dismiss(self) -> None:
        """End it for good."""
        ray.kill(self.actor)

    def kill(self) -> None:
        """End its process, which may be stopped and deaf to Ray; Ray starts it again."""
        if self.place is None:
            ray.kill(self.actor, no_restart=False)
            return
        node, host, pid = self.place
        if host == os.uname().nodename:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        with contextlib.suppress(RayError):  # the machine may be gone
            _kill.options(scheduling_strategy=there, num_cpus=0).remote(pid)

    def death(self, error: Exception) -> str:
        """Who died of what, for the log: signal or memory as far as they are known."""
        _, host, pid = self.place or ("", "an unknown machine", 0)
        memory = f"{self.resident_bytes / 2**30:.1f} GiB when last heard of"
        how = ending.find(self._endings, host, pid, ENDING_S) or "how it ended is not known"
        return f"worker {self.number}, process {pid} on {host}: {how} ({memory}){cause(error)}"

    @property
    def _endings(self) -> Path:
        return self.spec.logs / "endings.log"

    def last_words(self) -> str:
        """The end of what it printed, if its file can be seen from here."""
        path = self.spec.logs / f"worker-{self.number}.log"
        with contextlib.suppress(OSError):
            lines = [each for each in path.read_text(errors="replace").splitlines() if each.strip()]
            return "\n".join(f"    {_printable(line)}" for line in lines[-LAST_LINES:])
        return ""


@ray.remote
def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def cause(error: Exception) -> str:
    """What Ray knows of a death beyond its happening, in one line; often nothing."""
    if isinstance(error, NotStartedError):
        return "; it was started again unasked"
    if isinstance(error, GetTimeoutError):
        return "; it did not answer in time"
    if isinstance(error, EngineError):
        return f"; {_printable(str(error).splitlines()[-1])}"
    said = " ".join(str(error).split())
    found = re.search(r"(Worker exit type|Task was killed due to).*", said)
    return f"; Ray: {_printable(found[0])}" if found else ""


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)[:200]


def _told(found: Mapping[str, float]) -> str:
    return ", ".join(f"{found.get(name, 0):g} {name}s" for name in ("CPU", "GPU"))
