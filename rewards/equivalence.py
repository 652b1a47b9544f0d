r"""Whether an answer is the reference in another spelling: numbers, words, choices, formulas.

The first of these that can tell decides: equal characters, numerals with a base, exact numbers
(rewards/numeric.py), a choice letter, times and dates (rewards/maths/notations.py), forms
compared by their values (rewards/maths/comparison.py), words, math-verify
(rewards/maths/symbolic.py). Nothing here is unbounded in what the text asks for; long or huge
answers raise `TooLarge`.
"""

import re
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from rewards.maths.asked import NOTHING, Asked, Rounding
from rewards.maths.comparison import in_order, same
from rewards.maths.form_reader import read_form
from rewards.maths.forms import Form, Scalar
from rewards.maths.latex import Unreadable
from rewards.maths.normal import as_tuple, different_units, spelled, without_names
from rewards.maths.notations import same_clock, same_date, same_duration, same_numeral
from rewards.maths.precision import DIGITS, TooLarge, Undefined, inexact, is_real
from rewards.maths.symbolic import symbolically_equal
from rewards.maths.trees import Node, operations
from rewards.maths.units import is_unit_phrase, known_unit
from rewards.maths.values import evaluate
from rewards.maths.wording import chosen_letter, same_words
from rewards.numeric import Quantity, plain_quantity, quantities_equal

MAX_LENGTH = 1000
"""Characters of an answer; a longer one is too large."""

MIN_DECIMALS = 2
"""Digits after the point of a rounded answer where the problem does not say how many."""

_CHOICE = re.compile(r"\(?([A-P])\)?")
_LABELLED = re.compile(r"\(?[A-P](?:\)|\.|:)[.:]?\s*(\S.*)", re.DOTALL)
_TAIL = re.compile(
    r"(?P<before>.*(?:[^\s\\A-Za-z_^{(\[+*/=<>,;:-]|\\[A-Za-z]+(?=\s)))(?P<space>\s*)"
    r"(?P<unit>[A-Za-z][A-Za-z. /]*(?:\^?\s*\{?[23]\}?)?)",
    re.DOTALL,
)
_LAST_SIDE = re.compile(r"=|\\approx")
_ROMAN = re.compile(r"\\(?:text|mbox|mathrm|textrm|textbf|,|;| )|~")
_FALL = re.compile(r"decrease|loss|drop|decline|reduction|lower|below|less")
_MONEY = re.compile(r"[$\u20ac\u00a3]\s?(?=[0-9.])")
_GROUPED = re.compile(r"\{(\w)\}")
_LISTED = re.compile(r"[0-9)}];")
_EULER = re.compile(r"(?<![A-Za-z\\])e(?![A-Za-z])")
_SCIENTIFIC = re.compile(r"(?<=[0-9])e(?=[-+]?[0-9])")


def equivalent(reference: str, answer: str, *, asked: Asked = NOTHING) -> bool | None:
    r"""True if `answer` says what `reference` says; None if `answer` cannot be read at all.

    Examples: "\frac12" is "0.5"; "x^2-1" is "(x-1)(x+1)"; "(1,2)" is not "(2,1)"; "{1,2}" is
    "2, 1"; "0.333" is "1/3" only where rounding is `asked` for.

    Raises:
        TooLarge: `answer` is over a size cap.
    """
    if len(answer) > MAX_LENGTH:
        raise TooLarge("an answer")
    first = spelled(reference)
    if first[:1] == "(" or "matrix" in first:
        answer = as_tuple(answer)
    a, b = without_names(first, spelled(answer))
    if not b:
        return None
    if different_units(reference, answer):
        return False
    if _GROUPED.sub(r"\1", a.replace(" ", "")) == _GROUPED.sub(r"\1", b.replace(" ", "")):
        return True
    if a.isalpha() and len(a) > 1 and a.lower() == b.lower():
        return True  # Yes and yes; as letters they would be variables
    numeral = same_numeral(a, b, asked.base)
    if numeral is not None:
        return numeral
    exact = _as_numbers(a, b, reference, asked)
    if exact is not None:
        return exact
    choice = _CHOICE.fullmatch(a)
    if choice:
        chosen = chosen_letter(b)
        if chosen is None and (option := dict(asked.options).get(choice[1])):
            return equivalent(option, answer, asked=replace(asked, options=()))
        return chosen == choice[1] if chosen else _by_form(a, b, asked, reference)
    if asked.options and (option := dict(asked.options).get(chosen_letter(b) or "")):
        return equivalent(reference, option, asked=replace(asked, options=()))
    for decided in (same_clock(a, b), same_duration(a, b, asked.units), same_date(a, b)):
        if decided is not None:
            return decided
    labelled = _LABELLED.fullmatch(b)
    if labelled and _by_form(a, labelled[1], asked, reference):
        return True
    return _by_form(a, b, asked, reference)


def is_choice(reference: str) -> bool:
    """True if a reference is the letter of an option, as "C" and "\\text{(C)}" are."""
    return _CHOICE.fullmatch(spelled(reference)) is not None


def _as_numbers(a: str, b: str, reference: str, asked: Asked) -> bool | None:
    """Exactly, where both are plain numbers; None if one is not."""
    first = plain_quantity(a)
    second = plain_quantity(b) if first else None
    if first is None or second is None:
        return None
    if first.value < 0 and _FALL.fullmatch(second.unit):
        second = replace(second, value=-second.value)  # 4% decrease for -4%
    is_letter = len(first.unit) == 1 and first.unit.islower() and "\\" in reference
    if is_letter and not second.unit and not _ROMAN.search(reference):
        return False  # \frac{37}{4} m: m is a variable there
    if second.is_percent and not first.is_percent and asked.percent is False:
        return first.value == second.value / 100
    if second.unit and not known_unit(first.unit):
        factor = asked.factor(second.unit)
        if factor != 1:
            return factor is not None and first.value == factor * second.value
    if quantities_equal(first, second):
        return True
    if asked.rounding is None or _contradict(first.unit, second.unit):
        return False
    return _rounded(first.value, second, first, asked.rounding)


def _contradict(unit: str, other: str) -> bool:
    """True if both are known units, and not the same."""
    known, known_other = known_unit(unit), known_unit(other)
    return known is not None and known_other is not None and known != known_other


def _rounded(
    exact: Fraction, answer: Quantity, reference: Quantity | None, rounding: Rounding
) -> bool:
    """True if one of the two is the other, rounded as asked for."""
    for value, given in ((exact, answer), (answer.value, reference)):
        if given is None or given.decimals is None:
            continue
        step, place = Fraction(1, 10**given.decimals), rounding.place
        if place is not None:
            finer = answer.decimals is not None and Fraction(1, 10**answer.decimals) < place
            if place < step or (finer and answer.value % place):
                continue  # 28.57 is not yet rounded to the integer that was asked for
            step = place
        elif (
            given is answer
            and given.decimals < MIN_DECIMALS
            and (
                reference is None
                or reference.decimals is None
                or given.decimals < reference.decimals
            )
        ):
            continue
        if abs(value - given.value) <= step / 2:
            return True
    return False


def _by_form(a: str, b: str, asked: Asked, reference: str) -> bool | None:
    """Compared as formulas, as written and then without units; else as words or by math-verify."""
    first, second = _form(a), _form(b)
    if first and second:
        if asked.in_order or _LISTED.search(a):
            first, second = in_order(first), in_order(second)
        found = same(first, second)
        if not found and "log" in a + b:
            found = same(_common_log(first), _common_log(second)) or found
        if found:
            return True
        if asked.rounding is not None and _rounded_form(first, b, asked.rounding):
            return True
        if not found and _EULER.search(a) and _SCIENTIFIC.search(b):
            return _by_form(a, _SCIENTIFIC.sub(" e", b), asked, reference)  # 6e-10 has the number e
        if not found and "\u00b0" in a and "\u00b0" not in b:
            return _by_form(a.replace("\u00b0", ""), b, asked, reference)
        if found is False:
            return _without_units(a, b, asked, reference) or False
    unitless = _without_units(a, b, asked, reference)
    if unitless:
        return True
    if first and second is None:
        words = a.replace(" ", "").isalpha() and same_words(a, b, asked)  # n! is not a word
        return words or symbolically_equal(a, b) or unitless
    if first is None:
        return same_words(a, b, asked) or symbolically_equal(a, b) or False
    return symbolically_equal(a, b)


@lru_cache(maxsize=256)  # a reference meets many answers, and voting compares each with each
def _form(text: str) -> Form | None:
    try:
        return read_form(_MONEY.sub("", text))
    except Unreadable:
        return None


def _without_units(a: str, b: str, asked: Asked, reference: str) -> bool | None:
    """The same without the units at the ends, where they do not contradict each other."""
    first, unit = _split_unit(a)
    second, other = _split_unit(b)
    if not unit and not other:
        return None
    if unit and len(unit) == 1 and not other and not _ROMAN.search(reference):
        return None
    left, right = _form(first), _form(second)
    if left is None or right is None:
        return None
    if not unit and other in ("rad", "radians") and ("angle", 1) in asked.units:
        unit = "degrees"
    turned = {unit, other} & {"radians", "rad"} and {unit, other} & {"degrees", "degree"}
    if turned and isinstance(left, Scalar) and isinstance(right, Scalar):
        left, right = (
            Scalar(node=("degrees", form.node) if name.startswith("deg") else form.node)
            for form, name in ((left, unit), (right, other))
        )
    elif _contradict(unit, other):
        return None
    elif other and not known_unit(unit) and asked.factor(other) != 1:
        return False
    return same(left, right)


def _split_unit(text: str) -> tuple[str, str]:
    if text.endswith("%"):
        return text[:-1], "percent"
    if text.endswith("\u00b0"):
        return text[:-1], "degrees"
    match = _TAIL.fullmatch(text)
    if match and is_unit_phrase(match["unit"], spaced=bool(match["space"])):
        return match["before"].strip(), match["unit"].strip()
    first, _, last = text.rpartition(" ")
    if len(last) > 1 and first and known_unit(last):
        return first, last  # 7.6Z eV
    match = re.fullmatch(r"\$\s*(.+)", text, re.DOTALL)
    return (match[1], "dollars") if match else (text, "")


def _rounded_form(reference: Form, answer: str, rounding: Rounding) -> bool:
    """A decimal for an exact value: 3.14 for pi, to the place that was asked for."""
    quantity = plain_quantity(spelled(_LAST_SIDE.split(answer)[-1]))
    if quantity is None or not isinstance(reference, Scalar):
        return False
    try:
        value = evaluate(reference.node, {})
    except (Undefined, KeyError):
        return False
    if not is_real(value):
        return False
    value = inexact(value)
    if abs(value) > 10 ** (DIGITS // 2) or value - value != 0:
        return False
    exact = Fraction(int(value * 10**20), 10**20)
    return _rounded(exact, quantity, None, rounding)


def _common_log(form: Form) -> Form:
    """The form with log read as the logarithm to base ten."""
    if isinstance(form, Scalar) and "log" in operations(form.node):
        return Scalar(node=_base_ten(form.node))
    return form


def _base_ten(node: Node) -> Node:
    parts = tuple(_base_ten(p) if isinstance(p, tuple) else p for p in node[1:])
    return ("log_base", *parts, ("number", Fraction(10))) if node[0] == "log" else (node[0], *parts)
