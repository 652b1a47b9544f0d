"""Rounds sampled now or ahead: order, admission, what a checkpoint would hold, and how it ends."""

import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from rewards.problem import Problem
from rl.checkpoint import RunState
from rl.clock import Clock
from rl.ranks import ALONE
from rl.rounds import rounds_of
from rl.trainer import TrainConfig
from rollouts.ledger import Ledger
from rollouts.timeline import Timeline
from tests.test_rl_train import Silent, one

PROBLEMS = {"t": [Problem(id=str(i), prompt="", answer="", source="t") for i in range(40)]}


@dataclass(kw_only=True)
class Collecting:
    """Gives groups of its problems at once; remembers what it was asked, and may fail or wait."""

    asked: list = field(default_factory=list)
    timeline: Timeline = field(default_factory=Timeline)
    fails_at: int = -1
    gate: threading.Event = field(default_factory=threading.Event)

    def with_timeline(self, timeline):
        return self

    def collect(self, problems, sampling, *, round_index, version, first_row=0):
        self.asked.append((round_index, version, sampling.max_tokens))
        if round_index == self.fails_at:
            raise RuntimeError("the engine died")
        self.gate.wait(5)
        return [one(int(problem.id)) for problem in problems]


@dataclass(kw_only=True)
class Engine:
    version: int = 0
    published: list = field(default_factory=list)

    def publish(self, weights, version):
        self.version = version
        self.published.append(version)

    def wake(self, *parts): ...

    def reset_prefix_cache(self): ...


@dataclass(kw_only=True)
class Run:
    """Of a trainer what rounds are made by."""

    config: TrainConfig
    ledger: Ledger
    engine: Engine
    policy: SimpleNamespace
    collector: Collecting
    folder: SimpleNamespace
    written: dict


def make_run(staleness, refills=0, **collecting):
    written = {}
    collector = Collecting(**collecting)
    collector.gate.set()
    return Run(
        config=TrainConfig(
            num_rounds=5,
            problems_per_round=4,
            max_staleness=staleness,
            updates_per_round=2,
            max_tokens=((0, 8), (4, 16)),
            refills=refills,
        ),
        ledger=Ledger(problems=PROBLEMS),
        engine=Engine(),
        policy=SimpleNamespace(published=lambda: {}, ranks=ALONE),
        collector=collector,
        folder=SimpleNamespace(read_round=written.get, write_round=written.__setitem__),
        written=written,
    )


def clock():
    return Clock(report=Silent())


def settled(run):
    """The rounds that were asked for once nothing new comes."""
    seen = -1
    while seen != len(run.collector.asked):
        seen = len(run.collector.asked)
        time.sleep(0.1)
    return sorted(index for index, _, _ in run.collector.asked)


def test_a_round_is_admitted_when_it_is_young_enough():
    run = make_run(1)
    with rounds_of(run, RunState()) as rounds:
        assert settled(run) == [0, 1]
        rounds.take(0, 0, clock())
        assert settled(run) == [0, 1]
        rounds.updated(RunState(round=1, updates=2), clock())
        assert settled(run) == [0, 1, 2]
        assert run.engine.published == [2]
    assert sorted(version for _, version, _ in run.collector.asked) == [0, 0, 2]


def test_a_round_is_sampled_as_it_will_be_trained():
    """Round 2 is trained after 4 updates, whose limit it has, though only 2 are done."""
    run = make_run(1)
    with rounds_of(run, RunState()) as rounds:
        rounds.updated(RunState(round=1, updates=2), clock())
        settled(run)
    assert sorted(limit for _, _, limit in run.collector.asked) == [8, 8, 16]


def test_fewer_updates_than_asked_hold_nothing_up():
    run = make_run(1)
    with rounds_of(run, RunState()) as rounds:
        rounds.updated(RunState(round=1, updates=1), clock())
        assert settled(run) == [0, 1, 2]


def test_what_was_drawn_is_told_of_each_round_not_of_the_thread():
    run = make_run(2)
    with rounds_of(run, RunState()) as rounds:
        settled(run)
        taken = [rounds.take(index, 0, clock()) for index in range(3)]
    assert [each.drawn for each in taken] == [{"t": 4}, {"t": 8}, {"t": 12}]


def test_ahead_draws_what_now_draws():
    found = []
    for staleness in (0, 2):
        run, state = make_run(staleness), RunState()
        with rounds_of(run, state) as rounds:
            for index in range(5):
                taken = rounds.take(index, state.updates, clock())
                found.append([group.problem.id for group in taken.groups])
                state = RunState(round=index + 1, updates=state.updates + 2, drawn=taken.drawn)
                rounds.updated(state, clock())
    assert found[:5] == found[5:]
    assert len({name for names in found for name in names}) == 20


def test_a_round_that_is_there_is_not_sampled_again():
    run = make_run(1)
    run.written[0] = [one(number) for number in range(4)]
    with rounds_of(run, RunState()):
        assert settled(run) == [1]


def test_what_fails_in_the_thread_fails_where_it_is_taken():
    run = make_run(1, fails_at=1)
    with rounds_of(run, RunState()) as rounds:
        rounds.take(0, 0, clock())
        with pytest.raises(RuntimeError, match="the engine died"):
            rounds.take(1, 2, clock())


def test_all_admitted_rounds_are_sampled_at_once():
    run = make_run(2)
    run.collector.gate.clear()
    with rounds_of(run, RunState()):
        assert settled(run) == [0, 1, 2]
        run.collector.gate.set()


def test_with_refills_a_round_is_drawn_when_the_one_before_is_whole():
    """0 and 3 of a round's four have signal, so it draws more; the next one must not come between."""
    run = make_run(2, refills=1)
    run.collector.gate.clear()
    with rounds_of(run, RunState()):
        assert settled(run) == [0]
        run.collector.gate.set()
        settled(run)
    order = Ledger(problems=PROBLEMS).draw(40)
    told = [group.problem.id for index in sorted(run.written) for group in run.written[index]]
    assert told == [problem.id for problem in order[: len(told)]]


def test_the_rounds_that_are_being_sampled_are_kept_at_the_end():
    run = make_run(1)
    run.collector.gate.clear()
    with rounds_of(run, RunState()):
        settled(run)
        threading.Timer(0.3, run.collector.gate.set).start()
    assert sorted(run.written) == [0, 1]
