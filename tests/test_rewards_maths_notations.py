from fractions import Fraction

import pytest

from rewards.maths.notations import same_clock, same_date, same_duration, same_numeral
from rewards.maths.number_words import number_words, read_words


@pytest.mark.parametrize(
    ("a", "b", "base", "expected"),
    [
        ("1010_2", "(1010)_2", None, True),
        ("1010_2", "1010_{ two }", None, True),
        ("0.0011_2", ".0011_2", None, True),
        ("-221_3", "-221", 3, True),
        ("2516_8", "2516", None, True),
        ("2516_8", "2516_9", None, False),
        ("52_8", "42", None, False),
        ("13", "13_2", 10, False),
        ("13", "13_5", 10, False),
        ("12", "12", 10, None),
    ],
)
def test_numerals_with_a_base(a, b, base, expected):
    assert same_numeral(a, b, base) is expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("20:13", "8:13 pm", True),
        ("3:30 pm", "15:30", True),
        ("3:30 pm", "3:30 p.m.", True),
        ("3:30 pm", "3:30", True),
        ("12:00 pm", "12:00", True),
        ("3:30 pm", "3:30 am", False),
        ("3:30 pm", "3:31 pm", False),
        ("3:99 pm", "4:39 pm", False),
        ("3:30", "15:30", None),
        ("2:3", "4:6", None),
    ],
)
def test_times_of_day(a, b, expected):
    assert same_clock(a, b) is expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("2 hours 15 minutes", "2 h 15 min", True),
        ("2 hours 15 minutes", "135 minutes", True),
        ("5 ft 7 in", "67 inches", True),
        ("2 hours 15 minutes", "2 h 16 min", False),
        ("2 hours 15 minutes", "2 ft 15 in", False),
        ("334", "5 hours 34 minutes", True),
        ("335", "5 hours and 34 minutes", False),
        ("5 ft", "60 inches", None),
    ],
)
def test_amounts_in_several_units(a, b, expected):
    assert same_duration(a, b, [("time", Fraction(60))]) is expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("April 4", "the 4th of April", True),
        ("April 4", "April 5", False),
        ("April", "May", None),
    ],
)
def test_dates(a, b, expected):
    assert same_date(a, b) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("five dollars", (5, " dollars")),
        ("fifty-six", (56, "")),
        ("one hundred and five", (105, "")),
        ("one hundred twenty-three thousand four hundred", (123400, "")),
        ("one million", (10**6, "")),
        ("negative twelve", (-12, "")),
        ("two thirds", (Fraction(2, 3), "")),
        ("three and a half", (Fraction(7, 2), "")),
        ("two dozen eggs", (24, " eggs")),
        ("zero", (0, "")),
        ("half", None),
        ("two three", None),
        ("someone", None),
        ("apples", None),
    ],
)
def test_numbers_in_words(text, expected):
    assert read_words(text) == expected


def test_runs_of_number_words_are_found():
    assert number_words("twelve eggs, or twenty-one of them") == ["twelve", "twenty-one"]
    assert number_words("one " * 10_000) == []
