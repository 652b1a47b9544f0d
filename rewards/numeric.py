r"""Exact comparison of numbers as people and models write them.

Reads signs, decimals, thousands separators, fractions (3/4, \frac{3}{4}), scientific
notation, currency and percent signs. Left out on purpose: units, mixed numbers such as
"1 1/2", words, and any algebra.
"""

import re
from fractions import Fraction

MAX_LENGTH = 64
"""Characters; a longer answer is too large to be read as a number."""

MAX_EXPONENT = 308
"""Largest power of ten, either way, in scientific notation: about the range of a float."""

DECIMAL = (
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?"  # 8  1,234.5  0.25
    r"|(?<!\.)\.[0-9]+)"  # .25
)
"""Pattern of an unsigned decimal, ASCII digits only."""

EXPONENT = r"[eE][-+]?[0-9]+"
"""Pattern of the tail of 1.5e3."""

_NUMBER = re.compile(
    rf"""
    \$?\s*                                                    # math mode, or dollars
    (?P<sign>[-+]?)\s*
    (?:\\?[$\u20ac\u00a3]\s*)?                                # dollar, euro, pound
    (?:\\[dt]?frac\{{(?P<top>-?{DECIMAL})\}}\{{(?P<bottom>-?{DECIMAL})\}}
      |(?P<number>{DECIMAL}(?:{EXPONENT})?)(?:\s*/\s*(?P<divisor>{DECIMAL}))?)
    \s*(?:\\?%)?\s*\$?\.?
    """,
    re.VERBOSE,
)
_TIMES_TEN = re.compile(
    r"\s*(?:\\times|\\cdot|\u00d7|\*)\s*10\s*\^\s*(?:\{([-+]?[0-9]+)\}|([0-9]+))"
)
_POWER_OF_TEN = re.compile(r"[eE][-+]?0*([0-9]+)")
_MINUS_SIGNS = str.maketrans({"\u2212": "-", "\u2013": "-", "\ufe63": "-", "\uff0d": "-"})


def is_too_large(text: str) -> bool:
    """True if `text` is over a cap, so that `parse_number` will not read it."""
    text = text.strip()
    if len(text) > MAX_LENGTH:
        return True
    exponents = _POWER_OF_TEN.findall(_ascii_notation(text))
    return any(int(exponent) > MAX_EXPONENT for exponent in exponents)


def parse_number(text: str) -> Fraction | None:
    r"""The number that `text` is, all of it, or None if it is not one or is over a cap.

    Never raises. A percent sign is dropped, so "50%" is 50, as in the references of GSM8K
    and MATH; 0.5 is not 50%.

    Examples: "-1,234.50" is -2469/2, "\\frac{3}{4}" and "3/4" are 3/4, "$18." is 18,
    "1.5e3" and "1.5 \\times 10^3" are 1500, "3/0", "12,34" and "8 apples" are None.
    """
    if is_too_large(text):
        return None
    match = _NUMBER.fullmatch(_ascii_notation(text.strip()))
    if match is None:
        return None
    top = _fraction(match["top"] or match["number"])
    bottom = _fraction(match["bottom"] or match["divisor"] or "1")
    if bottom == 0:
        return None
    return (-top if match["sign"] == "-" else top) / bottom


def numbers_equal(a: str, b: str) -> bool:
    """True if both texts are numbers and the same one, exactly: "0.5" and "1/2" are equal."""
    first, second = parse_number(a), parse_number(b)
    return first is not None and first == second


def _ascii_notation(text: str) -> str:
    """`text` with plain minus signs and separators, and `x 10^n` written as `en`."""
    text = text.translate(_MINUS_SIGNS)
    text = text.replace("\\!", "").replace("{,}", ",").replace("\\,", ",")
    return _TIMES_TEN.sub(lambda match: f"e{match[1] or match[2]}", text)


def _fraction(decimal: str) -> Fraction:
    return Fraction(decimal.replace(",", ""))
