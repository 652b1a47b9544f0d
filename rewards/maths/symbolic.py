r"""The second opinion: math-verify on what rewards/maths/latex.py does not read.

math-verify's own time limit is an alarm signal, which works in a main thread only, so it is
given none; caps on the text keep sympy's work small. A yes counts only with equal values.
"""

import logging
import re
from typing import Any

MAX_LENGTH = 120
"""Characters of either answer."""

MAX_POINT_ERROR = 1e-9
"""Relative difference of values that still are equal."""

_LOGGER = logging.getLogger("math_verify")

MAX_EXPONENTS = 8
"""Sum of the numbers that brackets and variables are raised to; a bare number may have up to 99."""

# Work that grows without a bound in the length of the text: factorials, sums, long digits, limits.
_COSTLY = re.compile(
    r"!|[A-Za-z]{13}|[0-9]{12}|[0-9.]\s*[eE]\s*[-+]?\s*[0-9]{3}|[0-9]{4}\s*\}?\s*(?:\^|\*\*)"
    r"|\\sum|\\prod|binom|\\o?int|\\lim|\\infty"
)
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,}")
_POWER = re.compile(r"(?P<base>[^\s^*]?)\s*(?:\^|\*\*)\s*(?P<opened>[{(]?)")
_SINGLE = re.compile(r"-?(?:\\[A-Za-z]+|[0-9]+|.)?", re.DOTALL)
_VARIABLE = re.compile(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])")
_MAX_OPENED = 12
_MAX_VARIABLES = 4
_MAX_FACTORS = 20  # the parser of LaTeX takes seconds for a long product
_MAX_POWERS = 4
_READABLE = re.compile(r"\\(?:frac|sqrt|begin)|[-+*/^=]")


def affordable(text: str) -> bool:
    """True if math-verify may look at `text`: short, shallow, no huge numbers, few variables."""
    return (
        len(text) <= MAX_LENGTH
        and sum(map(text.count, "{([")) <= _MAX_OPENED
        and _PROSE.search(text) is None
        and _COSTLY.search(text) is None
        and len(set(_VARIABLE.findall(text))) <= _MAX_VARIABLES
        and len(_VARIABLE.findall(text)) <= _MAX_FACTORS
        and _small_powers(text)
    )


def _small_powers(text: str) -> bool:
    """No power in an exponent, and little to multiply out: 9^{9^{9}} and (a+b+c)^{99} are not."""
    total, powers = 0, list(_POWER.finditer(text))
    for power in powers:
        exponent, after = _exponent(text, power)
        if "^" in exponent or "**" in exponent or after.startswith(("^", "**")):
            return False
        digits = max((int(number) for number in re.findall("[0-9]+", exponent)), default=0)
        if power["base"].isdigit() and digits < 100:
            continue
        total += digits
    return len(powers) <= _MAX_POWERS and total <= MAX_EXPONENTS


def _exponent(text: str, power: re.Match[str]) -> tuple[str, str]:
    """What stands in the exponent, and what comes after it."""
    start = power.end()
    if not power["opened"]:
        single = _SINGLE.match(text, start)
        end = single.end() if single else start
        return text[start:end], text[end:].lstrip()
    depth = 1
    for end in range(start, len(text)):
        depth += (text[end] in "{(") - (text[end] in "})")
        if not depth:
            return text[start:end], text[end + 1 :].lstrip()
    return text[start:], ""


def symbolically_equal(reference: str, answer: str) -> bool | None:
    """What math-verify and the values say of two affordable texts; None if nothing can be said."""
    if not (affordable(reference) and affordable(answer)) or not _READABLE.search(
        answer + reference
    ):
        return None
    _LOGGER.setLevel(logging.ERROR)  # it warns at each call that it has no time limit
    from math_verify import parse, verify  # sympy takes a second to import, and is rarely needed

    try:
        first = parse(f"${reference}$", parsing_timeout=None, fallback_mode="no_fallback")
        second = parse(f"${answer}$", parsing_timeout=None, fallback_mode="no_fallback")
        if not first or not second or isinstance(first[0], str) or isinstance(second[0], str):
            return None
        if not verify(first, second, timeout_seconds=None):
            return False
        return _values_agree(first[0], second[0])
    except Exception:  # noqa: BLE001  the boundary: anything may come out of sympy on model text
        return None


def _values_agree(first: Any, second: Any) -> bool:
    """Both at three points, where they have values; other things must be the same objects."""
    from sympy import Expr

    if not (isinstance(first, Expr) and isinstance(second, Expr)):
        return bool(first == second)
    symbols = sorted(first.free_symbols | second.free_symbols, key=str)
    for shift in (0.7, 1.9, 3.3):
        point = {symbol: shift + 0.61 * i for i, symbol in enumerate(symbols)}
        a, b = (complex(e.subs(point).evalf(20)) for e in (first, second))
        if abs(a - b) > MAX_POINT_ERROR * max(abs(a), abs(b)):
            return False
    return True
