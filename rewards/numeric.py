r"""Exact comparison of numbers as people and models write them.

Reads signs, decimals, thousands separators, fractions (3/4, \frac{3}{4}), mixed numbers
(1 1/2), scientific notation, currency, percent signs, words such as "million", and a unit
or noun after the number. Left out on purpose: any algebra.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from rewards.maths.number_words import read_words
from rewards.maths.spelling import plain
from rewards.maths.units import is_unit_phrase, known_unit, same_amount

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
    (?P<sign>[-+]?)\s*
    (?:(?P<currency>[$\u20ac\u00a3])\s*(?P<inner>-?))?
    (?:(?:(?P<whole>[0-9]+)\s*)?\\frac\s*(?:\{{\s*(?P<top>-?{DECIMAL})\s*\}}|(?P<top1>[0-9]))
         \s*(?:\{{\s*(?P<bottom>-?{DECIMAL})\s*\}}|(?P<bottom1>[0-9]))
      |(?P<mixed>[0-9]+)[ ]+(?P<over>[0-9]+)\s*/\s*(?P<under>[0-9]+)
      |(?P<number>{DECIMAL}(?:{EXPONENT})?)(?:\.?\s*/\s*(?P<divisor>{DECIMAL}))?)
    (?:\s*(?P<percent>%|percent\b))?
    (?P<tail>.*)
    """,
    re.VERBOSE | re.DOTALL,
)
_TIMES_TEN = re.compile(
    r"\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*(?:\{\s*([-+]?[0-9]+)\s*\}|([-+]?[0-9]+))"
)
_POWER_OF_TEN = re.compile(r"[eE][-+]?0*([0-9]+)")
_MULTIPLIERS = {
    "dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6,
    "billion": 10**9, "trillion": 10**12,
}  # fmt: skip
_COUNTING = re.compile(r"^\s+(?:more|fewer|less|of (?:an?|the)\s.*$)", re.DOTALL)
_CURRENCIES = {"$": "dollars", "\u20ac": "euros", "\u00a3": "gbp"}


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number with what stood around it.

    Example: "$1.50" is `Quantity(value=Fraction(3, 2), unit="dollars", is_percent=False)`,
    "12.5%" has the value 25/2 and `is_percent`.
    """

    value: Fraction
    unit: str = ""
    is_percent: bool = False
    decimals: int | None = None
    """Digits after the point where it is a plain decimal; None for fractions."""


def is_too_large(text: str) -> bool:
    """True if `text` is over a cap, so that `parse_number` will not read it."""
    text = text.strip()
    if len(text) > MAX_LENGTH:
        return True
    exponents = _POWER_OF_TEN.findall(_scientific(plain(text)))
    return any(int(exponent) > MAX_EXPONENT for exponent in exponents)


def parse_number(text: str) -> Fraction | None:
    r"""The number that `text` is, all of it, or None if it is not one or is over a cap.

    Never raises. A percent sign is dropped, so "50%" is 50, as in the references of GSM8K
    and MATH; so are units, see `parse_quantity`.

    Examples: "-1,234.50" is -2469/2, "\\frac{3}{4}" and "3/4" are 3/4, "1 1/2" is 3/2, "$18."
    is 18, "1.5e3" and "1.5 \\times 10^3" are 1500, "8 apples" is 8, "3/0" and "12,34" are None.
    """
    quantity = parse_quantity(text)
    return None if quantity is None else quantity.value


def parse_quantity(text: str) -> Quantity | None:
    """The number that `text` is with its unit, or None; never raises."""
    text = text.strip()
    return None if len(text) > MAX_LENGTH else plain_quantity(plain(text))


def plain_quantity(text: str) -> Quantity | None:
    """The same for a text that rewards/maths/spelling.py has written."""
    if len(text) > MAX_LENGTH:
        return None
    text = _scientific(text)
    match = _NUMBER.fullmatch(text)
    if match is None:
        return _in_words(text)
    if any(int(power) > MAX_EXPONENT for power in _POWER_OF_TEN.findall(match["number"] or "")):
        return None
    value = _value(match)
    factor, unit = _tail(match["tail"])
    if value is None or unit is None:
        return None
    if factor != 1:
        value *= factor
    if (match["sign"] == "-") != (match["inner"] == "-"):
        value = -value
    is_plain = match["number"] and not match["divisor"] and factor == 1
    return Quantity(
        value=value,
        unit=_CURRENCIES.get(match["currency"] or "", unit),
        is_percent=bool(match["percent"]),
        decimals=_decimals(match["number"]) if is_plain else None,
    )


def numbers_equal(a: str, b: str) -> bool:
    """True if both texts are numbers and the same one, exactly: "0.5" and "1/2" are equal."""
    first, second = parse_number(a), parse_number(b)
    return first is not None and first == second


def quantities_equal(reference: Quantity, answer: Quantity) -> bool:
    """True if `answer` is the same amount, units and percent signs being allowed to be missing.

    "50%" is 50, for a question that asks for percent, and 1/2. A unit counts where both have
    one that is known: "5 m" is "500 cm", and neither "5 cm" nor "5 s".
    """
    units = reference.unit, answer.unit
    if reference.is_percent != answer.is_percent and any(known_unit(unit) for unit in units):
        return False
    if same_amount(reference.value, reference.unit, answer.value, answer.unit):
        return True
    if reference.is_percent == answer.is_percent:
        return False
    percent, other = (reference, answer) if reference.is_percent else (answer, reference)
    return percent.value / 100 == other.value


def _in_words(text: str) -> Quantity | None:
    words = read_words(text)
    factor, unit = _tail(words[1]) if words else (1, None)
    if words is None or unit is None:
        return None
    return Quantity(value=words[0] * factor, unit=unit)


def _value(match: re.Match[str]) -> Fraction | None:
    if match["number"] and not match["divisor"]:
        return _fraction(match["number"])
    if match["number"]:
        top, bottom = _fraction(match["number"]), _fraction(match["divisor"])
    else:
        top = _fraction(match["top"] or match["top1"] or match["over"])
        bottom = _fraction(match["bottom"] or match["bottom1"] or match["under"])
    whole = match["whole"] or match["mixed"]
    if not bottom or (whole and not 0 < top < bottom):
        return None
    return top / bottom + Fraction(whole) if whole else top / bottom


def _tail(text: str) -> tuple[int, str | None]:
    """(factor, unit) of what follows a number; the unit is None if the text says more."""
    if not text:
        return 1, ""
    words = _COUNTING.sub("", text).strip()
    if not words:
        return 1, ""
    first, _, rest = words.partition(" ")
    if first.lower() in _MULTIPLIERS:
        factor, unit = _tail(rest)
        return factor * _MULTIPLIERS[first.lower()], unit
    if words == "\u00b0" or is_unit_phrase(words, spaced=text[0] == " "):
        return 1, words
    return 1, None


def _scientific(text: str) -> str:
    """`text` with `x 10^n` written as `en`."""
    if "10" not in text:
        return text
    return _TIMES_TEN.sub(lambda match: f"e{match[1] or match[2]}", text)


def _decimals(number: str) -> int | None:
    if "e" in number.lower():
        return None
    return len(number.partition(".")[2])


def _fraction(decimal: str) -> Fraction:
    digits = decimal.replace(",", "")
    return Fraction(int(digits)) if digits.isdigit() else Fraction(digits)
