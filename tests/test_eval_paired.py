"""The sign-flip test against counting every assignment of signs, and what changed."""

from itertools import product

import numpy as np
import pytest

from eval.paired import changed, paired_p_value


def counted(a, b):
    """p by its definition, over all 2^P assignments of signs."""
    d = np.subtract(b, a)
    sums = [abs(np.dot(signs, d)) for signs in product((1, -1), repeat=len(d))]
    return sum(s >= abs(d.sum()) - 1e-9 for s in sums) / len(sums)


def test_by_hand():
    # Five gained: of 32 assignments two are as far from 0. Six: 2 of 64. One: both of 2.
    assert paired_p_value([0] * 5, [1] * 5) == 2 / 32
    assert paired_p_value([0] * 6, [1] * 6) == 2 / 64
    assert paired_p_value([0], [1]) == 1.0
    # Steps 2 and 1 give sums 3, 1, -1, -3: two of four are as far as 3.
    assert paired_p_value([0, 0], [1, 0.5]) == 0.5
    # Gained 2, lost 1: sums of three signs are 1 or 3 away, all of them at least 1.
    assert paired_p_value([0, 0, 1], [1, 1, 0]) == 1.0
    # McNemar's exact test of 9 gained and 1 lost: 2 (C(10, 0) + C(10, 1)) / 1024 = 22 / 1024.
    assert paired_p_value([0] * 9 + [1], [1] * 9 + [0]) == pytest.approx(22 / 1024, abs=1e-15)


def test_nothing_changed_is_no_evidence():
    assert paired_p_value([0.5, 0.25], [0.5, 0.25]) == 1.0
    # Problems that did not change do not count.
    assert paired_p_value([0] * 6 + [1] * 90, [1] * 6 + [1] * 90) == 2 / 64


@pytest.mark.parametrize("seed", range(6))
def test_every_assignment_is_counted(seed):
    rng = np.random.default_rng(seed)
    graded_a, graded_b = rng.choice([8, 7], size=(2, 10))  # a grader failed here and there
    a, b = rng.integers(0, graded_a + 1) / graded_a, rng.integers(0, graded_b + 1) / graded_b
    assert paired_p_value(a.tolist(), b.tolist()) == pytest.approx(counted(a, b), abs=1e-12)
    assert paired_p_value(b.tolist(), a.tolist()) == paired_p_value(a.tolist(), b.tolist())


def test_flipping_at_random_agrees(monkeypatch):
    rng = np.random.default_rng(3)
    a = (rng.integers(0, 9, size=40) / 8).tolist()
    b = [min(1.0, x + 0.125 * (i % 3)) for i, x in enumerate(a)]
    c = [max(0.0, x - 0.125 * (i % 2) + 0.25 * (i % 11 == 0)) for i, x in enumerate(a)]
    exact = paired_p_value(a, b), paired_p_value(a, c)
    monkeypatch.setattr("eval.paired.MAX_EXACT_ELEMENTS", 0)
    assert paired_p_value(a, b) == pytest.approx(exact[0], abs=0.01)
    assert paired_p_value(a, c) == pytest.approx(exact[1], abs=0.01)
    assert 0.01 < exact[1] < 1.0


def test_shares_without_a_small_denominator_are_flipped_at_random():
    a = np.linspace(0.1, 0.2, 12) * np.pi / 3
    b = np.linspace(0.2, 0.9, 12) * np.pi / 3.5
    assert paired_p_value(a.tolist(), b.tolist()) == pytest.approx(counted(a, b), abs=0.002)
    assert paired_p_value(a.tolist(), b.tolist()) > 0


def test_the_level_holds_where_nothing_differs():
    rng = np.random.default_rng(0)
    found = [paired_p_value(*(rng.binomial(4, 0.3, size=(2, 30)) / 4).tolist()) for _ in range(400)]
    assert np.mean(np.array(found) <= 0.05) <= 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5


def test_a_large_benchmark_is_exact_and_quick():
    rng = np.random.default_rng(1)
    a, b = (rng.binomial(64, p, size=5000) / 64 for p in (0.5, 0.5))
    assert 0.0 < paired_p_value(a.tolist(), b.tolist()) <= 1.0


def test_what_changed():
    found = changed(["a", "b", "c", "d"], [0, 1, 0.5, 0.25], [1, 0.5, 0.5, 0.5])
    assert (found.gained, found.lost) == (("a", "d"), ("b",))
    with pytest.raises(ValueError, match="longer"):
        changed(["a"], [0, 1], [1, 0])


def test_other_problems_are_refused():
    with pytest.raises(ValueError, match="got 2 and 1 problems"):
        paired_p_value([0, 1], [1])
    with pytest.raises(ValueError, match="got 0 and 0 problems"):
        paired_p_value([], [])
