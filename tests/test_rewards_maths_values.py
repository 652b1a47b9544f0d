import threading
from fractions import Fraction

import mpmath
import pytest

from rewards.maths.latex import read_expression
from rewards.maths.precision import TooLarge, Undefined, values_equal
from rewards.maths.values import evaluate


def value(text, **point):
    return evaluate(read_expression(text), {name: Fraction(v) for name, v in point.items()})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\sqrt{2}", mpmath.sqrt(2)),
        (r"\sin 30^\circ".replace("^\\circ", "\u00b0"), 0.5),
        (r"\cos\frac{\pi}{3}", 0.5),
        (r"\log_2 8", 3),
        (r"\ln e^2", 2),
        (r"e^{i\pi}", -1),
        (r"(-8)^{1/3}", -2),
        (r"\sqrt[3]{27}", 3),
        (r"\sqrt{-4}", 2j),
        (r"\arctan 1", mpmath.pi / 4),
        (r"\tan^{-1} 1", mpmath.pi / 4),
    ],
)
def test_constants_have_their_values(text, expected):
    assert abs(complex(value(text)) - complex(expected)) < 1e-14


def test_rational_arithmetic_is_exact():
    assert value("(1/3+1/6)^{100} 2^{100}") == 1
    assert value("1/2004!") != value("1/2006!")
    assert value(r"\lfloor \log_2 8 \rfloor") == 3


@pytest.mark.parametrize(
    "text", ["9^9^9^9", "9999!", "2^{10^{10}}", "e^{10^{9}}", "10^{10^{10^{10}}}", r"\binom{99999}{5}"]
)  # fmt: skip
def test_what_would_be_huge_is_refused(text):
    with pytest.raises(TooLarge):
        value(text)


@pytest.mark.parametrize("text", ["1/0", "0^{-1}", r"\ln 0", "(-1)!", "19_8", r"\tan\frac{x}{0}"])
def test_what_has_no_value_is_undefined(text):
    with pytest.raises(Undefined):
        value(text, **({"x": 1} if "x" in text else {}))


def test_exact_integers_are_capped():
    assert isinstance(value("3^{30000}"), Fraction)
    assert not isinstance(value("3^{90000}"), Fraction)  # 142,647 bits; inexact, and still compared


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\sum_{k=1}^{100} k", 5050),
        (r"\sum_{k=1}^{4} k^2 + 1", 31),
        (r"2\sum_{i=0}^{3} 2^{i}", 30),
        (r"\prod_{n=1}^{5} n", 120),
        (r"\sum_{k=3}^{2} k", 0),
        (r"\prod_{k=1}^{9} \frac{k+1}{k}", 10),
    ],
)
def test_finite_sums_are_added_up(text, expected):
    assert value(text) == expected
    assert value(r"\sum_{k=1}^{n} kx", n=4, x=Fraction(1, 2)) == 5


@pytest.mark.parametrize("limit", ["10^{9}", "2001", r"\infty", "0.5"])
def test_sums_are_short_and_whole(limit):
    with pytest.raises((TooLarge, Undefined)):
        value(rf"\sum_{{k=1}}^{{{limit}}} k")


def test_with_variables_roots_of_negatives_are_undefined():
    with pytest.raises(Undefined):
        value(r"\sqrt{x}", x=-1)


def test_equality_is_relative_and_exact_for_rationals():
    assert values_equal(mpmath.mpf(10) ** 40, mpmath.mpf(10) ** 40)
    assert not values_equal(Fraction(1, 10**60), Fraction(1, 10**61))
    assert not values_equal(value("e^{-100}"), value("e^{-101}"))


def test_threads_do_not_share_precision():
    found = []
    threads = [
        threading.Thread(
            target=lambda: found.append(values_equal(value(r"\sqrt{2}^2"), Fraction(2)))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8
