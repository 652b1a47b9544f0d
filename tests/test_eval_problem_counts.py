"""Estimates over problems that differ in how many of their samples were graded."""

from types import SimpleNamespace

import pytest

from eval.problem_counts import ProblemCount, maj_at, pass_at, pass_at_1, problem_counts
from rewards.problem import Verdict

RIGHT = SimpleNamespace(verdict=Verdict.CORRECT, answer="8")
WRONG = SimpleNamespace(verdict=Verdict.WRONG, answer="9")
NONE = SimpleNamespace(verdict=Verdict.NO_ANSWER, answer=None)
OURS = SimpleNamespace(verdict=Verdict.GRADER_ERROR, answer=None)

SAMPLES = [[RIGHT, WRONG, NONE, RIGHT], [WRONG, OURS, OURS, RIGHT], [OURS] * 4]


def test_failures_of_ours_are_in_no_count():
    counts = problem_counts(["a", "b", "c"], SAMPLES)
    assert counts == (
        ProblemCount(id="a", num_graded=4, num_correct=2),
        ProblemCount(id="b", num_graded=2, num_correct=1),
        ProblemCount(id="c", num_graded=0, num_correct=0),
    )
    mean, (low, high) = pass_at_1(counts)
    assert mean == 0.5  # (2/4 + 1/2) / 2
    assert 0 <= low < 0.5 < high <= 1
    with pytest.raises(RuntimeError, match="no sample could be graded"):
        pass_at_1(counts[2:])


def test_each_k_is_over_the_problems_with_k_graded_samples():
    found = pass_at(problem_counts(["a", "b", "c"], SAMPLES))
    # a: 1/2, 1 - C(2,2)/C(4,2) = 5/6, 1, 1; b: 1/2, 1
    assert found == {1: 0.5, 2: pytest.approx((5 / 6 + 1) / 2), 3: 1.0, 4: 1.0}


def test_majorities_are_over_the_same_problems():
    majorities = maj_at(SAMPLES, (1, 2, 4, 5))
    found = majorities.at
    # k = 2: of a's six pairs 8 wins in {8,8}, twice {8,none} and ties in twice {8,9}: (1+2+1)/6;
    # b's only pair is a tie.
    assert found[2] == pytest.approx((4 / 6 + 1 / 2) / 2)
    assert found[1] == pytest.approx((2 / 4 + 1 / 2) / 2)
    assert found[4] == 1.0
    assert 5 not in found
    assert majorities.method == {1: "exact", 2: "exact", 4: "exact"}
    assert majorities.num_uncompared == 0


def test_answers_that_cannot_be_compared_vote_alone_and_are_counted():
    samples = [[SimpleNamespace(verdict=Verdict.CORRECT, answer=text) for text in ("x", "y", "z")]]
    found = maj_at(samples, (3,), lambda a, b: None)
    assert (found.at, found.num_uncompared) == ({3: 1.0}, 1)
