"""Intervals against published numbers, exact enumeration, and simulated coverage."""

from itertools import product

import numpy as np
import pytest

from eval import intervals
from eval.intervals import (
    agree,
    bootstrap_interval,
    mean_interval,
    over_seeds,
    paired_interval,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("correct", "problems", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_numbers(correct, problems, low, high):
    interval = wilson_interval(correct / problems, problems)
    assert interval == pytest.approx((low, high), abs=5e-5)


def test_wilson_at_the_ends_by_hand():
    # p = 0: the upper bound is z^2 / (n + z^2) = 3.8415 / 13.8415 for n = 10; p = 1 mirrors it.
    assert wilson_interval(0.0, 10) == pytest.approx((0.0, 0.27753), abs=1e-5)
    assert wilson_interval(1.0, 10) == pytest.approx((1 - 0.27753, 1.0), abs=1e-5)


def test_bootstrap_equals_enumerating_every_resample():
    values = (0.0, 0.25, 0.5, 1.0)
    means = sorted(sum(drawn) / 4 for drawn in product(values, repeat=4))
    # 256 equally likely resamples; the 10% and 90% points lie in long runs of equal means.
    low, high = np.quantile(means, [0.1, 0.9], method="inverted_cdf")
    assert bootstrap_interval(values, confidence=0.8) == pytest.approx((low, high), abs=1e-12)
    assert (low, high) == (0.1875, 0.6875)


def test_bootstrap_is_close_to_the_normal_interval_for_many_problems():
    # 400 problems, half at 0.25 and half at 0.75: sd 0.25, standard error 0.0125, 1.96 of it 0.0245.
    low, high = bootstrap_interval([0.25, 0.75] * 200)
    assert (low, high) == pytest.approx((0.5 - 0.0245, 0.5 + 0.0245), abs=1e-3)


def test_bootstrap_is_the_same_for_the_same_seed_and_in_small_chunks(monkeypatch):
    values = [0.0, 0.125, 0.5, 1.0, 0.875] * 20
    whole = bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) == whole
    monkeypatch.setattr(intervals, "CHUNK_ELEMENTS", 7 * len(values))
    assert bootstrap_interval(values, seed=3) == pytest.approx(whole, abs=0.01)


def test_mean_interval_is_wilson_for_a_proportion():
    values = [1.0] * 81 + [0.0] * 182
    assert mean_interval(values) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize("values", [[0.0] * 50, [1.0] * 50, [0.5] * 50, [0.5], [0.25, 0.375]])
def test_mean_interval_never_has_width_zero(values):
    low, high = mean_interval(values)
    mean = sum(values) / len(values)
    assert 0.0 <= low <= mean <= high <= 1.0
    assert high - low > 0.05


def test_a_first_success_does_not_narrow_the_interval():
    nothing = mean_interval([0.0] * 256)
    one_sample = mean_interval([0.125] + [0.0] * 255)
    assert one_sample[1] > nothing[1] > 0.014  # z^2 / (256 + z^2) = 0.01478
    assert bootstrap_interval([0.125] + [0.0] * 255)[1] < 0.002


def test_mean_interval_is_the_bootstrap_once_ten_problems_differ():
    values = [0.0] * 30 + [0.125, 0.25, 0.375, 0.5, 0.625] * 2
    assert mean_interval(values) == bootstrap_interval(values)
    assert mean_interval(values[:-1]) == wilson_interval(float(np.mean(values[:-1])), 39)


def test_mean_interval_holds_the_truth_about_as_often_as_it_says():
    # Problems' success rates are Beta(0.3, 1), mean 0.3 / 1.3; 8 samples of each of 40.
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        values = rng.binomial(8, rng.beta(0.3, 1.0, 40)) / 8
        low, high = mean_interval(values, resamples=500)
        held += low <= 0.3 / 1.3 <= high
    assert 0.91 <= held / 400 <= 0.98  # 0.95 expected, less 0.01 or 0.02 for 40 problems


def test_paired_interval_sees_what_unpaired_ones_miss():
    a = [0.0, 0.25, 0.5, 0.75] * 10
    b = [value + gain for value, gain in zip(a, [0.0, 0.125] * 20, strict=True)]
    # Half the problems gain 0 and half 1/8: mean 0.0625, sd 0.0625, error 0.0625 / sqrt(40)
    # = 0.0099, 1.96 of it 0.0194. Each mean alone is uncertain by 0.09.
    assert paired_interval(a, b) == pytest.approx((0.0431, 0.0819), abs=2e-3)
    assert mean_interval(a)[1] > mean_interval(b)[0]


def test_paired_interval_turns_its_sign_with_its_arguments():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 9, (2, 60)) / 8
    low, high = paired_interval(a, b)
    assert paired_interval(b, a) == pytest.approx((-high, -low), abs=0.005)


def test_paired_interval_claims_nothing_from_a_handful():
    # Bonferroni z^2 = 2.2414^2 = 5.024 at 97.5%: gain is at least n / (n + z^2), loss at most
    # z^2 / (n + z^2), so the low end is (n - z^2) / (n + z^2): -0.0024 for 5, +0.0885 for 6.
    assert paired_interval([0.0] * 5, [1.0] * 5) == pytest.approx((-0.0024, 1.0), abs=1e-4)
    assert paired_interval([0.0] * 6, [1.0] * 6) == pytest.approx((0.0885, 1.0), abs=1e-4)
    assert paired_interval([0.0], [1.0])[0] < -0.5


def test_paired_interval_of_equal_results_keeps_a_width():
    # No gain and no loss in 256: at most 5.024 / 261.024 = 0.01925 either way.
    same = [0.0, 0.5, 1.0, 0.25] * 64
    assert paired_interval(same, same) == pytest.approx((-0.01925, 0.01925), abs=1e-5)


def test_paired_interval_seldom_claims_a_difference_that_is_not_there():
    rng = np.random.default_rng(0)
    claims = 0
    for _ in range(400):
        rates = rng.beta(0.3, 1.0, 60)
        a, b = rng.binomial(8, rates) / 8, rng.binomial(8, rates) / 8
        low, high = paired_interval(a, b, resamples=500)
        claims += not low <= 0.0 <= high
    assert claims / 400 <= 0.09  # 0.05 expected, a little more for 60 problems


def test_confidence_widens_every_interval():
    values = [0.0, 0.125, 0.5, 1.0] * 10
    for interval in (bootstrap_interval, mean_interval):
        narrow, wide = interval(values, confidence=0.5), interval(values, confidence=0.99)
        assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([]), "at least one finite number"),
        (lambda: mean_interval([float("nan")]), "at least one finite number"),
        (lambda: mean_interval([0.5, 1.5]), r"fractions in \[0, 1\]"),
        (lambda: wilson_interval(0.5, 0), "at least one problem"),
        (lambda: bootstrap_interval([0.5], confidence=95), "confidence=95"),
        (lambda: paired_interval([0.5], [0.5, 0.5]), "got 1 and 2 problems"),
        (lambda: paired_interval([2.0], [0.5]), r"outside \[0, 1\]"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_seeds_side_by_side():
    # Deviations from 0.3 are -0.1, 0 and 0.1: variance 0.02 / 2, standard deviation 0.1.
    spread = over_seeds([0.2, 0.3, 0.4])
    assert (spread.mean, spread.std) == (pytest.approx(0.3), pytest.approx(0.1))
    assert (spread.lowest, spread.highest, spread.num_seeds) == (0.2, 0.4, 3)
    one = over_seeds([0.2])
    assert (one.mean, one.std, one.num_seeds) == (0.2, None, 1)
    with pytest.raises(ValueError, match="at least one"):
        over_seeds([])


def test_one_recipe_is_better_only_where_three_seeds_agree():
    up, down, unclear = (0.01, 0.2), (-0.2, -0.01), (-0.01, 0.2)
    assert agree([up, up, up])
    assert agree([down, down, down, down])
    assert not agree([up, up])
    assert not agree([up, up, down])
    assert not agree([up, up, unclear])
    assert not agree([unclear, unclear, unclear])
    assert not agree([(0.0, 0.1), up, up])
