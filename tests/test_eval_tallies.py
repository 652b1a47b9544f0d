"""Counts, quantiles, examples and gaps of a stream."""

import math
import random

import pytest

from eval.tallies import Examples, Gaps, Rate, Spread


def test_a_rate_leaves_out_what_is_unknown():
    rate = Rate()
    assert rate.to_json() is None
    for is_so in (True, False, None, True):
        rate.add(is_so)
    assert rate.to_json() == {"count": 2, "of": 3, "frac": pytest.approx(2 / 3)}


def test_a_spread():
    spread = Spread()
    assert spread.to_json() is None
    for value in (9, 1, 2):
        spread.add(value)
    assert spread.to_json() == {"count": 3, "mean": 4.0, "min": 1, "p50": 2, "p95": 9, "max": 9}


def test_quantiles_are_right_to_three_digits_in_bounded_memory():
    generator = random.Random(0)
    values = [generator.randrange(1, 100_000) for _ in range(20_000)]
    spread = Spread()
    for value in values:
        spread.add(value)
    found = spread.to_json()
    values.sort()
    assert found["p50"] == pytest.approx(values[9_999], rel=0.01)
    assert found["p95"] == pytest.approx(values[18_999], rel=0.01)
    assert len(spread.counts) <= 5 * 900  # 900 numbers of three digits a power of ten


def test_examples_do_not_depend_on_the_order():
    names = [f"row {i}" for i in range(100)]
    first, second = Examples(limit=3), Examples(limit=3)
    for name in names:
        first.add(name, {"name": name})
    for name in reversed(names):
        second.add(name, {"name": name})
    assert first.to_json() == second.to_json()
    assert len(first.to_json()) == 3


def test_gaps_by_hand():
    gaps = Gaps()
    assert gaps.to_json() is None
    gaps.add((-1.0, -2.0, math.nan), (-0.5, -2.0, -1.0))
    found = gaps.to_json()
    assert found["num_tokens"] == 2
    assert found["num_unknown"] == 1
    assert found["abs"] == pytest.approx(0.25)  # (0.5 + 0) / 2
    assert found["k3"] == pytest.approx((math.exp(0.5) - 0.5 - 1) / 2)
    assert found["max"] == 0.5
    gaps.add((-1e6,), (0.0,))
    assert math.isfinite(gaps.to_json()["k3"])
