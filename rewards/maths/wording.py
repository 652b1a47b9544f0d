"""Answers in words, and the letters of options, in the spelling of rewards/maths/spelling.py."""

import re

from rewards.maths.asked import Asked

_CHOSEN = re.compile(
    r"(?:(?:the )?(?:correct )?(?:answer|option|choice)(?: is)?:? ?)*[(\[]?([A-Za-z])(?:[)\]][.:,]?|[.:,])?"
    r"(?:\s(.*))?", re.IGNORECASE | re.DOTALL
)  # fmt: skip
_PUNCTUATION = re.compile(r"[.,;:!?'\"()\[\]{}]")
_ORDINAL = re.compile(r"(?<=[0-9])(?:st|nd|rd|th)\b")
_AND = re.compile(r",|\band\b|;|=")
_REMARK = re.compile(r"\([^()]*\)\W*$")
_ARTICLES = frozenset(("the", "a", "an", "is", "it", "its", "are", "they", "these", "those"))
_DENIALS = frozenset(("not", "no", "neither", "nor", "none", "or", "either", "both"))


def same_words(a: str, b: str, asked: Asked) -> bool:
    """Equal words without case, punctuation and articles; a list of names in any order.

    What was asked for may be repeated or not: "right triangle" to "What kind of triangle ...?".
    """
    b = b if "(" in a else _REMARK.sub("", b)
    first, second = ([_words(part) for part in _AND.split(text)] for text in (a, b))
    if not asked.in_order:
        first, second = sorted(first), sorted(second)
    if not _words(a) or len(first) != len(second):
        return False
    if first == second:
        return True
    bare = [
        [[word for word in words if word not in asked.nouns] for words in x]
        for x in (first, second)
    ]
    return all(map(all, bare)) and bare[0] == bare[1] and not _DENIALS & {*_words(a), *_words(b)}


def _words(text: str) -> list[str]:
    text = _PUNCTUATION.sub(" ", _ORDINAL.sub("", text.lower().replace("'s", "")))
    return [word for word in text.split() if word not in _ARTICLES]


def chosen_letter(text: str) -> str | None:
    """The one letter that is chosen: "(C)", "C. Paris", "option c"; None if it is not one."""
    match = _CHOSEN.fullmatch(text)
    if match is None:
        return None
    letter, rest = match[1], match[2] or ""
    bare = text.strip("()[].: ")
    if rest and (letter.islower() or re.search(r"(?<![A-Za-z])(?:[A-P]|or|and)(?![A-Za-z])", rest)):
        return None
    return letter.upper() if rest or len(bare) == 1 or match.start(1) > 0 else None
