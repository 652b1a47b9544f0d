"""What math-verify may look at, and that its yes needs equal values."""

import time

import pytest

from rewards.maths.symbolic import affordable, symbolically_equal

COSTLY = [
    r"1e999999999+\log_{10}(10^{10^{10}})",
    r"9^{9^{9}}",
    r"9^9^9",
    r"9**9**9",
    r"2^{(9^{9})}",
    r"((9^{99})^{99})^{99}",
    r"(9^{99})^{9^9}",
    r"(x+y+z)^{99}",
    r"(a+b+c)^{9}(d+e+f)^{9}(g+h+k)^{9}",
    r"(a+b+c+d+f)^{2}",
    r"x^{99999}",
    r"\frac" + "ac" * 30,
    "a c " * 11,
    r"1e999",
    r"1.5 E -4000",
    r"\sqrt[10^{9}]{10^{10^{9}}}",
    r"e^{e^{e}}",
    r"\sum_{k=1}^{9} k",
    r"\prod_{k=1}^{9} k",
    "99!",
    r"\binom{99}{9}",
    "[" * 13 + "1" + "]" * 13,
    "1+" * 61,
    "x^2" * 5,
]


@pytest.mark.parametrize("text", COSTLY)
def test_work_without_a_bound_is_not_begun(text):
    assert not affordable(text)
    assert symbolically_equal(r"\frac{x}{2}", text) is None
    assert symbolically_equal(text, r"\frac{x}{2}") is None


AFFORDABLE = [
    r"(x+1)^{8}",
    r"2^{99}+x",
    r"\frac{x^{4}}{(y+1)^{2}}",
    r"\frac{x}{2}+\sqrt{y}",
    r"x^{\frac{1}{2}}",
    r"2^-3",
    r"x^\pi",
]


@pytest.mark.parametrize("text", AFFORDABLE)
def test_what_is_small_is_looked_at(text):
    assert affordable(text)


def test_the_most_that_is_let_through_is_soon_done():
    symbolically_equal("x^2", "x^3")  # imports sympy
    start = time.process_time()
    for text in [
        r"((9^{99})^{4})^{4}",
        r"(a+b+c+d)^{4}(a+b+c)^{4}",
    ]:
        assert affordable(text)
        assert not symbolically_equal(r"\frac{x}{2}", text)
        assert not symbolically_equal(text, r"\frac{x}{2}")
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        (r"(x+1)^2", "x^2+2x+1", True),
        (r"(x+1)^2", "x^2+2x", False),
        ("word", "10", None),
    ],
)
def test_the_second_opinion(first, second, equal):
    assert symbolically_equal(first, second) is equal
