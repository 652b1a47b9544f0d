import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.problem import Problem, Response, Verdict
from rewards.tags import format_reward, think_summary_reward

PROBLEM = Problem(id="test/1", prompt="What is 3 + 5?", answer="8", source="test")


def score(text, *, prefill=""):
    return format_reward(PROBLEM, Response(text=text, prefill=prefill))


@pytest.mark.parametrize(
    "text",
    [
        "<think>3 + 5</think><answer>8</answer>",
        " <think>\n3 + 5\n</think>\n\n<answer> 9 </answer>\n",
        "<think></think><answer></answer>",
    ],
)
def test_the_format_is_worth_one_whatever_the_answer(text):
    assert score(text).value == 1.0
    assert score(text).verdict is Verdict.CORRECT
    assert score(text).parts == {"format": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8",
        "<think>a</think>8",
        "<answer>8</answer>",
        "<think>a<answer>8</answer>",
        "<think>a</think><answer>8",
        "<answer>8</answer><think>a</think>",
        "<think>a<answer>8</think></answer>",
        "</think>a<think><answer>8</answer>",
        "<think>a</think></answer>8<answer>",
        "<think><answer>8</answer></think>",
        "so <think>a</think><answer>8</answer>",
        "<think>a</think> so <answer>8</answer>",
        "<think>a</think><answer>8</answer> so",
        "<think>a</think><think>b</think><answer>8</answer>",
        "<think>a</think><answer>8</answer><answer>9</answer>",
        "<think>a</think><answer>8</answer></answer>",
        "<Think>a</Think><answer>8</answer>",
    ],
)
def test_anything_else_is_malformed(text):
    assert score(text).value == 0.0
    assert score(text).verdict is Verdict.MALFORMED
    assert score(text).parts == {"format": 0.0}


def test_a_prefilled_tag_counts_once():
    assert score("a</think><answer>8</answer>", prefill="<think>").value == 1.0
    assert score("<think>a</think><answer>8</answer>", prefill="<think>").value == 0.0


@given(st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "8", " "])))
def test_agrees_with_reading_piece_by_piece(pieces):
    expected = accepts(pieces)
    assert score("".join(pieces)).value == (1.0 if expected else 0.0)


def accepts(pieces):
    """A state machine over pieces: outside, thinking, between, answering, done."""
    order = ["<think>", "</think>", "<answer>", "</answer>"]
    state = 0
    for piece in pieces:
        if piece in order:
            if state == 4 or piece != order[state]:
                return False
            state += 1
        elif piece != " " and state not in (1, 3):
            return False
    return state == 4


def test_a_megabyte_of_tags_comes_back():
    assert score("<think>" * 150_000).value == 0.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("<think>3 + 5</think>It is \\boxed{8}.", 1.0),
        ("\n<think>\na\n</think>\n\nb", 1.0),
        ("<think>a</think><answer>8</answer>", 1.0),
        ("", 0.0),
        ("It is 8.", 0.0),
        ("<think>a</think>", 0.0),
        ("<think>a</think>\n", 0.0),
        ("<think></think>8", 0.0),
        ("<think> </think>8", 0.0),
        ("so <think>a</think>8", 0.0),
        ("<think>a 8", 0.0),
        ("a</think>8", 0.0),
        ("<think>a</think>b</think>8", 0.0),
        ("<think>a<think>b</think>8", 0.0),
        ("</think>a<think>8", 0.0),
    ],
)
def test_a_chain_of_thought_and_a_summary(text, value):
    score = think_summary_reward(PROBLEM, Response(text=text))
    assert (score.value, score.parts) == (value, {"format": value})
    assert score.verdict is (Verdict.CORRECT if value else Verdict.MALFORMED)


def test_the_chains_tag_may_be_prefilled():
    assert think_summary_reward(PROBLEM, Response(text="a</think>8", prefill="<think>")).value == 1
