"""Which answers vote together: symbolic equality, compared between different keys only."""

import os
import signal
import time
from functools import partial

import psutil
import pytest

from eval.estimators import answer_key
from eval.voting import (
    MAX_COMPARISONS,
    MAX_LOST,
    Equality,
    answer_classes,
    pooled_same,
    same_answer,
)
from rewards.pool import RewardPool, ScoringConfig
from rewards.problem import Score, Verdict
from rewards.purity import pure


def classes(*keys, **options):
    return answer_classes(keys, **options).of_sample


def test_equal_formulas_vote_together():
    assert classes("1/2", None, r"\frac12", "3", r"\sqrt{9}") == (0, None, 0, 1, 1)
    assert classes("(x-1)(x+1)", "x^2-1", "x^2+1") == (0, 0, 1)
    assert classes("(1,2)", "(2,1)", r"\{1,2\}", r"\{2,1\}") == (0, 1, 2, 2)
    assert classes("C", r"\text{(C)}", "B") == (0, 0, 1)
    texts = (r"\boxed{A. Paris}", r"\boxed{A}", "The answer is B.", r"\boxed{(B) Rome}")
    assert classes(*map(answer_key, texts)) == (0, 0, 1, 1)
    assert classes(*map(answer_key, reversed(texts))) == (0, 0, 1, 1)
    assert classes(None, None) == (None, None)
    assert classes() == ()


def test_the_order_of_the_two_does_not_matter():
    for a, b in ((r"\frac{1}{2}", "0.5"), ("C", "(C)"), (r"2\pi", r"6.28"), ("x=3", "3")):
        assert same_answer(a, b) == same_answer(b, a)


def test_only_different_keys_are_compared_and_never_two_numbers():
    asked = []

    def same(a, b):
        asked.append((a, b))
        return False

    keys = ["1", "2", "1", "x", "x", "3", None, "y"]
    assert classes(*keys, same=same) == (0, 1, 0, 2, 2, 3, None, 4)
    assert asked == [
        ("1", "x"),
        ("2", "x"),
        ("x", "3"),
        ("1", "y"),
        ("2", "y"),
        ("x", "y"),
        ("3", "y"),
    ]


def test_comparisons_are_bounded_and_the_rest_is_counted():
    asked = []
    keys = [f"{chr(97 + i % 26)}{i}" for i in range(100)]  # 4,950 pairs
    found = answer_classes([*keys, keys[99]], same=lambda a, b: bool(asked.append(a)))
    assert len(asked) <= MAX_COMPARISONS
    assert found.num_uncompared > 0
    assert found.of_sample == (*range(100), 99)


def test_comparisons_that_are_lost_are_few_and_the_rest_is_counted():
    asked = []

    def same(a, b):
        asked.append(a + b)
        return None if "!" in a + b else a == b.lower()

    # a! and b! are lost to x, and X and Y are compared all the same; after c! nothing is.
    keys = ["x", "y", "a!", "X", "b!", "Y", "c!", "z", "d!", None, "Z"]
    found = answer_classes(keys, same)
    assert found.of_sample == (0, 1, 2, 0, 3, 1, 4, 5, 6, None, 7)
    assert len([pair for pair in asked if "!" in pair]) == MAX_LOST
    assert found.num_uncompared == MAX_LOST + 3
    # A hostile first key takes the one after it along, and no other.
    found = answer_classes(["a!", "x", "y", "X", "Y"], same)
    assert (found.of_sample, found.num_uncompared) == ((0, 1, 2, 3, 2), 1)


def test_a_comparison_that_hangs_or_crashes_costs_its_deadline_and_no_more():
    rewards = ScoringConfig(workers=1, deadline_s=0.5)
    with RewardPool(hostile_to_one_key, rewards) as pool:
        same = partial(pooled_same, pool)
        start = time.perf_counter()
        found = answer_classes(["x", "y", "hang", "crash", "x "], same)
        assert time.perf_counter() - start < 60
        assert found.of_sample == (0, 1, 2, 3, 0)
        assert found.num_uncompared == 2
        assert same("x", "x ") is True and same("x", "y") is False


@pure(version="1", reads=("answer", "text"))
def hostile_to_one_key(problem, response):
    if "hang" in (problem.answer, response.text):
        time.sleep(60)
    if "crash" in (problem.answer, response.text):
        os.kill(os.getpid(), signal.SIGKILL)
    value = float(problem.answer.strip() == response.text.strip())
    return Score(value=value, verdict=Verdict.CORRECT if value else Verdict.WRONG)


def test_what_is_too_large_to_be_graded_is_not_compared():
    asked = []
    keys = ["x+1", "y" * 1001, "z" * 1_000_000, "1+x"]
    found = answer_classes(keys, lambda a, b: bool(asked.append(a + b)) or same_answer(a, b))
    assert (found.of_sample, asked) == ((0, 1, 2, 0), ["x+11+x"])


def test_hostile_keys_cost_little():
    keys = [
        "9" * 5000, "(" * 900, "9^{9^{9^{9}}}", r"\frac{1}{" * 60, "x" * 900, "10^{99999999}",
        "((((x+y)^{99})^{99})^{99})", "a" * 40 + "!" * 40, r"\sum_{i=1}^{10^{99}}i", "\x00\ud800",
    ]  # fmt: skip
    start = time.process_time()
    assert classes(*keys) == tuple(range(len(keys)))
    assert time.process_time() - start < 20


def test_a_pool_compares():
    with Equality(ScoringConfig(workers=1)) as same:
        assert classes("1/2", r"\frac12", "x", same=same) == (0, 0, 1)


def test_a_comparison_whose_process_dies_is_made_in_another():
    with Equality(ScoringConfig(workers=1)) as same:
        assert same("x+1", "1+x") is True
        for child in psutil.Process().children():
            child.kill()
        assert same("y+1", "1+y") is True


@pytest.mark.parametrize("workers", [0, None])
def test_a_pool_has_at_least_one_process(workers):
    with Equality(ScoringConfig(workers=workers)) as same:
        assert same("2x", "x*2") is True
