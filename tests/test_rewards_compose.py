import pickle

import pytest

from rewards.compose import r1_reward, r1_zero_reward, weighted
from rewards.language import language_reward
from rewards.mathematics import numeric_reward
from rewards.problem import Problem, Response, Score, Verdict
from rewards.purity import purity_of

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


@pytest.mark.parametrize(
    ("text", "value", "parts"),
    [
        (
            "we add</think><answer>8</answer>",
            3.0,
            {"accuracy": 1.0, "format": 1.0, "language": 1.0},
        ),
        # Two English words and two Chinese characters.
        ("we add 三五</think>8", 2.5, {"accuracy": 1.0, "format": 1.0, "language": 0.5}),
        ("</think>9", 0.0, {"accuracy": 0.0, "format": 0.0, "language": 0.0}),
    ],
)
def test_r1_adds_language_directly(text, value, parts):
    reward = r1_reward(numeric_reward, language_reward("en"))
    score = reward(PROBLEM, Response(text=text, prefill="<think>"))
    assert (score.value, score.parts) == (value, parts)
    assert (score.verdict is Verdict.CORRECT) == (parts["accuracy"] == 1.0)


def test_a_part_may_be_a_plain_number():
    reward = weighted({"accuracy": (right, 1.0), "length": (lambda p, r: len(r.text), 0.5)})
    assert reward(PROBLEM, RESPONSE).parts == {"accuracy": 1.0, "length": 1.0}


def test_composed_rewards_can_be_sent_to_another_process():
    rewards = [r1_zero_reward(numeric_reward), r1_reward(numeric_reward, language_reward("en"))]
    for reward in rewards:
        again = pickle.loads(pickle.dumps(reward))
        assert again(PROBLEM, RESPONSE) == reward(PROBLEM, RESPONSE)


def test_a_sum_is_pure_if_its_parts_are():
    purity = purity_of(r1_reward(numeric_reward, language_reward("en")))
    assert purity.reads == ("answer", "text", "prefill")
    assert purity != purity_of(r1_reward(numeric_reward, language_reward("zh")))
    heavier = weighted({"accuracy": (numeric_reward, 2.0)})
    assert purity_of(heavier) != purity_of(weighted({"accuracy": (numeric_reward, 1.0)}))
    assert purity_of(weighted({"accuracy": (numeric_reward, 1.0), "b": (half, 1.0)})) is None
