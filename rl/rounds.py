"""Where a round's groups come from: its file, the engine now, or the engine ahead of the updates.

Sampling ahead draws, samples and writes rounds in threads as soon as they are admitted: round r
when the updates of round r - `max_staleness` are done. Order is the ledger's, as without it;
staleness is bounded by admission, so nothing is ever discarded for its age.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import ceil
from queue import SimpleQueue
from typing import Protocol

from rewards.problem import Problem
from rl.checkpoint import RunState
from rl.clock import Clock
from rl.trainer import TrainConfig, Trainer
from rollouts.collect import graded
from rollouts.ledger import Fate
from rollouts.rollout import Group, Sampling
from rollouts.timeline import Timeline


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """One round, ready to be trained on.

    Attributes:
        drawn: What the ledger had given when the round was drawn: the state to resume from.
        timeline: Of its collection, where that ran beside the loop.
    """

    groups: list[Group]
    drawn: dict[str, int]
    timeline: Timeline = field(default_factory=Timeline)


class Rounds(Protocol):
    """A source of rounds, in order."""

    def take(self, index: int, updates: int, clock: Clock) -> Sampled:
        """Round `index`, which is trained on after so many updates; waits for it."""
        ...

    def updated(self, state: RunState, clock: Clock) -> None:
        """A round was trained on."""
        ...


@contextmanager
def rounds_of(run: Trainer, state: RunState) -> Iterator[Rounds]:
    """The rounds from a state on: sampled when they are asked for, or ahead."""
    ranks = run.policy.ranks
    if not run.config.max_staleness:
        yield Now(run)
        return
    if not ranks.is_first:
        yield Told(run)
        return
    # A thread must not speak with other processes: what it reads and writes is the first's own.
    alone = run if ranks.count == 1 else replace(run, folder=run.folder.own)
    ahead = Ahead(alone, state)
    try:
        yield ahead
    finally:
        ahead.close()


@dataclass(frozen=True)
class Now:
    """Each round is sampled when it is asked for, by the weights that it trains."""

    run: Trainer

    def take(self, index: int, updates: int, clock: Clock) -> Sampled:
        """Its file, or the engine."""
        drawn = draw_round(self.run, index, updates)
        return sampled_round(self.run, drawn, clock, lambda: synchronise(self.run, updates, clock))

    def updated(self, state: RunState, clock: Clock) -> None:
        """Publishing waits until something is to be sampled."""


class Ahead:
    """Rounds are sampled by threads, all that are admitted at once, while earlier ones are trained on.

    So the last long completions of a round leave no worker idle: the next round's are sampled beside.
    """

    def __init__(self, run: Trainer, state: RunState):
        """Begin with the round after `state`; the engine holds its weights."""
        self._run, self._state = run, state
        self._rounds: SimpleQueue[Future[Sampled]] = SimpleQueue()
        self._changed = threading.Condition()
        self._stopped = False
        self._pool = ThreadPoolExecutor(max_workers=run.config.max_staleness + 1)
        self._thread = threading.Thread(target=self._admit, args=(state.round,), daemon=True)
        self._thread.start()

    def take(self, index: int, updates: int, clock: Clock) -> Sampled:
        """The next round; raises what its sampling raised."""
        with clock("sample"):
            found = self._rounds.get().result()
        clock.timeline.take(found.timeline)
        return self._run.policy.ranks.from_first(lambda: found)

    def updated(self, state: RunState, clock: Clock) -> None:
        """Give the engine the new weights, in flight, and admit what they make young enough."""
        synchronise(self._run, state.updates, clock, drop_cache=False)
        with self._changed:
            self._state = state
            self._changed.notify_all()

    def close(self) -> None:
        """Let the rounds that are being sampled end: their files are there for a resumed run."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()
        self._pool.shutdown()

    def _admit(self, first: int) -> None:
        """Draw the rounds in their order, and have each sampled."""
        run, last = self._run, None
        try:
            for index in range(first, run.config.num_rounds):
                if (version := self._admitted(index)) is None:
                    return
                if run.config.refills and last:
                    last.exception()  # it may still draw
                drawn = draw_round(run, index, index * run.config.updates_per_round)
                last = self._pool.submit(self._sampled, drawn, version)
                self._rounds.put(last)
        except Exception as error:  # noqa: BLE001  it is raised again where the round is taken
            failed: Future[Sampled] = Future()
            failed.set_exception(error)
            self._rounds.put(failed)

    def _sampled(self, drawn: "Drawn", version: int) -> Sampled:
        clock = Clock(report=_Silent())
        run = replace(self._run, collector=self._run.collector.with_timeline(Timeline()))
        sampled = sampled_round(run, drawn, clock, version=version)
        clock.timeline.spans.pop("sample", None)  # the loop's own is how long it waits for this
        return replace(sampled, timeline=clock.timeline)

    def _admitted(self, index: int) -> int | None:
        """Wait until a round may be sampled; gives the weights' version, or None if it never will."""
        needed = index - self._run.config.max_staleness
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._state.round >= needed)
            return None if self._stopped else self._state.updates


@dataclass(frozen=True)
class Told:
    """What the first process samples ahead, as the others hear of it."""

    run: Trainer

    def take(self, index: int, updates: int, clock: Clock) -> Sampled:
        """The first process's next round."""
        with clock("sample"):
            found: Sampled = self.run.policy.ranks.from_first(lambda: None)
        self.run.ledger.note((group.problem.id for group in found.groups), Fate.SAMPLED)
        return found

    def updated(self, state: RunState, clock: Clock) -> None:
        """Give the first process its part of the new weights."""
        synchronise(self.run, state.updates, clock, drop_cache=False)


class _Silent:
    """A thread says nothing of its phases: the loop's are shown."""

    def phase(self, name: str) -> None:
        pass

    def round(self, metrics: dict[str, float]) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A round that was drawn: its problems, or its groups if it was sampled before.

    Attributes:
        updates: Before the round is trained on.
        state: What the ledger had given by then.
    """

    index: int
    updates: int
    problems: Sequence[Problem]
    groups: list[Group] | None
    state: dict[str, int]


def draw_round(run: Trainer, index: int, updates: int) -> Drawn:
    """Draw a round's problems; those of its refills too, if its file is there."""
    problems = run.ledger.draw(run.config.problems_per_round, updates=updates)
    groups = run.folder.read_round(index)
    if groups is not None:
        run.ledger.draw(len(groups) - len(problems), updates=updates)  # by refills
    state = dict(run.ledger.drawn)
    return Drawn(index=index, updates=updates, problems=problems, groups=groups, state=state)


def sampled_round(
    run: Trainer,
    drawn: Drawn,
    clock: Clock,
    prepare: Callable[[], None] = lambda: None,
    *,
    version: int | None = None,
) -> Sampled:
    """A round's groups, read or sampled.

    Args:
        prepare: Called before anything is sampled.
        version: Of the weights that the engine must have at least; the round's own if left out.
    """
    groups = drawn.groups
    if groups is None:
        prepare()
        with clock("sample"):
            newest = drawn.updates if version is None else version
            groups = sample_round(run, drawn.problems, drawn.index, drawn.updates, newest)
        clock.timeline.take(run.collector.timeline)
        run.folder.write_round(drawn.index, groups)
    run.ledger.note((group.problem.id for group in groups), Fate.SAMPLED)
    state = dict(run.ledger.drawn) if run.config.refills else drawn.state
    return Sampled(groups=groups, drawn=state)


def synchronise(run: Trainer, version: int, clock: Clock, *, drop_cache: bool = True) -> None:
    """Give the engine the policy's weights if it holds others, and an empty prefix cache."""
    with clock("publish"):
        run.engine.wake("weights")
        if run.engine.version != version:
            run.engine.publish(run.policy.published(), version)
        run.engine.wake("kv_cache")
        if drop_cache:
            run.engine.reset_prefix_cache()


def sample_round(
    run: Trainer, problems: Sequence[Problem], index: int, updates: int, version: int
) -> list[Group]:
    """A round's groups in draw order; with refills, further ones until enough have signal.

    A refill draws as many problems as would fill the round at the share with signal so far, at
    most one round's worth at a time. `version` is the least that the engine must have.
    """
    sampling, size = sampling_at(run.config, updates), run.config.problems_per_round
    groups = run.collector.collect(problems, sampling, round_index=index, version=version)
    for _ in range(run.config.refills):
        found = sum(group.has_signal for group in graded(groups))
        if found >= size:
            break
        asked = min(size, ceil((size - found) * len(groups) / max(found, 1)))
        groups += run.collector.collect(
            run.ledger.draw(asked, updates=updates),
            sampling,
            round_index=index,
            version=version,
            first_row=len(groups),
        )
    graded(groups)  # Raises here, so that a round that cannot be trained on is never kept.
    return groups


def sampling_at(config: TrainConfig, updates: int) -> Sampling:
    """The sampling parameters in force after so many updates."""
    limit = [tokens for start, tokens in config.max_tokens if start <= updates][-1]
    return Sampling(temperature=config.temperature, max_tokens=limit)
