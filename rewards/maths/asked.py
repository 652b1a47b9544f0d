"""What a problem says of the form of its answer: rounding, order, percent, unit, base.

All of it is read off the problem's text, which is ours, and only narrows or widens what counts
as the reference; a problem without such words, or no text at all, asks for nothing.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from rewards.maths.spelling import plain
from rewards.maths.units import CURRENCIES, Unit, known_unit
from rewards.problem import Problem

_ROUNDING = re.compile(
    r"\b(?:rounded\b|rounding\b|round\s+(?:your|the|to|off|up|down|it|each|all|any|\\?\$?\s*[0-9])|"
    r"to the nearest|nearest (?:tenth|hundredth|thousandth|integer|whole|"
    r"ten|hundred|thousand|cent|dollar|percent|degree)|decimal places?|significant (?:figures?|digits?)|"
    r"approximat\w*|correct to|estimate)",
    re.IGNORECASE,
)
_PLACES = re.compile(r"\b(one|two|three|four|five|six|[1-6])\s+decimal", re.IGNORECASE)
_NEAREST = re.compile(
    r"nearest\s+(ten-thousandth|thousandth|hundredth|tenth|integer|whole|unit|ten|hundred|"
    r"thousand|cent|dollar|percent|degree|0?\.[0-9]{1,6})",
    re.IGNORECASE,
)
_COUNTS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_STEPS = {
    "ten-thousandth": Fraction(1, 10**4), "thousandth": Fraction(1, 1000),
    "hundredth": Fraction(1, 100), "cent": Fraction(1, 100), "tenth": Fraction(1, 10),
    "ten": Fraction(10), "hundred": Fraction(100), "thousand": Fraction(1000),
}  # fmt: skip
_ORDER = re.compile(
    r"(?<!the )\b(?:answers?|arrange|list|give|write|enter|express|state)\b.{0,200}"
    r"\bin (?!any|either|no)(?:[a-z]+ ){1,3}order\b|\bin (?:this|that) order\b"
    r"|\border(?:ed)? (?:from|by|the)|\barrange\b|\bsort\b|\brespectively\b"
    r"|\bfirst (?:two|three|four|five|six|[2-9]) terms\b"
    r"|\bfrom (?:the )?(?:least|first|last|[a-z]+est) to\b"
    r"|\b([a-z])\([^()]{1,6}\)[\s,$]{1,6}(?:and[\s$]{1,3})?\1\([^()]{1,6}\)"  # f(1), f(2) and f(3)
    r"[\s,$]{1,6}(?:and[\s$]{1,3})?\1\(",
    re.IGNORECASE | re.DOTALL,
)
_SENTENCE_END = re.compile(r"[?!]|\.(?![0-9])")
_TASK = re.compile(
    r"\b(?:answers?|arrange|sort|list|give|write|enter|express|state|find|compute|determine|"
    r"calculate|evaluate)\b",
    re.IGNORECASE,
)
_PERCENT = re.compile(r"percent|%", re.IGNORECASE)
_WORD = r"[A-Za-z]+"
_UNIT = re.compile(
    rf"\b(?:in|how many|number of|nearest|units? of)\s+((?:(?:square|cubic)\s+)?{_WORD}"
    rf"(?:\s+per\s+{_WORD}|\s*/\s*{_WORD}|\s*\^\s*\{{?[23]\}}?)?)",
    re.IGNORECASE,
)
_ANY_UNIT = re.compile(rf"(?<=[0-9])\s*({_WORD})|\b({_WORD}s)\b")
_NOUN = re.compile(
    r"\b(?:which|what)\s+(?:(?:kind|type|sort)s?\s+of\s+)?([a-z]+(?:\s+[a-z]+)?)|\b(function|number)\b"
)
_AREA = re.compile(r"area|squared?\b|rectang|\^\s*\{?2", re.IGNORECASE)
_VOLUME = re.compile(r"volume|cubic|capacity|cubes?\b|\^\s*\{?3", re.IGNORECASE)
_POWER = {"length": 1, "length^2": 2, "length^3": 3}
_OPTION = re.compile(r"\(\s*([A-P])\s*\)\s*(.*?)(?=\(\s*[A-P]\s*\)|\n|$)")
_BASES = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "twelve": 12, "sixteen": 16, "binary": 2, "octal": 8, "decimal": 10, "hexadecimal": 16,
}  # fmt: skip
_BASE = re.compile(r"\bbase[\s$-]*(\w+)|\bin (binary|octal|hexadecimal)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """How a problem asks for its answer to be rounded.

    Attributes:
        place: Value of the last digit kept: 0.01 for hundredths; None if it does not say.
    """

    place: Fraction | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a problem asks for.

    Attributes:
        rounding: None if it does not ask for rounding.
        in_order: A list has an order, and may say a thing twice.
        percent: Whether it speaks of percent; None if there is no text.
        units: Units that it names, the one asked for first; where one is asked for, no other
            counts of its dimension.
        base: Of the numeral asked for, the last base that is named.
        nouns: What is asked for by "which" or "what kind of", which an answer may repeat.
        max_power: 2 for a problem that speaks of areas, 3 of volumes, else 1.
        options: Letters to choose from, each with its text.
    """

    rounding: Rounding | None = None
    in_order: bool = False
    percent: bool | None = None
    units: tuple[Unit, ...] = ()
    base: int | None = None
    nouns: frozenset[str] = frozenset()
    max_power: int = 3
    options: tuple[tuple[str, str], ...] = ()

    def factor(self, words: str) -> Fraction | None:
        """What an amount in this unit is times one in the unit asked for; None if it is neither.

        1 for a unit that is unknown, is named in the problem, or is of another dimension than
        all that are: nothing speaks against it then. Example: 1/100 for cents of dollars.
        """
        unit = known_unit(words)
        if unit is None:
            return Fraction(1)
        power = _POWER.get(unit[0], 0)
        asked_power = _POWER.get(self.units[0][0], 0) if self.units else 0
        if power > self.max_power or 0 < power < asked_power:
            return None  # a length or a volume for an area
        if unit in self.units:
            return Fraction(1)
        kinds = {kind for kind, _ in self.units}
        for rivals in ({"angle", "radian"}, CURRENCIES):
            if unit[0] in rivals - kinds and kinds & rivals:
                return None
        alike = [size for kind, size in self.units if kind == unit[0]]
        return unit[1] / alike[0] if alike else Fraction(1)


NOTHING = Asked()


@lru_cache(maxsize=1024)
def asked_by(prompt: str) -> Asked:
    """What the text of a problem asks for.

    Example: "What is the area in square feet, to the nearest tenth?" asks for a rounding to 1/10
    and square feet.
    """
    if not prompt:
        return NOTHING
    bases = [next(filter(None, groups)).lower() for groups in _BASE.findall(prompt)]
    base = bases[-1] if bases else ""
    return Asked(
        rounding=rounding_of(prompt),
        in_order=any(
            _TASK.search(sentence) and _ORDER.search(sentence)
            for sentence in _SENTENCE_END.split(prompt)
        ),
        percent=_PERCENT.search(prompt) is not None,
        units=_units(prompt),
        max_power=3 if _VOLUME.search(prompt) else 2 if _AREA.search(prompt) else 1,
        options=_options(prompt),
        nouns=frozenset(" ".join(map(" ".join, _NOUN.findall(prompt.lower()))).split()),
        base=int(base) if base.isdecimal() and len(base) < 3 else _BASES.get(base),
    )


def text_of(problem: Problem) -> str:
    """A problem's question, of a conversation all messages."""
    if isinstance(problem.prompt, str):
        return problem.prompt
    return "\n".join(message["content"] for message in problem.prompt)


def rounding_of(prompt: str) -> Rounding | None:
    """How a problem asks for rounding; None if it does not.

    Example: "to the nearest hundredth" and "to two decimal places" are `Rounding(place=1/100)`.
    """
    if not _ROUNDING.search(prompt):
        return None
    places = _PLACES.search(prompt)
    if places:
        count = places[1].lower()
        return Rounding(place=Fraction(1, 10 ** (_COUNTS.get(count) or int(count))))
    nearest = _NEAREST.search(prompt)
    if nearest:
        word = nearest[1].lower()
        return Rounding(place=Fraction(word) if "." in word else _STEPS.get(word, Fraction(1)))
    return Rounding()


def _options(prompt: str) -> tuple[tuple[str, str], ...]:
    """The options "(A) 2 (B) 3" of a problem, if their letters follow each other from A."""
    if "(A)" not in prompt or "(B)" not in prompt:
        return ()
    found = _OPTION.findall("\n".join(map(plain, prompt.splitlines())))
    letters = "".join(letter for letter, _ in found)
    return tuple(found) if "ABCDEFGHIJKLMNOP".startswith(letters) else ()


def _units(prompt: str) -> tuple[Unit, ...]:
    """The unit asked for last, and after it others that are named, each dimension's once."""
    text = plain(prompt)
    asked = [unit for words in _UNIT.findall(text) if (unit := _unit(words))]
    named = [unit for pair in _ANY_UNIT.findall(text) if (unit := known_unit(pair[0] or pair[1]))]
    if "$" in prompt and re.search(r"\\?\$\s?[0-9]", prompt):
        named.append(("money", Fraction(1)))
    found = asked[-1:]
    for unit in named:
        if unit[0] not in {other[0] for other in asked[-1:]} and unit not in found:
            found.append(unit)
    return tuple(found)


def _unit(words: str) -> Unit | None:
    """A unit of up to three words, or of the first of them: "feet of rope"."""
    return known_unit(words) or known_unit(words.rpartition(" per ")[0] or words.split()[0])
