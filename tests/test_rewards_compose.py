import logging
import pickle

import pytest

from rewards.compose import r1_zero_reward, safely, weighted
from rewards.mathematics import numeric_reward
from rewards.problem import Problem, Response, Score, Verdict

PROBLEM = Problem(id="test/1", prompt="What is 3 + 5?", answer="8", source="test")
RESPONSE = Response(text="8")


def right(problem, response):
    return Score(value=1.0, verdict=Verdict.CORRECT)


def wrong(problem, response):
    return Score(value=0.0, verdict=Verdict.WRONG)


def half(problem, response):
    return Score(value=0.5, verdict=Verdict.CORRECT)


def broken_sandbox(problem, response):
    return Score(value=1.0, verdict=Verdict.SANDBOX_ERROR)


def raising(problem, response):
    raise RuntimeError(f"no grader for {response.text}")


def test_a_weighted_sum_keeps_each_part_unweighted():
    score = weighted({"a": (right, 2.0), "b": (half, 0.5), "c": (right, -1.0)})(PROBLEM, RESPONSE)
    assert score.value == 1.25  # 2 * 1 + 0.5 * 0.5 - 1 * 1
    assert score.parts == {"a": 1.0, "b": 0.5, "c": 1.0}


def test_the_first_part_gives_the_verdict():
    assert weighted({"a": (right, 1.0), "b": (wrong, 1.0)})(PROBLEM, RESPONSE).verdict == "correct"
    assert weighted({"b": (wrong, 1.0), "a": (right, 1.0)})(PROBLEM, RESPONSE).verdict == "wrong"


def test_our_own_failure_in_any_part_wins_and_is_worth_nothing():
    score = weighted({"a": (right, 1.0), "b": (broken_sandbox, 1.0)})(PROBLEM, RESPONSE)
    assert score.verdict is Verdict.SANDBOX_ERROR
    assert score.value == 0.0


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_must_be_finite(weight):
    with pytest.raises(ValueError, match=r"the weight of 'a' is (nan|inf); give a finite number"):
        weighted({"a": (right, weight)})


def test_a_sum_needs_parts():
    with pytest.raises(ValueError, match="got no parts"):
        weighted({})


def test_later_changes_of_the_mapping_have_no_effect():
    parts = {"a": (right, 1.0)}
    reward = weighted(parts)
    parts["b"] = (right, 1.0)
    assert reward(PROBLEM, RESPONSE).value == 1.0


@pytest.mark.parametrize(
    ("text", "value", "verdict", "accuracy", "form"),
    [
        ("a</think><answer>8</answer>", 2.0, Verdict.CORRECT, 1.0, 1.0),
        ("a</think>8", 1.0, Verdict.CORRECT, 1.0, 0.0),
        ("a</think><answer>9</answer>", 1.0, Verdict.WRONG, 0.0, 1.0),
        ("", 0.0, Verdict.NO_ANSWER, 0.0, 0.0),
    ],
)
def test_r1_zero_weighs_accuracy_and_format_equally(text, value, verdict, accuracy, form):
    score = r1_zero_reward(numeric_reward)(PROBLEM, Response(text=text, prefill="<think>"))
    assert (score.value, score.verdict) == (value, verdict)
    assert score.parts == {"accuracy": accuracy, "format": form}


def test_a_safe_reward_turns_an_exception_into_a_grader_error():
    score = safely(raising)(PROBLEM, RESPONSE)
    assert score == Score(value=0.0, verdict=Verdict.GRADER_ERROR)
    assert safely(half)(PROBLEM, RESPONSE) == half(PROBLEM, RESPONSE)


def test_an_exception_is_logged_once_for_each_message(caplog):
    reward = safely(raising)
    with caplog.at_level(logging.ERROR, logger="rewards.compose"):
        for text in ("first", "first", "second"):
            reward(PROBLEM, Response(text=text))
    assert [record.getMessage() for record in caplog.records] == [
        "a reward failed: RuntimeError: no grader for first",
        "a reward failed: RuntimeError: no grader for second",
    ]
    assert "in raising" in caplog.text  # the traceback


def test_an_interrupt_is_not_swallowed():
    def interrupted(problem, response):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        safely(interrupted)(PROBLEM, RESPONSE)


def test_composed_rewards_can_be_sent_to_another_process():
    reward = pickle.loads(pickle.dumps(safely(r1_zero_reward(numeric_reward))))
    assert reward(PROBLEM, RESPONSE).value == 1.0
