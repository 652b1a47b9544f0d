"""Of what kind a disagreement is."""

import pytest

from eval.wrong_grades import MEANINGS, accepted_kind, refused_kind
from rewards.mathematics import math_reward
from rewards.problem import Problem, Response, Verdict

ACCEPTED = {
    "It is \\boxed{8} or \\boxed{9}": ("8", "several answers"),
    "I do not know.": ("8", "no answer"),
    "<think>I do not know": ("8", "cut off"),
    "\\boxed{5 s}": ("5 cm", "unit"),
    "\\boxed{3.14}": ("3.141", "near"),
    "3 + 5 is 8, so \\boxed{7}": ("8", "right value elsewhere"),
    "\\boxed{17}": ("8", "another value"),
    "\\boxed{17} and then, ": ("8", "cut off"),
}
REFUSED = {
    "\\boxed{8}": ("8", "place: box"),
    "<think>a</think><answer>8</answer>": ("8", "place: tag"),
    "So\n#### 8": ("8", "place: hashes"),
    "The answer is 8.": ("8", "place: sentence"),
    "\\boxed{1,000}": ("1000", "number form"),
    "\\boxed{0.5}": ("\\frac{1}{2}", "number form"),
    "\\boxed{8 \\text{ cm}}": ("8", "unit"),
    "\\boxed{(x+1)(x-1)}": ("x^2-1", "notation"),
    "\\boxed{8}, and": ("8", "place: box"),
    "\\boxed{8}, ": ("8", "cut off"),
}


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_they_accepted_and_we_do_not(text):
    reference, kind = ACCEPTED[text]
    problem = Problem(id="a", prompt="?", answer=reference, source="a")
    verdict = math_reward(problem, Response(text=text)).verdict
    assert verdict is not Verdict.CORRECT
    assert accepted_kind(verdict, reference, Response(text=text), is_truncated=None) == kind
    assert kind in MEANINGS


@pytest.mark.parametrize("text", REFUSED)
def test_what_they_refused_and_we_do_not(text):
    reference, kind = REFUSED[text]
    problem = Problem(id="a", prompt="?", answer=reference, source="a")
    assert math_reward(problem, Response(text=text)).verdict is Verdict.CORRECT
    assert refused_kind(reference, Response(text=text), is_truncated=None) == kind
    assert kind in MEANINGS


def test_a_dump_that_knows_what_was_cut_off_is_believed():
    response = Response(text="\\boxed{8}")
    assert refused_kind("8", response, is_truncated=True) == "cut off"
    assert refused_kind("8", Response(text="\\boxed{8},"), is_truncated=False) == "place: box"


def test_every_other_verdict_has_a_kind():
    response = Response(text="8")
    kinds = [
        accepted_kind(verdict, "8", response, is_truncated=None)
        for verdict in (Verdict.MALFORMED, Verdict.TOO_LARGE, Verdict.TIMEOUT, Verdict.MEMORY)
    ]
    assert kinds == ["unreadable", "too large", "out of time", "out of memory"]
