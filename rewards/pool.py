"""Rewards scored in worker processes, while others are still being sampled.

    with RewardPool(reward, ScoringConfig()) as pool:
        pool.check(problem)                       # refuses a reward that does not work
        future = pool.submit(problem, [response])
        (score,) = future.result()

Why not pebble, which kills at a deadline too: its workers share one pipe and one lock, so that
one killed while idle breaks the whole pool, it stops a worker with up to three seconds of
grace, and it cannot choose a fresh worker for a retry. Several machines are left out.
"""

import os
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from rewards.adapters import AdaptedReward, adapted
from rewards.problem import Problem, Response, Score
from rewards.purity import Purity, ScoreCache, cache_key, purity_of
from rewards.scorer import TimedFuture, check_outcome
from rewards.supervisor import Outcome, PoolClosedError, Supervisor, control

CACHE_ENTRIES = 100_000
MAX_WORKERS = 16


@dataclass(frozen=True, kw_only=True)
class ScoringConfig:
    """Where rewards are computed and what they may cost. No score depends on `workers`."""

    workers: int | None = None
    """Scoring processes of each trainer; None for one a CPU core, at most 16; 0 scores in the trainer itself,
    without any protection against a reward that hangs or crashes."""
    deadline_s: float = 30.0
    """Seconds for one response, or for each of a group that is scored together; then the process
    is killed."""
    memory_gib: float = 4.0
    """Address space of a scoring process, in GiB."""

    def __post_init__(self) -> None:
        """Refuse what leaves nothing to score with."""
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"scoring.workers is {self.workers}: use 1 or more, or 0 for none")
        for name in ("deadline_s", "memory_gib"):
            if not 0 < getattr(self, name) < 1e6:
                raise ValueError(f"scoring.{name} is {getattr(self, name)}: use more than 0")


@dataclass(frozen=True, kw_only=True)
class _Item:
    run: Callable[[Supervisor], Any]
    future: Future[Any]


class RewardPool:
    """A scorer with `config.workers` processes. Close it, or use it in a `with`.

    Each process is looked after by a thread of its own, and dies with this process whatever
    ends that. A future always comes to its end: after two tries with a control in between, each
    within the deadline, at the latest.
    """

    def __init__(self, reward: Callable[..., Any], config: ScoringConfig):
        """Start the processes and wait until each has loaded the reward.

        Raises:
            ValueError: The reward has no known form, or cannot be loaded in another process.
        """
        self.reward = adapted(reward)
        self._purity: Purity | None = purity_of(self.reward.reward)
        self._cache = ScoreCache(CACHE_ENTRIES)
        self._items: SimpleQueue[_Item | None] = SimpleQueue()
        self._lock = Lock()
        self._closed = False
        payload = _pickled(self.reward)
        self._supervisors = [
            Supervisor(
                payload,
                deadline_s=config.deadline_s,
                memory_bytes=int(config.memory_gib * 2**30),
            )
            for _ in range(num_workers(config))
        ]
        started: list[Future[None]] = [Future() for _ in self._supervisors]
        self._threads = [
            Thread(target=self._serve, args=pair, daemon=True)
            for pair in zip(self._supervisors, started, strict=True)
        ]
        for thread in self._threads:
            thread.start()
        try:
            for future in started:
                future.result()
        except BaseException:
            self.close()
            raise

    @property
    def takes_group(self) -> bool:
        """As the reward does."""
        return self.reward.takes_group

    def submit(self, problem: Problem, responses: Sequence[Response]) -> TimedFuture:
        """One Score a response, later; at once if the reward is pure and has seen them."""
        future = TimedFuture()
        key = cache_key(self._purity, problem, responses) if self._purity else None
        if key is not None and (known := self._cache.get(key)) is not None:
            future.set_result(known)
            return future
        self._put(partial(self._graded, problem, tuple(responses), key), future)
        return future

    def __call__(self, problem: Problem, response: Response) -> Score:
        return self.submit(problem, [response]).result()[0]

    def examine(self, problem: Problem, responses: Sequence[Response]) -> Future[Outcome]:
        """As `submit`, never from the cache, with what went wrong and the seconds it took."""
        future: Future[Outcome] = Future()
        self._put(lambda supervisor: supervisor.grade(problem, tuple(responses)), future)
        return future

    def check(self, problem: Problem) -> None:
        """Score the problem's own reference answer once, before anything is trained.

        Raises:
            ValueError: The reward fails, or gives back something else than is expected.
        """
        future: Future[Outcome] = Future()
        self._put(lambda supervisor: supervisor.attempt(problem, [control(problem)]), future)
        check_outcome(future.result(), problem)

    def close(self) -> None:
        """End every process; what was not scored is cancelled. Closing twice is harmless."""
        with self._lock:
            self._closed = True
        for supervisor in self._supervisors:
            supervisor.close()
        while not self._items.empty():
            item = self._items.get()
            if item is not None:
                item.future.cancel()
        for _ in self._threads:
            self._items.put(None)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> "RewardPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self, supervisor: Supervisor, started: Future[None]) -> None:
        """Start a process here, in the thread that it dies with, then score item after item."""
        try:
            supervisor.start()
            started.set_result(None)
        except BaseException as error:  # noqa: BLE001  handed on to whoever makes the pool
            started.set_exception(error)
            return
        while (item := self._items.get()) is not None:
            if not item.future.set_running_or_notify_cancel():
                continue
            try:
                item.future.set_result(item.run(supervisor))
            except BaseException as error:  # noqa: BLE001  handed on to whoever waits
                item.future.set_exception(error)
        supervisor.stop()

    def _put(self, run: Callable[[Supervisor], Any], future: Future[Any]) -> None:
        with self._lock:
            if self._closed:
                raise PoolClosedError("the reward pool is closed")
            self._items.put(_Item(run=run, future=future))

    def _graded(
        self,
        problem: Problem,
        responses: tuple[Response, ...],
        key: bytes | None,
        supervisor: Supervisor,
    ) -> list[Score]:
        outcome = supervisor.grade(problem, responses)
        if key is not None and outcome.settled and not outcome.is_ours:
            self._cache.put(key, outcome.scores)
        return outcome.scores


def num_workers(config: ScoringConfig) -> int:
    """How many processes a config means on this machine, at least one."""
    if config.workers is None:
        sharing = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
        return max(1, min(len(os.sched_getaffinity(0)) // sharing, MAX_WORKERS))
    return max(config.workers, 1)


def _pickled(reward: AdaptedReward) -> bytes:
    try:
        return pickle.dumps(reward)
    except Exception as error:
        raise ValueError(
            f"the reward cannot be sent to a scoring process ({type(error).__name__}: {error}); "
            "define it at the top level of a module, or set scoring.workers to 0"
        ) from error
