"""Phases, what is inside another, and what ran beside the engine."""

import pytest

import rl.clock
from rl.clock import Clock
from rollouts.timeline import Timeline


class Told:
    def __init__(self):
        self.phases = []

    def phase(self, name):
        self.phases.append(name)


@pytest.fixture
def at(monkeypatch):
    """Sets the time."""
    now = [100.0]
    monkeypatch.setattr(rl.clock.time, "perf_counter", lambda: now[0])

    def set_time(value):
        now[0] = value

    return set_time


def test_seconds_by_phase_without_those_of_a_phase_inside(at):
    told = Told()
    clock = Clock(report=told, started=100.0)
    at(101.0)
    with clock("sample"):
        at(104.0)
    at(104.5)
    with clock("update"):
        at(105.0)
        with clock("pack"):
            at(105.25)
        at(107.0)
    at(108.0)
    metrics = clock.metrics()
    assert metrics == {
        "time/sample_s": 3.0,
        "time/update_s": 2.25,
        "time/pack_s": 0.25,
        "time/other_s": 2.5,
        "time/round_s": 8.0,
        "time/sample_from_s": 1.0,
        "time/sample_to_s": 4.0,
        "time/update_from_s": 4.5,
        "time/update_to_s": 7.0,
        "time/pack_from_s": 5.0,
        "time/pack_to_s": 5.25,
    }
    assert told.phases == ["sample", "update", "pack", "update"]


def test_a_phase_that_comes_twice_is_one_sum_and_one_stretch(at):
    clock = Clock(report=Told(), started=100.0)
    for began in (100.0, 110.0):
        at(began)
        with clock("publish"):
            at(began + 0.5)
    metrics = clock.metrics()
    assert metrics["time/publish_s"] == 1.0
    assert (metrics["time/publish_from_s"], metrics["time/publish_to_s"]) == (0.0, 10.5)


def test_hidden_is_what_ran_beside_the_engine(at):
    clock = Clock(report=Told(), started=100.0)
    clock.timeline.take(
        Timeline(
            spans={
                "engine": [(101.0, 103.0), (103.5, 106.0)],
                # 3 of 4 seconds beside the engine, two workers.
                "score": [(102.0, 103.5), (104.0, 105.0), (105.0, 106.5)],
                "score_wait": [(103.0, 103.25), (106.0, 106.5)],
                # Half a second beside the engine, half after it.
                "flatten": [(105.5, 106.5)],
                "flatten_wait": [(106.5, 106.75)],
            }
        )
    )
    at(107.0)
    with clock("pack"):
        at(108.0)
    metrics = clock.metrics()
    names = ("engine_s", "score_work_s", "score_wait_s", "flatten_work_s", "flatten_wait_s")
    assert [metrics[f"time/{name}"] for name in names] == [4.5, 4.0, 0.75, 1.0, 0.25]
    assert metrics["time/score_hidden_frac"] == 0.75
    # Flattening and the phase pack together: 0.5 of 1 + 1 seconds.
    assert metrics["time/pack_hidden_frac"] == 0.25
    assert (metrics["time/score_from_s"], metrics["time/score_to_s"]) == (2.0, 6.5)


def test_what_ran_ahead_of_a_round_has_no_place_in_it(at):
    clock = Clock(report=Told(), started=100.0)
    spans = {"engine": [(95.0, 99.0)], "score": [(96.0, 98.0)], "flatten": [(99.0, 101.0)]}
    clock.timeline.take(Timeline(spans=spans))
    metrics = clock.metrics()
    assert (metrics["time/engine_s"], metrics["time/score_hidden_frac"]) == (4.0, 1.0)
    assert not [name for name in metrics if name.endswith(("from_s", "to_s"))]


def test_a_round_from_its_file_says_nothing_of_the_background(at):
    clock = Clock(report=Told(), started=100.0)
    with clock("update"), clock("pack"):
        at(101.0)
    found = [name for name in clock.metrics() if "hidden" in name or "wait" in name]
    assert found == []
