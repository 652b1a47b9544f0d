from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.numeric import MAX_EXPONENT, MAX_LENGTH, is_too_large, numbers_equal, parse_number

numberlike = st.text(alphabet="0123456789+-.,/eE$%{}\\frac ^*\u2212\u0663", max_size=80)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8", Fraction(8)),
        (" 8.\n", Fraction(8)),
        ("008", Fraction(8)),
        ("+8", Fraction(8)),
        ("-8", Fraction(-8)),
        ("\u22128", Fraction(-8)),
        ("- 8", Fraction(-8)),
        ("0.25", Fraction(1, 4)),
        (".25", Fraction(1, 4)),
        ("0.1", Fraction(1, 10)),
        ("1,234.50", Fraction(2469, 2)),
        ("1{,}234", Fraction(1234)),
        ("1,\\!234", Fraction(1234)),
        ("1\\,234", Fraction(1234)),
        ("3/4", Fraction(3, 4)),
        ("-3 / 4", Fraction(-3, 4)),
        ("\\frac{3}{4}", Fraction(3, 4)),
        ("-\\dfrac{3}{4}", Fraction(-3, 4)),
        ("\\tfrac{-3}{4}", Fraction(-3, 4)),
        ("\\frac{-3}{-4}", Fraction(3, 4)),
        ("50%", Fraction(50)),
        ("12.5\\%", Fraction(25, 2)),
        ("$18", Fraction(18)),
        ("\\$18.50", Fraction(37, 2)),
        ("-$5", Fraction(-5)),
        ("$-5$", Fraction(-5)),
        ("\u20ac7", Fraction(7)),
        ("1.5e3", Fraction(1500)),
        ("2E-2", Fraction(1, 50)),
        ("1.5 \\times 10^3", Fraction(1500)),
        ("2\u00d710^{-2}", Fraction(1, 50)),
        ("1e308", Fraction(10**308)),
        ("1 1/2", Fraction(3, 2)),
        ("-2\\frac{3}{4}", Fraction(-11, 4)),
        ("\\frac12", Fraction(1, 2)),
        ("8 apples", Fraction(8)),
        ("8 \\text{ cm}^2", Fraction(8)),
        ("1.5 million", Fraction(1500000)),
        ("90^\\circ", Fraction(90)),
        ("twelve", Fraction(12)),
    ],
)
def test_numbers_are_read_exactly(text, expected):
    assert parse_number(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ".", "-", "--8", "8 or 9", "8 pi", "8x", "1 2", "1 3/2", "12,34", "1,2345", "1_000", "0x10",
        "3/0", "\\frac{1}{0}", "1/2/3", "1e", "nan", "inf", "Infinity", "\u0663", "\u00b2", "8..",
    ],
)  # fmt: skip
def test_what_is_not_one_number_is_none_and_not_too_large(text):
    assert parse_number(text) is None
    assert not is_too_large(text)


@pytest.mark.parametrize(
    "text", ["9" * 65, "1e309", "1e-309", "1e99999999999", "2 \\times 10^{400}", "1/" + "3" * 63]
)
def test_what_is_over_a_cap_is_none_and_too_large(text):
    assert parse_number(text) is None
    assert is_too_large(text)


def test_the_caps_themselves_are_within():
    assert parse_number("9" * MAX_LENGTH) == 10**64 - 1
    assert parse_number(f"1e-{MAX_EXPONENT}") == Fraction(1, 10**308)
    assert parse_number(" " * 1000 + "8") == 8


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ("0.5", "1/2", True),
        ("1,000", "1e3", True),
        ("0.333", "1/3", False),
        ("9007199254740993", "9007199254740992", False),  # equal as floats: 2**53 + 1
        ("x", "x", False),
        ("1", "x", False),
    ],
)
def test_equality_is_of_values_and_exact(a, b, equal):
    assert numbers_equal(a, b) is equal
    assert numbers_equal(b, a) is equal


@given(numberlike | st.text())
def test_any_text_is_a_bounded_number_or_none(text):
    number = parse_number(text)
    # 64 digits and an exponent of 308 over 64 digits: at most 64 + 308 + 64 digits each.
    if number is not None:
        assert max(abs(number.numerator), number.denominator) < 10**436


@given(st.fractions())
def test_a_fraction_written_out_is_read_back(number):
    text = f"{number.numerator}/{number.denominator}"
    assert parse_number(text) == (number if len(text) <= MAX_LENGTH else None)


@pytest.mark.parametrize("text", ["1" * 10**6, "1," * 10**6, "1e" + "9" * 10**6, " " * 10**6])
def test_a_megabyte_comes_back(text):
    assert parse_number(text) is None
