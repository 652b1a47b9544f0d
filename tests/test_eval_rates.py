"""Verdicts, answers, truncation and length over all samples, counted by hand."""

import pytest

from eval.rates import sample_rates
from rewards.problem import Verdict


def test_by_hand():
    rates = sample_rates(
        [
            Verdict.CORRECT,
            Verdict.WRONG,
            Verdict.NO_ANSWER,
            Verdict.MALFORMED,
            Verdict.GRADER_ERROR,
        ],
        num_tokens=[10, 20, 64, 30, 6],
        truncated=[False, False, True, False, False],
        formatted=[True, True, False, False, False],
    )
    assert rates.verdict_fracs["correct"] == rates.verdict_fracs["grader_error"] == 0.2
    assert sum(rates.verdict_fracs.values()) == pytest.approx(1.0)
    assert rates.verdict_fracs["timeout"] == 0.0
    assert rates.num_ungraded == 1
    assert rates.answered_frac == 0.4  # correct and wrong; a failure of ours is no answer
    assert rates.formatted_frac == 0.4
    assert rates.truncated_frac == 0.2
    assert (rates.mean_tokens, rates.median_tokens, rates.max_tokens) == (26.0, 20.0, 64)
    assert (rates.mean_tokens_correct, rates.mean_tokens_other) == (10.0, 30.0)


def test_95_of_100_samples_are_at_most_so_long():
    rates = sample_rates(
        [Verdict.CORRECT] * 101, num_tokens=list(range(101)), truncated=[False] * 101
    )
    assert rates.p95_tokens == 95.0
    assert rates.formatted_frac is None
    assert rates.mean_tokens_other is None


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"columns of \[1, 2, 1\] samples"):
        sample_rates([Verdict.CORRECT], num_tokens=[1, 2], truncated=[False])
    with pytest.raises(ValueError, match=r"\[0, 0, 0\]"):
        sample_rates([], num_tokens=[], truncated=[])
