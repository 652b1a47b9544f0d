"""Numbers in English words: "fifty-six", "negative twelve", "one million", "three quarters"."""

import re
from fractions import Fraction

_SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_VALUES = {word: value for value, word in enumerate(_SMALL)}
_VALUES |= {word: 10 * value for value, word in enumerate(_TENS, start=2)}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6,
          "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10, "hundredth": 100}  # fmt: skip
_PARTS |= {f"{word}s": value for word, value in _PARTS.items() if value > 2}
_SIGNS = ("minus", "negative")
_KNOWN = [*_VALUES, *_SCALES, *_PARTS, *_SIGNS, "hundred", "dozen"]
_RUN = re.compile(
    rf"\b(?:{'|'.join(_KNOWN)})\b(?:(?:[\s-]+|\s+and\s+(?:an?\s+)?)(?:{'|'.join(_KNOWN)})\b)*",
    re.IGNORECASE,
)
_MAX_WORDS = 16


def read_words(text: str) -> tuple[Fraction, str] | None:
    """(value, what follows) of a text that begins with a number in words; None if it does not.

    Examples: "five dollars" is (5, "dollars"), "one hundred and five" 105, "two thirds" 2/3,
    "three and a half" 7/2; "half" and "third" alone are no numbers.
    """
    match = _RUN.match(text)
    if match is None:
        return None
    value = _value(re.findall(r"[a-z]+", match[0].lower()))
    return None if value is None else (value, text[match.end() :])


def number_words(text: str) -> list[str]:
    """Every run of number words in a text, in order."""
    return [match[0] for match in _RUN.finditer(text) if read_words(match[0])]


def _value(words: list[str]) -> Fraction | None:
    words = [word for word in words if word not in ("and", "a", "an")]
    if len(words) > _MAX_WORDS:
        return None
    if words[0] in _SIGNS:
        value = _value(words[1:]) if words[1:] else None
        return None if value is None else -value
    if words[-1] in _PARTS:
        return _with_part(words[:-1], Fraction(1, _PARTS[words[-1]]))
    return _whole(words)


def _with_part(words: list[str], part: Fraction) -> Fraction | None:
    """two thirds; three and a half: a half after anything is added, other parts are counted."""
    if not words:
        return None
    count = _whole(words)
    if count is None:
        return None
    return count + part if part == Fraction(1, 2) and count > 1 else count * part


def _whole(words: list[str]) -> Fraction | None:
    total, group, last = 0, 0, 0  # `last` is the size of the word before
    for word in words:
        if word in _VALUES:
            value = _VALUES[word]
            if 0 < last < 20 or (value >= 10 and 0 < last < 100):
                return None  # "two three" is no number
            group, last = group + value, value or 1
        elif word in ("hundred", "dozen"):
            group, last = max(group, 1) * (100 if word == "hundred" else 12), 100
        elif word in _SCALES:
            total, group, last = total + max(group, 1) * _SCALES[word], 0, 1000
        else:
            return None
    return Fraction(total + group)
