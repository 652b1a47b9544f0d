"""The workers that there are: started, buried with a word why, started again, told the same.

Ray restarts a dead process; what makes it a worker again (engine, base, the current weights, each
proved) is given to it here, in a thread, while the others go on.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ray.exceptions import ActorUnschedulableError, GetTimeoutError, RayActorError

from rollouts.exchange import EngineError, TransferError
from rollouts.placement import Ray
from rollouts.remote import Remote
from rollouts.rollout import Request
from rollouts.worker import Facts, NotStartedError, Spec, installed

logger = logging.getLogger(__name__)
DEATHS = (RayActorError, ActorUnschedulableError, NotStartedError, GetTimeoutError)
"""The second is raised where a machine goes while a worker's processes are put on it."""
LOOK_S = 1.0
"""How often it is looked who is silent."""
CLOSE_S = 10.0
"""What is asked of workers that have ended fails within this."""
Answer = TypeVar("Answer")


class Crew:
    """All workers of a run. One thread may sample while another gives them weights.

    Attributes:
        version: Of the weights that all have, or get when they come back.
        idle: Workers that can sample and have nothing to do.
        orphans: Requests of workers that died, until they are dealt out again.
    """

    def __init__(self, spec: Spec, placement: Ray):
        """Start them all.

        Raises:
            ValueError: A worker that finds no room, or whose model or packages differ.
            EngineError: All die while they start.
        """
        self._heard: SimpleQueue[Any] = SimpleQueue()
        self.members = [
            Remote(number=n, spec=spec, placement=placement, heard=self._heard)
            for n in range(placement.num_workers)
        ]
        self.version = -1
        self._looked = time.monotonic()
        self.orphans: list[Request] = []
        self.lock = threading.RLock()
        self._weights: Any = None
        self._base: Any = None
        self._starting: dict[int, Future[None]] = {}
        self._waiting: set[int] = set()  # for weights that nobody has here: the next version
        self._gone: dict[int, str] = {}
        self._threads = ThreadPoolExecutor(max_workers=len(self.members))
        for remote in self.members:
            remote.create()
        self.idle = list(self.members)
        self._on_all(Remote.find)
        self.facts = self._on_all(self._load)[0]

    def hear(self, patience_s: float) -> list[Remote]:
        """Workers whose call has come to an end, by an answer or by death; the silent are killed.

        Waits for the first for so many seconds. Raises EngineError if no worker is left, or none
        that anybody here could give the weights.
        """
        with self.lock:
            self._settle()
            if len(self._waiting) == len(self.members):
                raise EngineError(
                    f"every worker was started again, and version {self.version} went past the hosts' "
                    "memory: --resume publishes it anew; with rollouts.transfer host they outlive it"
                )
        self._kill_the_silent()
        heard = []
        try:
            heard.append(self._heard.get(timeout=patience_s))
            while True:
                heard.append(self._heard.get_nowait())
        except Empty:
            return [remote for remote, call in heard if remote and remote.call is call]

    def ready(self) -> list[Remote]:
        """Workers that can sample now. Raises EngineError if none ever will again."""
        with self.lock:
            self._settle()
            return [remote for remote in self.members if self.is_ready(remote)]

    def is_ready(self, remote: Remote) -> bool:
        """Whether it is alive, with the current weights."""
        return not any(remote.number in k for k in (self._starting, self._gone, self._waiting))

    def is_whole(self) -> bool:
        """Whether every worker can sample now."""
        return len(self.ready()) == len(self.members)

    def publish(self, weights: Any, version: int) -> Any:
        """Give every worker the weights of this reference; gives a proof of one."""
        with self.lock:
            self._weights, self.version = (weights, version), version
            self.idle += [remote for remote in self.members if remote.number in self._waiting]
            self._waiting.clear()
            asked = self._asked("publish", weights, version)
        return self._answer(asked)

    def receive(self, version: int, send: Callable[[list[Remote]], list[str]]) -> list[str]:
        """Let all workers take weights that go past the hosts' memory; gives what `send` does.

        Raises TransferError, and starts them all again, if they do not arrive.
        """
        remotes = self.ready()
        try:
            wanted = send(remotes)
        except TransferError as error:
            for remote in remotes:
                self.bury(remote, EngineError(f"no weights came: {error}"))
            raise
        with self.lock:
            self._weights, self.version = None, version
            for remote in remotes:
                remote.version = version if self.is_ready(remote) else -1
        return wanted

    def has_proved(self) -> bool:
        """Whether every worker that there is computes with weights that it has proved whole."""
        return self.is_whole() and all(remote.version >= 0 for remote in self.members)

    def prove_base(self, base: Any) -> Any:
        """Have every worker compare its base with that of this reference."""
        self._base = base
        return self.tell("prove_base", base)

    def tell(self, method: str, *args: Any) -> Any:
        """Ask every worker that is ready, and wait until all have done it; gives one's answer."""
        return self._answer(self._asked(method, *args))

    def _asked(self, method: str, *args: Any) -> list[tuple[Remote, Any]]:
        with self.lock:
            return [(remote, remote.tell(method, *args)) for remote in self.ready()]

    def _answer(self, asked: Sequence[tuple[Remote, Any]]) -> Any:
        answer, end = None, time.monotonic() + self.members[0].placement.publish_s
        for remote, call in asked:
            try:
                answer = remote.get(call, end - time.monotonic())
                remote.version = self.version
            except DEATHS as error:
                self.bury(remote, error)
        return answer

    def bury(self, remote: Remote, error: Exception) -> None:
        """Say why a worker died, let it start again, and leave what it had to be dealt out.

        Two threads may hear of one death: the second has nothing to do.
        """
        with self.lock:
            if not self.is_ready(remote):
                return
            if remote.size > 1 or isinstance(error, GetTimeoutError | EngineError):
                remote.kill()  # not dead, but of no use
            requests = remote.release()
            self.orphans += requests
            remote.failures += 1
            remote.version = -1
            self.idle = [other for other in self.idle if other is not remote]
            told = remote.death(error)
            logger.warning("died: %s; %d requests are dealt out again", told, len(requests))
            if words := remote.last_words():
                logger.warning("its last lines:\n%s", words)
            if remote.failures < remote.placement.max_failures:
                self._starting[remote.number] = self._threads.submit(self._again, remote)
            else:
                self._give_up(remote, told)

    def forget(self, ids: Set[str]) -> None:
        """Have the workers drop what nobody waits for any more."""
        with self.lock:
            self.orphans = [each for each in self.orphans if each.id not in ids]
            for remote in self.members:
                remote.drop(ids)

    def rest(self) -> None:
        """All workers that are asked nothing now are idle."""
        with self.lock:
            self.idle = [r for r in self.members if self.is_ready(r) and r.call is None]

    def wake(self) -> None:
        """End a wait in `hear`."""
        self._heard.put((None, None))

    def close(self) -> None:
        """End them all, and wait for who starts one again: asked after its end, Ray would begin anew."""
        for remote in self.members:
            remote.dismiss()
        self._threads.shutdown(wait=False, cancel_futures=True)
        wait(list(self._starting.values()), CLOSE_S)

    def _settle(self) -> None:
        """Take note of who has come back. Raises EngineError if nobody is left or will come."""
        for number, future in list(self._starting.items()):
            if future.done():
                del self._starting[number]
                self._welcome(next(r for r in self.members if r.number == number), future)
        if not self.members:
            raise EngineError(f"all workers are dead: {'; '.join(self._gone.values())}")

    def _welcome(self, remote: Remote, future: Future[None]) -> None:
        """Take back a worker that was started again, or bury it again."""
        try:
            future.result()
        except DEATHS as error:
            self.bury(remote, error)
            return
        except ValueError as error:  # it is on a machine with another model or other packages
            logger.warning("given up: %s", error)
            self._give_up(remote, str(error))
            return
        if self.version >= 0 and self._weights is None:
            self._waiting.add(remote.number)
            told = "worker %d is back and gets its weights with the next version"
            logger.warning(told, remote.number)
            return
        if remote.version != self.version:  # others came while it was loading
            self._starting[remote.number] = self._threads.submit(self._catch_up, remote)
            return
        self.idle.append(remote)
        logger.warning("worker %d is back with version %d", remote.number, self.version)

    def _give_up(self, remote: Remote, told: str) -> None:
        self._gone[remote.number] = told
        self.members.remove(remote)
        remote.dismiss()

    def _kill_the_silent(self) -> None:
        if time.monotonic() - self._looked < LOOK_S:
            return
        self._looked = time.monotonic()
        for remote in self.members:
            if remote.is_silent():
                told = "worker %d has said nothing for %.0f s: it is killed"
                logger.warning(told, remote.number, remote.placement.silence_s)
                remote.kill()

    def _again(self, remote: Remote) -> None:
        """Make a worker whose process is new as the others are."""
        remote.find()
        self._load(remote)
        if self._base is not None:
            remote.get(remote.tell("prove_base", self._base), remote.placement.publish_s)
        self._catch_up(remote)

    def _catch_up(self, remote: Remote) -> None:
        """Give a worker that comes back the weights that the others have."""
        if (held := self._weights) is not None:
            weights, version = held
            remote.get(remote.tell("publish", weights, version), remote.placement.publish_s)
            remote.version = version

    def _load(self, remote: Remote) -> Facts:
        there = [r.number for r in self.members if r.place and r.place[0] == remote.place[0]]
        facts = remote.load(there.index(remote.number), len(there))
        if facts.versions != installed():
            raise ValueError(
                f"worker {remote.number} on {facts.host} has {facts.versions}, the trainer "
                f"{installed()}: install the same on both"
            )
        return facts

    def _on_all(self, act: Callable[[Remote], Answer]) -> list[Answer]:
        """The same on every worker that is there, at once; who dies of it is started again.

        Raises EngineError if all do, with what the first died of.
        """

        def tried(remote: Remote) -> Answer | Exception:
            try:
                return act(remote)
            except DEATHS as error:
                return error

        remotes = [remote for remote in self.members if self.is_ready(remote)]
        found = list(self._threads.map(tried, remotes))
        dead = [pair for pair in zip(remotes, found, strict=True) if isinstance(pair[1], DEATHS)]
        if len(dead) == len(found):
            first, error = dead[0]
            told = f"{first.death(error)} while it started\n{first.last_words()}"
            raise EngineError(told) from error
        for remote, error in dead:
            self.bury(remote, error)
        return [answer for answer in found if not isinstance(answer, DEATHS)]
