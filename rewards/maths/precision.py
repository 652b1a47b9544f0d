"""Numbers exact or to 40 digits: how they are kept, and when two of them are equal."""

import threading
from fractions import Fraction
from typing import Any

import mpmath

DIGITS = 40
"""Decimal digits of inexact values."""

TOLERANCE = "1e-25"
"""Relative difference up to which inexact values are equal."""

Value = Any  # Fraction, or a number of the mpmath context


class TooLarge(Exception):
    """A value over a size cap."""


class Undefined(Exception):
    """No value here: a division by zero, or a root or logarithm of a negative at a point."""


class _Contexts(threading.local):
    """One mpmath context a thread: some of its functions change its precision while they run."""

    def __init__(self) -> None:
        self.mp = mpmath.MPContext()
        self.mp.dps = DIGITS


CONTEXTS = _Contexts()


def values_equal(first: Value, second: Value) -> bool:
    """Exactly for rationals, else to `TOLERANCE` of the larger."""
    if isinstance(first, Fraction) and isinstance(second, Fraction):
        return first == second
    first, second = inexact(first), inexact(second)
    if first == second:
        return True
    mp = CONTEXTS.mp
    if not (mp.isfinite(first) and mp.isfinite(second)):
        return False
    scale = max(abs(first), abs(second))
    if not first or not second:  # a cancellation that leaves rounding is zero
        return bool(scale < mp.mpf(10) ** (-DIGITS + 8))
    return bool(abs(first - second) <= scale * mp.mpf(TOLERANCE))


def is_real(value: Value) -> bool:
    """True for a rational or real value, infinities included."""
    return isinstance(value, Fraction) or not getattr(value, "imag", 0)


def inexact(value: Value) -> Value:
    """A value as a number of this thread's mpmath context."""
    if isinstance(value, Fraction):
        mp = CONTEXTS.mp
        return mp.mpf(value.numerator) / value.denominator
    return value
