from fractions import Fraction

import pytest

from rewards.maths.latex import MAX_DEPTH, MAX_LENGTH, Unreadable, read_expression
from rewards.maths.trees import operations, variables
from rewards.maths.values import evaluate

X = {"x": Fraction(3), "y": Fraction(5), "n": Fraction(4), "k": Fraction(2)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2x^2", 18),
        ("-x^2", -9),
        ("2^{n-1}", 8),
        ("2^-1", Fraction(1, 2)),
        (r"\frac{x+1}{y-1}", 1),
        (r"\frac12 x", Fraction(3, 2)),
        (r"3\frac{1}{2}", Fraction(7, 2)),
        (r"3\frac{3}{2}", Fraction(9, 2)),
        ("2 1/2", Fraction(5, 2)),
        ("x(y+1)", 18),
        ("xy/5", 3),
        ("1/2x", Fraction(3, 2)),
        ("x**2 + 2*y", 19),
        (r"\sqrt{16}", 4),
        ("sqrt(x+1)", 2),
        (r"2 \cdot 3 \times 4 \div 6", 4),
        ("n!", 24),
        (r"\binom{n}{k}", 6),
        (r"|x-y|", 2),
        (r"\lfloor x/2 \rfloor + \lceil x/2 \rceil", 3),
        ("50%", Fraction(1, 2)),
        ("101_2", 5),
        (r"1.5 - .5", 1),
        ("2^2^3", 256),
        ("--x", 3),
    ],
)
def test_an_expression_has_the_value_that_a_reader_gives_it(text, expected):
    assert evaluate(read_expression(text), X) == expected


@pytest.mark.parametrize(
    "text",
    ["", "2 3", "x +", "(x", "x)", r"\frac{1}", r"\int_0^3 k", "apples", "x = 1", "{", "^", "1..2"],
)  # fmt: skip
def test_what_is_no_expression_is_unreadable(text):
    with pytest.raises(Unreadable):
        read_expression(text)


def test_names_are_variables_and_constants_are_not():
    assert variables(read_expression(r"a_1 x + \theta e^{i\pi}")) == {
        "a_('number', Fraction(1, 1))",
        "x",
        "theta",
    }
    assert "sin" in operations(read_expression(r"\sin^2 2x"))


def test_depth_and_length_are_capped():
    read_expression("(" * (MAX_DEPTH - 1) + "1" + ")" * (MAX_DEPTH - 1))
    assert evaluate(read_expression("+".join("1" * 140)), {}) == 140


@pytest.mark.parametrize(
    "text",
    [
        "(" * 300 + "1" + ")" * 300,
        "2^" * 300 + "1",
        "-" * 400 + "1",
        "1" + "+1" * 400,
        "x" * 400,
        "1" + "!" * 400,
        r"\sin " * 150 + "x",
        r"\frac" * 150 + "x",
        "\u221a" * 900 + "1",
        "{" * 400 + "1" + "}" * 400,
        "1" * (MAX_LENGTH + 1),
    ],
)
def test_what_is_too_deep_is_unreadable(text):
    with pytest.raises(Unreadable):
        read_expression(text)
