"""Answers with a notation of their own: numerals with a base, times of day, durations, dates.

Each function says whether two answers are the same in one notation, or None where they are not
both in it. Texts are in the spelling of rewards/maths/spelling.py.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from rewards.maths.units import Unit, known_unit

_BASED = re.compile(r"(-?)0*([0-9A-Z]*(?:\.[0-9A-Z]+)?)(?:_\{?([0-9]+|[a-z]+)\}?)?")
_BASES = {"two": "2", "three": "3", "five": "5", "eight": "8", "ten": "10", "sixteen": "16"}
_CLOCK = re.compile(
    r"([0-9]{1,2})(?:\s*:\s*([0-9]{2}))?(?:\s*:\s*([0-9]{2}))?\s*(?:([ap])\.?\s*m\.?)?",
    re.IGNORECASE,
)
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)\.?(?:\s*,?\s*(?:and\s+)?(?=[0-9])|$)")
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
_PLAIN = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?")
_MAX_DURATION = 64


def same_numeral(a: str, b: str, base: int | None) -> bool | None:
    """Numerals with a base, digit by digit: it may be missing on one side, not differ.

    `base` is the one that the problem asks for. Example: "1010_2" is "(1010)_{two}" and "1010".
    """
    first, second = (_BASED.fullmatch(_bare(text)) for text in (a, b))
    if not (first and second and (first[3] or second[3])):
        return None
    bases = {_BASES.get(match[3], match[3]) for match in (first, second) if match[3]}
    if base is not None and (first[3] is None or second[3] is None):
        bases.add(str(base))
    highest = max((int(digit, 36) for digit in second[2] if digit != "."), default=0)
    fits = all(name.isdigit() and highest < int(name) for name in bases)
    return len(bases) == 1 and fits and first.group(1, 2) == second.group(1, 2)


def _bare(text: str) -> str:
    """Without spaces, and without brackets around the digits."""
    return re.sub(r"^\(([0-9A-Z.-]+)\)(?=_)", r"\1", text.replace(" ", ""))


def same_clock(a: str, b: str) -> bool | None:
    """Times of day, by the half of the day where both tell it: 20:13 is 8:13 pm.

    Without "am" or "pm" on either side they are no times but ratios.
    """
    first, second = _CLOCK.fullmatch(a), _CLOCK.fullmatch(b)
    if not (first and second and (first[4] or second[4])):
        return None
    minutes = [_minutes(match) for match in (first, second)]
    if None in minutes or (first[3] or "00") != (second[3] or "00"):
        return False
    tell = [bool(match[4]) or int(match[1]) > 12 for match in (first, second)]
    day = 24 * 60 if all(tell) else 12 * 60
    return (minutes[0] - minutes[1]) % day == 0  # type: ignore[operator]


def _minutes(match: re.Match[str]) -> int | None:
    hour, minute = int(match[1]), int(match[2] or 0)
    if hour > 24 or minute > 59 or (match[4] and not 1 <= hour <= 12):
        return None
    if match[4]:
        hour = hour % 12 + (12 if match[4].lower() == "p" else 0)
    return 60 * hour + minute


def same_duration(a: str, b: str, units: Sequence[Unit]) -> bool | None:
    """Amounts in several units: 2 hours 15 minutes is 2 h 15 min and 135 minutes.

    A reference `a` without a unit is in the one of `units` that fits.
    """
    second = _parts(b)
    for kind, size in units:
        if second and second[0] == kind and second[2] > 1 and _PLAIN.fullmatch(a):
            return Fraction(a) * size == second[1]
    first = _parts(a)
    if first is None or second is None or max(first[2], second[2]) < 2:
        return None
    return first[:2] == second[:2]


def _parts(text: str) -> tuple[str, Fraction, int] | None:
    """(dimension, amount, number of parts) of "5 ft 7 in"; None if it is no such thing."""
    text = text.lower().strip()
    if len(text) > _MAX_DURATION:
        return None
    found = list(_PART.finditer(text))
    if not found or "".join(match[0] for match in found) != text:
        return None
    units = [known_unit(match[2]) for match in found]
    kinds = {unit[0] if unit else "" for unit in units}
    if len(kinds) != 1 or "" in kinds:
        return None
    amount = sum(Fraction(m[1]) * unit[1] for m, unit in zip(found, units, strict=True) if unit)
    return kinds.pop(), Fraction(amount), len(found)


def same_date(a: str, b: str) -> bool | None:
    """Dates in words: 4 April is April 4th."""
    first, second = _date(a), _date(b)
    return None if first is None or second is None else first == second


def _date(text: str) -> list[str] | None:
    words = re.findall(r"[a-z]+|[0-9]+", re.sub(r"(?<=[0-9])(?:st|nd|rd|th)\b", "", text.lower()))
    words = [word for word in words if word not in ("the", "of", "on")]
    return sorted(words) if any(word in _MONTHS for word in words) and len(words) > 1 else None
