"""R1's form from R1-Zero's, by rule or by a model's summary."""

import pytest

from rewards.problem import Problem
from rollouts.cold_start import (
    has_r1_form,
    summary_messages,
    to_r1_form,
    trace_of,
    with_summary,
)

R1 = "<think>\n3 + 5 is 8\n</think>\n\nThe answer is \\boxed{8}."


@pytest.mark.parametrize(
    ("text", "has"),
    [
        (R1, True),
        ("  <think>a</think>\\boxed{8}", True),
        ("so <think>a</think>\\boxed{8}", False),  # something before
        ("<think> </think>\\boxed{8}", False),  # no thinking
        ("<think>a</think>8", False),  # no box
        ("<think>a</think>\\boxed{}", False),  # nothing in it
        ("<think>\\boxed{8}</think>", False),  # no summary
        ("<think>a\\boxed{8}", False),  # no end
        ("a</think>\\boxed{8}", False),
        ("<think>a</think><think>b</think>\\boxed{8}", False),
        ("</think><think>a \\boxed{8}", False),
        ("<think>a</think><answer>\\boxed{8}</answer>", False),  # R1-Zero's
        ("", False),
    ],
)
def test_the_form(text: str, has: bool):
    assert has_r1_form(text) is has


@pytest.mark.parametrize(
    ("answer", "summary"),
    [
        ("8", "The answer is \\boxed{8}."),
        (" $8$ ", "The answer is \\boxed{8}."),
        ("5 apples", "The answer is \\boxed{5 apples}."),
        ("\\frac{1}{2}", "The answer is \\boxed{\\frac{1}{2}}."),
        ("It is \\boxed{8}.", "It is \\boxed{8}."),
        ("So the answer is 8.", "So the answer is 8.\n\n\\boxed{8}"),
        ("3 and 5\nmake 8", "3 and 5\nmake 8\n\n\\boxed{8}"),
        ("We add 3 to 5, one by one, " * 4 + "8", "We add 3 to 5, one by one, " * 4 + "8\n\n\\boxed{8}"),
    ],
)  # fmt: skip
def test_a_summary_by_rule(answer: str, summary: str):
    made = to_r1_form(f"<think> 3 + 5 is 8 </think> <answer>{answer}</answer>")
    assert made == f"<think>\n3 + 5 is 8\n</think>\n\n{summary}"
    assert has_r1_form(made)
    assert to_r1_form(made) == made  # what has the form stays


def test_words_of_ours_are_left_out_where_the_language_is_another():
    made = to_r1_form("<think>3 加 5</think><answer>8</answer>", language="zh")
    assert made == "<think>\n3 加 5\n</think>\n\n\\boxed{8}"


@pytest.mark.parametrize(
    "text",
    [
        "<think></think><answer>8</answer>",  # no trace
        "<think>a</think><answer></answer>",  # no answer
        "<think>a</think><answer>by words alone, so that\nno number is there</answer>",
        "<think>a</think>8",  # neither form
        "<answer>8</answer>",
        "3 and 5 are 8",  # a solution that states no answer
        "",
    ],
)
def test_what_has_no_trace_or_no_answer_has_no_form(text: str):
    assert to_r1_form(text) is None


def test_a_worked_solution_without_tags_is_its_own_trace():
    assert to_r1_form("Half of 48 is 24.\n#### 24") == (
        "<think>\nHalf of 48 is 24.\n#### 24\n</think>\n\nThe answer is \\boxed{24}."
    )


def test_a_model_is_asked_for_the_summary_with_question_and_trace():
    problem = Problem(id="p", prompt="Is {x} in {question}? {trace}", answer="8", source="p")
    (message,) = summary_messages(problem, R1)
    assert message["role"] == "user"
    assert "Question:\nIs {x} in {question}? {trace}\n" in message["content"]
    assert "Notes:\n3 + 5 is 8\n" in message["content"]
    assert "in \\boxed{}." in message["content"]
    assert "The answer is" not in message["content"]
    talk = Problem(
        id="p",
        prompt=({"role": "system", "content": "Be kind."}, {"role": "user", "content": "3 + 5?"}),
        answer="8",
        source="p",
    )
    assert "Question:\nBe kind.\n3 + 5?\n" in summary_messages(talk, R1)[0]["content"]


@pytest.mark.parametrize(
    ("told", "summary"),
    [
        ("Adding gives \\boxed{8}.", "Adding gives \\boxed{8}."),
        ("<think>hm</think>\n\nIt is \\boxed{8}", "It is \\boxed{8}"),  # a model that thinks
        ("It is 8", None),  # no box
        ("<think>never ending \\boxed{8}", None),
        ("<answer>\\boxed{8}</answer>", None),
        ("", None),
    ],
)
def test_a_summary_by_a_model(told: str, summary: str | None):
    made = with_summary(R1, told)
    assert made == (summary and f"<think>\n3 + 5 is 8\n</think>\n\n{summary}")
    assert trace_of(R1) == "3 + 5 is 8"
