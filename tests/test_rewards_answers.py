import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.answers import (
    after_thinking,
    boxed_answer,
    final_answer,
    hashed_answer,
    last_number,
    stated_answer,
    tagged_answer,
)

MARKS = ["<answer>", "</answer>", "\\boxed", "{", "}", "\\", "####", "\n", "7", ",", ".", "-", " "]
hostile = st.lists(st.sampled_from(MARKS), max_size=60).map("".join) | st.text(max_size=60)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{1} #### 2 <answer> 3 </answer> 4", "3"),
        (r"#### 2 and \boxed{1} then 4", "1"),
        ("9 apples\n#### 2\nso 4", "2"),
        ("3 + 5 is 8.", "8"),
        (r"<answer>so \boxed{8}</answer>", "8"),
        ("<answer>eight</answer> 8", "eight"),
        ("<answer> </answer> 8", None),
        (r"\boxed{} 8", None),
        ("no idea", None),
        ("", None),
    ],
)
def test_tags_before_boxes_before_hashes_before_the_last_number(text, expected):
    assert final_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<answer>1</answer> <answer>2</answer>", "2"),
        ("<answer>1</answer> <answer>2", "1"),
        ("<answer>1<answer>2</answer>", "2"),
        ("<answer>1</answer></answer>", "1"),
        ("</answer><answer>", None),
        ("<answer>1", None),
    ],
)
def test_the_last_closed_answer_tag_counts(text, expected):
    assert tagged_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{1} then \boxed{ 2 }", "2"),
        (r"\boxed{1} then \boxed{2", "1"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{a{b}c} {d}", "a{b}c"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{5}}}", "5"),
        (r"{{\boxed{5}", "5"),
        (r"\boxed 5", None),
        (r"boxed{5}", None),
    ],
)
def test_the_last_balanced_box_counts(text, expected):
    assert boxed_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a #### 1\n#### -2 \nb", "-2"), ("#### ", None), ("### 1", None), ("1", None)],
)
def test_the_line_after_the_last_hashes_counts(text, expected):
    assert hashed_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10 - 7 = 3.", "3"),
        ("x=-3", "-3"),
        ("x = \u22123", "\u22123"),
        ("between 5-3", "3"),
        ("f(2)-3", "3"),
        ("It costs $1,200.50.", "$1,200.50"),
        ("3/4 of it", "3/4"),
        ("about 1.5e3 of them", "1.5e3"),
        ("12,34", "34"),
        ("wait...5", "5"),
        ("none", None),
    ],
)
def test_the_last_number_keeps_its_sign_and_fraction(text, expected):
    assert last_number(text) == expected


def test_a_stated_answer_is_never_a_mere_last_number():
    assert stated_answer("x + 1") is None
    assert stated_answer("12 eggs\n#### 72") == "72"


def test_only_what_follows_the_last_thought_is_left():
    assert after_thinking("<think>1</think>2</think>3") == "3"
    assert after_thinking("1</think>") == ""
    assert after_thinking("no thought") == "no thought"


@given(hostile)
def test_an_answer_is_a_piece_of_the_text(text):
    answer = final_answer(text)
    assert answer is None or (answer and answer in text)


@given(hostile)
def test_boxes_agree_with_a_left_to_right_stack(text):
    assert boxed_answer(text) == boxed_by_stack(text)


def boxed_by_stack(text):
    """The slow, obvious way: match all braces from the left, keep the box that opens last."""
    opened, boxes = [], {}
    for position, char in enumerate(text):
        if text[:position].endswith("\\") or char not in "{}":
            continue
        if char == "{":
            opened.append(position)
        elif opened:
            start = opened.pop()
            if text[:start].endswith("\\boxed"):
                boxes[start] = text[start + 1 : position].strip()
    return boxes[max(boxes)] if boxes else None


def count_lines(text):
    """Lines of Python that `final_answer` runs: a measure of work that no clock disturbs."""
    lines = 0

    def trace(frame, event, arg):
        nonlocal lines
        lines += event == "line"
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        final_answer(text)
    finally:
        sys.settrace(previous)
    return lines


@pytest.mark.parametrize(
    "unit", ["\\boxed{", "}", "{", "\\boxed{}", "<answer>", "</answer>", "####", "1", "1,", "1 "]
)
def test_work_grows_no_faster_than_the_text(unit):
    prefix = "\\boxed{"
    assert count_lines(prefix + unit * 2000) <= 10 * count_lines(prefix + unit * 200) + 100


@pytest.mark.parametrize(
    ("unit", "answer"),
    [
        ("{", None),
        ("\\boxed{", None),
        ("}", None),
        ("1", "1" * 256),
        ("1,", "1"),
        ("<answer>", None),
        ("#", None),
        ("(", None),
    ],
)
def test_a_megabyte_comes_back(unit, answer):
    assert final_answer("\\boxed{" + unit * (1_000_000 // len(unit))) == answer
