"""Texts that were cut off, end in a loop, or repeat themselves."""

import time

import pytest

from eval.text_faults import ends_in_loop, looks_cut, repetition


@pytest.mark.parametrize(
    "text",
    [
        "<think>so 3 + 5 is 8",
        "<think>a</think><answer>8",
        "```python\nprint(1)\n",
        "so it is \\boxed{1",
        "so it is \\boxed{\\frac{1}{2}",
        "therefore x =",
        "first, ",
        "f(",
        "The answer is:\n",
    ],
)
def test_what_is_open_or_leads_on_looks_cut(text):
    assert looks_cut(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "so it is 8",
        "so it is **8**",
        "<think>a</think><answer>8</answer>",
        "<think>a</think>\n\\boxed{\\frac{1}{2}}.",
        "```python\nprint(1)\n```",
        "an open box \\boxed{1 long ago " + "and more words " * 100,
    ],
)
def test_what_came_to_its_end_does_not(text):
    assert not looks_cut(text)


def test_a_phrase_four_times_and_sixteen_words_is_a_loop():
    assert ends_in_loop("Let me see. " + "so it is 8. " * 4)  # 4 words, 4 times: 16
    assert not ends_in_loop("Let me see. " + "so it is 8. " * 3)  # 12 words
    assert not ends_in_loop("no " * 15)
    assert ends_in_loop("no " * 16)
    assert ends_in_loop("Let me see. " + "so it is 8. " * 5 + "so it i")  # cut in a word
    assert not ends_in_loop("so it is 8. " * 9 + "But no, that was wrong, and here I am again.")
    phrase = " ".join(f"w{i}" for i in range(64)) + " "
    assert ends_in_loop(phrase * 4)
    assert not ends_in_loop(" ".join(f"w{i}" for i in range(65)) * 4)


def test_characters_without_spaces_can_loop_too():
    assert ends_in_loop("1/3 is 0." + "3" * 64)
    assert not ends_in_loop("1/3 is 0." + "3" * 63)
    assert ends_in_loop("\u7b54\u6848\u662f\u516b\u3002" * 13)  # 5 characters, 65 in all
    assert not ends_in_loop("")


def test_the_share_of_repeated_words():
    # a b c d a b c d: abcd, bcda, cdab, dabc, abcd: 1 of 5 stood there before.
    assert repetition("a b c d A B C D") == pytest.approx(0.2)
    assert repetition("a b c") == 0.0


def test_a_long_text_is_looked_at_quickly():
    began = time.process_time()
    for text in ("ab " * 500_000, "<think>" * 200_000, "\\boxed{" * 200_000, "{" * 1_000_000):
        looks_cut(text)
        ends_in_loop(text)
        repetition(text)
    assert time.process_time() - began < 5
