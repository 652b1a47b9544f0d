import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.mathematics import numeric_reward
from rewards.problem import Problem, Response, Verdict


def problem(answer):
    return Problem(id="test/1", prompt="What is 3 + 5?", answer=answer, source="test")


def verdict(text, *, answer="8", prefill=""):
    return numeric_reward(problem(answer), Response(text=text, prefill=prefill)).verdict


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8", Verdict.CORRECT),
        ("3 + 5 = 8.", Verdict.CORRECT),
        ("<answer>8.0</answer> not 9", Verdict.CORRECT),
        ("\\boxed{\\frac{16}{2}}", Verdict.CORRECT),
        ("9", Verdict.WRONG),
        ("-8", Verdict.WRONG),
        ("8 or 9", Verdict.WRONG),
        ("", Verdict.NO_ANSWER),
        ("eight", Verdict.NO_ANSWER),
        ("<answer></answer> 8", Verdict.NO_ANSWER),
        ("<answer>eight</answer> 9", Verdict.CORRECT),
        ("<answer>many</answer> 8", Verdict.MALFORMED),
        ("\\boxed{8/0}", Verdict.MALFORMED),
        ("8" * 65, Verdict.TOO_LARGE),
        ("<answer>1e999999999</answer>", Verdict.TOO_LARGE),
    ],
)
def test_each_text_has_its_verdict(text, expected):
    assert verdict(text) is expected


def test_only_what_follows_the_thought_is_graded():
    assert verdict("9? no</think>8", prefill="<think>") is Verdict.CORRECT
    assert verdict("8</think>9", prefill="<think>") is Verdict.WRONG
    assert verdict("it is 8</think> \n", prefill="<think>") is Verdict.NO_ANSWER
    assert verdict("<answer>8</answer></think>no") is Verdict.NO_ANSWER


def test_a_prefilled_answer_is_part_of_the_text():
    assert verdict("8</answer> not 9", prefill="<answer>") is Verdict.CORRECT


def test_value_and_part_are_one_or_zero():
    right = numeric_reward(problem("8"), Response(text="8"))
    wrong = numeric_reward(problem("8"), Response(text="9"))
    assert (right.value, right.parts) == (1.0, {"accuracy": 1.0})
    assert (wrong.value, wrong.parts) == (0.0, {"accuracy": 0.0})


def test_a_reference_may_state_its_number():
    assert verdict("72", answer="48 / 2 = 24\n#### 72") is Verdict.CORRECT
    assert verdict("24", answer="48 / 2 = 24\n#### 72") is Verdict.WRONG
    assert verdict("1200", answer="1,200") is Verdict.CORRECT


def test_a_reference_without_a_number_is_our_mistake():
    with pytest.raises(ValueError, match=r"'x \+ 1' of problem test/1 is not a number"):
        verdict("1", answer="x + 1")


@given(st.text() | st.text(alphabet="0123456789.,-/eE<>answerthink\\boxed{}#"))
def test_any_text_gets_a_verdict_of_the_policy(text):
    score = numeric_reward(problem("8"), Response(text=text))
    assert not score.verdict.is_ours
    assert score.value == (1.0 if score.verdict is Verdict.CORRECT else 0.0)
