"""Spans by name, and how much of one lies beside another."""

import time

import pytest

from rollouts.timeline import Timeline


def line(**spans):
    return Timeline(spans=spans)


def test_the_example_of_the_docstring():
    found = line(engine=[(0.0, 2.0), (3.0, 5.0)], score=[(1.0, 4.0)])
    assert found.seconds("score") == 3.0
    assert found.beside("score", "engine") == 2.0


def test_spans_of_several_workers_each_count():
    # Two workers beside the first engine span, one of them half out of it; and one wholly after.
    found = line(engine=[(10.0, 12.0)], score=[(11.5, 12.5), (10.0, 12.0), (12.0, 13.0)])
    assert found.seconds("score") == 4.0
    assert found.beside("score", "engine") == 2.5


def test_the_order_of_spans_does_not_matter():
    found = line(engine=[(3.0, 5.0), (0.0, 2.0)], score=[(4.0, 9.0), (-1.0, 1.0)])
    assert found.beside("score", "engine") == 2.0


def test_touching_spans_are_as_one():
    found = line(engine=[(0.0, 1.0), (1.0, 2.0)], score=[(0.5, 1.5)])
    assert found.beside("score", "engine") == 1.0


def test_nothing_runs_beside_nothing():
    assert line(score=[(0.0, 1.0)]).beside("score", "engine") == 0.0
    assert line(engine=[(0.0, 1.0)]).beside("score", "engine") == 0.0
    assert Timeline().seconds("score") == 0.0


def test_what_happens_inside_is_recorded_even_if_it_fails():
    found = Timeline()
    before = time.perf_counter()
    with pytest.raises(ValueError, match="no"), found("work"):
        raise ValueError("no")
    ((began, ended),) = found.spans["work"]
    assert before <= began <= ended <= time.perf_counter()


def test_taking_moves_everything():
    first, second = line(a=[(0.0, 1.0)]), line(a=[(1.0, 2.0)], b=[(5.0, 6.0)])
    first.take(second)
    assert first.spans == {"a": [(0.0, 1.0), (1.0, 2.0)], "b": [(5.0, 6.0)]}
    assert second.spans == {}
    second.record("a", 7.0, 8.0)
    assert first.spans["a"] == [(0.0, 1.0), (1.0, 2.0)]
