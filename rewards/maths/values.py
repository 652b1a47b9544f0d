"""Values of expressions, exact or to 40 digits, in bounded time.

Rational arithmetic stays exact (`Fraction`); all else is mpmath. What would be huge is refused
(`TooLarge`), so a hostile tower of powers costs nothing.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from rewards.maths.precision import (
    CONTEXTS,
    TooLarge,
    Undefined,
    Value,
    inexact,
    is_real,
    values_equal,
)
from rewards.maths.trees import Node

MAX_BITS = 60_000
"""Of an exact integer."""

MAX_MAGNITUDE = 1e6
"""Of the binary exponent of an inexact value, and of an argument of exp or a trigonometric."""

MAX_TERMS = 2000
"""Of a sum or product, for a term of one part; a term of ten parts may come 200 times."""


def evaluate(node: Node, point: dict[str, Fraction]) -> Value:
    """The value of a tree with its variables at `point`.

    Where variables are in play they are real, and an even root or logarithm of a negative is
    undefined; without variables it is the principal complex value.

    Raises:
        TooLarge: A value on the way is over a cap.
        Undefined: There is no value.
    """
    kind = node[0]
    if kind == "number":
        return node[1]
    if kind == "variable":
        return point[node[1]]
    mp = CONTEXTS.mp
    if kind in _CONSTANT_VALUES:
        return _CONSTANT_VALUES[kind](mp)
    if kind == "based":
        return _based(node)
    if kind in ("sum", "prod"):
        return _series(node, point)
    if kind == "opaque":
        return _opaque(node[1], evaluate(node[2], point))
    values = [evaluate(part, point) for part in node[1:]]
    try:
        return _checked(_OPERATIONS[kind](*values, real=bool(point)))
    except (ZeroDivisionError, ValueError, OverflowError) as error:
        raise Undefined(str(error)) from error


def _checked(value: Value) -> Value:
    if isinstance(value, Fraction):
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
            raise TooLarge("an exact value")
        return value
    if value != value:
        raise Undefined("not a number")
    # A complex value without an imaginary part has no order, which a real one has.
    return value.real if is_real(value) else value


def _based(node: Node) -> Value:
    base = node[2][1]
    if base.denominator != 1 or not 2 <= base <= 36:
        raise Undefined("a base")
    if any(int(digit) >= base for digit in node[1]):
        raise Undefined("a digit that the base does not have")
    return Fraction(int(node[1], int(base)))


def _opaque(name: str, value: Value) -> Value:
    """A fixed function without meaning: equal arguments, and they alone, give equal values."""
    mp = CONTEXTS.mp
    value = inexact(value)
    if abs(value) > MAX_MAGNITUDE:
        raise TooLarge("an argument")
    return mp.sin(value + ord(name)) + value / 3 + ord(name)


def _series(node: Node, point: dict[str, Fraction]) -> Value:
    """A finite sum or product, term by term; empty where it ends before it begins."""
    kind, index, *limits, term = node
    first, last = (_integer(evaluate(limit, point)) for limit in limits)
    if (last - first) * _size(term) >= MAX_TERMS:
        raise TooLarge("a sum")
    total: Value = Fraction(kind == "prod")
    step = _OPERATIONS["add" if kind == "sum" else "multiply"]
    for k in range(first, last + 1):
        total = _checked(step(total, evaluate(term, {**point, index: Fraction(k)})))
    return total


def _size(node: Node) -> int:
    """Parts of a tree."""
    return 1 + sum(_size(part) for part in node[1:] if isinstance(part, tuple))


def _power(base: Value, exponent: Value, *, real: bool) -> Value:
    mp = CONTEXTS.mp
    if not is_real(exponent) or abs(exponent) > MAX_MAGNITUDE:
        if is_real(exponent):
            raise TooLarge("an exponent")
        if not base:
            raise Undefined("a power of zero")
        return mp.exp(_small(exponent * mp.log(inexact(base))))
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        return _integer_power(base, int(exponent))
    if not base:
        if exponent > 0:
            return Fraction(0)
        raise Undefined("a power of zero")
    if not isinstance(base, Fraction) and not mp.isfinite(base):
        raise Undefined("a power of infinity")
    sign = 1
    if is_real(base) and base < 0:
        if isinstance(exponent, Fraction) and exponent.denominator % 2:
            sign, base = (-1 if exponent.numerator % 2 else 1), -base
        elif real:
            raise Undefined("a root of a negative")
    if exponent == Fraction(1, 2):
        return _sqrt(base, real=real)
    logarithm = mp.log(inexact(base)) * inexact(exponent)
    return sign * mp.exp(_small(logarithm))


def _integer_power(base: Value, exponent: int) -> Value:
    mp = CONTEXTS.mp
    if isinstance(base, Fraction):
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if base in (0, 1, -1) or bits * abs(exponent) <= MAX_BITS:
            return base**exponent
        base = inexact(base)
    if base and (not mp.isfinite(base) or abs(mp.mag(base) * exponent) > MAX_MAGNITUDE):
        raise TooLarge("a power")
    return base**exponent


def _small(value: Value) -> Value:
    """The argument of an exponential or trigonometric function, if it is not huge."""
    if not CONTEXTS.mp.isfinite(value) or abs(value) > MAX_MAGNITUDE:
        raise TooLarge("an argument")
    return value


def _sqrt(value: Value, *, real: bool) -> Value:
    if is_real(value) and value < 0 and real:
        raise Undefined("a root of a negative")
    if isinstance(value, Fraction) and value >= 0:
        top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
        if top * top == value.numerator and bottom * bottom == value.denominator:
            return Fraction(top, bottom)
    return CONTEXTS.mp.sqrt(inexact(value))


def _logarithm(value: Value, *, real: bool) -> Value:
    if not value or (real and is_real(value) and value < 0):
        raise Undefined("a logarithm")
    return Fraction(0) if value == 1 else CONTEXTS.mp.log(inexact(value))


def _factorial(value: Value, **_: Any) -> Value:
    n = _integer(value)
    if n < 0:
        raise Undefined("a factorial")
    if n > 5000:
        raise TooLarge("a factorial")
    return Fraction(math.factorial(n))


def _binomial(top: Value, bottom: Value, **_: Any) -> Value:
    n, k = _integer(top), _integer(bottom)
    if n < 0 or k < 0:
        raise Undefined("a binomial")
    if n > 5000:
        raise TooLarge("a binomial")
    return Fraction(math.comb(n, k))


def _integer(value: Value) -> int:
    if not isinstance(value, Fraction) or value.denominator != 1:
        raise Undefined("no integer")
    return int(value)


def _floor(value: Value, **_: Any) -> Value:
    """Rounded down; an inexact value a hair from an integer is that integer."""
    if isinstance(value, Fraction):
        return Fraction(math.floor(value))
    mp = CONTEXTS.mp
    if not is_real(value):
        raise Undefined("a floor")
    value = _small(value.real)
    nearest = mp.nint(value)
    return Fraction(int(nearest if values_equal(nearest, value) else mp.floor(value)))


def _of_mpmath(name: str) -> Callable[..., Value]:
    def apply(value: Value, **_: Any) -> Value:
        return getattr(CONTEXTS.mp, name)(_small(inexact(value)))

    return apply


_CONSTANT_VALUES: dict[str, Callable[[Any], Value]] = {
    "pi": lambda mp: +mp.pi,
    "e": lambda mp: +mp.e,
    "i": lambda mp: mp.mpc(0, 1),
    "infinity": lambda mp: mp.inf,
}


def _arithmetic(exact: Callable[[Any, Any], Any]) -> Callable[..., Value]:
    def apply(a: Value, b: Value, **_: Any) -> Value:
        if isinstance(a, Fraction) != isinstance(b, Fraction):
            a, b = inexact(a), inexact(b)
        return exact(a, b)

    return apply


def _no_value() -> Value:
    raise Undefined("two signs at once")


def _percent(value: Value, **_: Any) -> Value:
    return value / 100


_DIVIDE = _arithmetic(lambda a, b: a / b)
_OPERATIONS: dict[str, Callable[..., Value]] = {
    "add": _arithmetic(lambda a, b: a + b),
    "subtract": _arithmetic(lambda a, b: a - b),
    "multiply": _arithmetic(lambda a, b: a * b),
    "divide": _DIVIDE,
    "fraction": _DIVIDE,
    "power": _power,
    "sqrt": _sqrt,
    "root": lambda a, n, real: _power(a, _DIVIDE(Fraction(1), n), real=real),
    "absolute": lambda a, real: abs(a),
    "floor": _floor,
    "ceil": lambda a, real: -_floor(-a),
    "factorial": _factorial,
    "binomial": _binomial,
    "percent": _percent,
    "plus_minus": lambda a, b, real: _no_value(),
    "minus_plus": lambda a, b, real: _no_value(),
    "degrees": lambda a, real: inexact(a) * CONTEXTS.mp.pi / 180,
    "ln": _logarithm,
    "log": _logarithm,
    "log_base": lambda a, b, real: (
        inexact(_logarithm(a, real=real)) / inexact(_logarithm(b, real=real))
    ),
    "arcsin": _of_mpmath("asin"),
    "arccos": _of_mpmath("acos"),
    "arctan": _of_mpmath("atan"),
} | {
    name: _of_mpmath(name)
    for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "exp")
}
