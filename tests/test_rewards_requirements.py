import json

import pytest

from rewards.problem import Problem, Response, Verdict
from rewards.requirements import num_sentences, requirements_reward, words
from rewards.tags import summary_of


def scored(text, *required, prefill=""):
    problem = Problem(id="i/1", prompt="?", answer=json.dumps(required), source="i")
    return requirements_reward(problem, Response(text=text, prefill=prefill))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("<think>a</think> b ", "b"),
        ("<think>a</think>b<think>c</think>d", "d"),
        ("a</think>b", "b"),
        ("<think>never ended", ""),
        ("<think>a</think>", ""),
        ("<think>a</think><answer>b</answer>", "b"),
        ("", ""),
    ],
)
def test_the_summary_is_what_the_reader_is_told(text, expected):
    assert summary_of(text) == expected


def test_words_keep_hyphens_and_apostrophes_and_have_no_case():
    assert words("Don't over-do it, 3 Times_two!") == [
        "don't",
        "over-do",
        "it",
        "3",
        "times",
        "two",
    ]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One.", 1),
        ("One. Two!", 2),
        ("One two", 1),
        ("It is 3.5 mm. Really?", 2),
        ("One...", 1),
        ("One.\nTwo\n\nThree", 3),
        ('He said "No." Then he left.', 2),
        ("... !!! ?", 0),
        ("", 0),
    ],
)
def test_sentences_are_counted(text, count):
    assert num_sentences(text) == count


@pytest.mark.parametrize(
    ("requirement", "good", "bad"),
    [
        (("includes", "rain"), "RAIN!", "rainy"),
        (("different_words", 3), "a b c", "a b B a"),
        (("sentences", 2), "A b. C.", "A b."),
        (("bullets", 2), "- a\n* b", "- a\n- b\n- c"),
        (("bullets", 2), "- a\n\n- b\n", "Here:\n- a\n- b"),
        (("bullets", 1), "- a", "-\n"),
        (("at_most_words", 2), "one two", "one two three"),
        (("lower_case", True), "all low 3.", "All low"),
        (("upper_case", True), "ALL UP 3.", "ALL uP"),
        (("no_commas", True), "a b", "a, b"),
        (("begins", "Well"), '"well, a', "a well"),
        (("begins", "Well"), "Well.", "Wellness"),
        (("ends", "if you ask me"), 'a, If you ask me."', "if you ask me, a"),
    ],
)
def test_each_requirement_tells_texts_apart(requirement, good, bad):
    assert (scored(good, requirement).value, scored(good, requirement).verdict) == (
        1.0,
        Verdict.CORRECT,
    )
    assert (scored(bad, requirement).value, scored(bad, requirement).verdict) == (
        0.0,
        Verdict.WRONG,
    )


def test_all_must_hold_and_the_share_is_a_part():
    score = scored("Rain falls.", ("includes", "rain"), ("sentences", 2))
    assert (score.value, score.verdict, score.parts) == (0.0, Verdict.WRONG, {"requirements": 0.5})


def test_only_the_summary_counts():
    wanted = ("lower_case", True)
    assert scored("<think>THINKING</think>low", wanted).value == 1.0
    assert scored("THINKING</think>low", wanted, prefill="<think>").value == 1.0
    assert scored("<think>low</think>LOUD", wanted).value == 0.0
    assert scored("low", wanted, prefill="<think>").verdict is Verdict.NO_ANSWER


@pytest.mark.parametrize("answer", ["[]", '[["loud", 1]]', "{}", "x"])
def test_an_answer_that_requires_nothing_known_is_our_fault(answer):
    problem = Problem(id="i/1", prompt="?", answer=answer, source="i")
    with pytest.raises(ValueError):
        requirements_reward(problem, Response(text="a"))
