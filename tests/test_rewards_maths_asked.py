import time
from fractions import Fraction

import pytest

from rewards.maths.asked import NOTHING, asked_by, text_of
from rewards.problem import Problem


def test_no_text_asks_for_nothing():
    assert asked_by("") == NOTHING
    assert asked_by("Compute the sum.").percent is False


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Write them in increasing order.", True),
        ("Enter your answers in this order.", True),
        ("Arrange the three fractions.", True),
        ("Compute $f(1), f(2)$, and $f(5)$.", True),
        ("List the solutions in any order.", False),
        ("The list has three integers in increasing order. Find all possible values of m.", False),
        ("Find all roots.", False),
    ],
)
def test_an_order_is_asked_for(prompt, expected):
    assert asked_by(prompt).in_order is expected


def test_a_long_prompt_is_read_in_time_that_grows_with_it():
    started = time.process_time()
    for piece in ("x ", "list of ", "in order ", "(A) ", "f(1), ", "which is ", "$5 ", "1. "):
        asked_by(piece * (100_000 // len(piece)))
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("prompt", "words", "expected"),
    [
        ("It is 1 inch high. How high is it in feet?", "inches", Fraction(1, 12)),
        ("It is 1 inch high. How high is it in feet?", "feet", 1),
        ("He has \\$20 and spends \\$15. What is left?", "cents", Fraction(1, 100)),
        ("A pen costs $1.50. What do two cost?", "euros", None),
        ("What is the angle, in degrees?", "rad", None),
        ("What is the speed in inches per second?", "inches per minute", Fraction(1, 60)),
        ("It is 3 cm and 2 m.", "m", 1),
        ("How many apples?", "m", 1),
        ("How many apples?", "apples", 1),
    ],
)
def test_another_unit_than_the_one_asked_for_is_converted(prompt, words, expected):
    assert asked_by(prompt).factor(words) == expected


@pytest.mark.parametrize(
    ("prompt", "base"),
    [("Write 10 in base two.", 2), ("In base $5$.", 5), ("in binary", 2), ("Add 1 and 2.", None)],
)
def test_a_base_is_asked_for(prompt, base):
    assert asked_by(prompt).base == base


def test_a_conversation_is_one_text():
    prompt = ({"role": "system", "content": "In feet."}, {"role": "user", "content": "How high?"})
    assert text_of(Problem(id="p", prompt=prompt, answer="1", source="s")) == "In feet.\nHow high?"
