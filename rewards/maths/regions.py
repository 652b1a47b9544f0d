"""Sets of real numbers as joined intervals: from unions, inequalities and finite sets."""

from dataclasses import dataclass
from functools import reduce
from typing import Any

from rewards.maths.forms import Bracket, Form, Many, Relation, Scalar, Union, Without
from rewards.maths.precision import Undefined, inexact, is_real, values_equal
from rewards.maths.trees import Node, variables
from rewards.maths.values import evaluate

NAMES = ("variable", "opaque")
"""What an inequality may be about: x, or f(x) for a range."""


class NotARegion(Exception):
    """The form is not a set of reals with ends that have values."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """From `low` to `high`, each end in it or not."""

    low: Any
    high: Any
    has_low: bool
    has_high: bool

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Interval)
            and (self.has_low, self.has_high) == (other.has_low, other.has_high)
            and values_equal(self.low, other.low)
            and values_equal(self.high, other.high)
        )

    __hash__ = None  # type: ignore[assignment]  # equality is to a tolerance


def region(form: Form) -> list[Interval]:
    """The intervals of a form, apart from each other and in order.

    Examples: "(0,1) \\cup [1,2)" is one interval (0, 2), "x \\ne 3" two.

    Raises:
        NotARegion: It is not a set of reals.
        TooLarge: A value on the way is over a cap.
    """
    return _joined(_intervals(form))


def _intervals(form: Form) -> list[Interval]:
    match form:
        case Bracket(items=(Scalar() as low, Scalar() as high)):
            return _one(_end(low.node), _end(high.node), form.opening == "[", form.closing == "]")
        case Union():
            return [interval for part in form.parts for interval in _intervals(part)]
        case Without():
            return reduce(_without, _intervals(form.removed), _intervals(form.whole))
        case Many(items=()):
            return []
        case Many(kind="and" | "list") if _all_narrow(form.items):
            return reduce(_intersection, (_joined(_intervals(item)) for item in form.items))
        case Many():
            return [interval for item in form.items for interval in _intervals(item)]
        case Scalar():
            point = _end(form.node)
            return _one(point, point, True, True)
        case Relation():
            return _solutions(form)
    raise NotARegion


def _all_narrow(items: tuple[Form, ...]) -> bool:
    """True if each item is a condition: x > 0, or the whole that x != 3 is taken from."""
    return any(map(_is_chain, items)) and all(
        _is_chain(item) or isinstance(item, Bracket) for item in items
    )


def _is_chain(form: Form) -> bool:
    return isinstance(form, Relation) and "=" not in form.signs


def _solutions(relation: Relation) -> list[Interval]:
    """Of a chain around one bare variable: 1 < x <= 2, x > 3, x \\ne 4, x = 5."""
    of_absolute = _of_absolute(relation)
    if of_absolute is not None:
        return of_absolute
    places = [i for i, side in enumerate(relation.sides) if side and side[0] in NAMES]
    others = [side for i, side in enumerate(relation.sides) if i not in places]
    if len(places) != 1 or any(side is None or variables(side) for side in others):
        raise NotARegion
    everything = _everything()
    found = everything
    for i, sign in enumerate(relation.signs):
        if places[0] not in (i, i + 1):
            raise NotARegion
        is_left = places[0] == i
        bound = _end(relation.sides[i + 1 if is_left else i])
        if not is_left:
            sign = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}.get(sign, sign)
        found = _intersection(found, _half_line(sign, bound))
    return found


def _of_absolute(relation: Relation) -> list[Interval] | None:
    """|x| < c and |x| > c; None if it is neither."""
    first, *others = relation.sides
    if first is None or first[0] != "absolute" or first[1][0] not in NAMES or len(others) != 1:
        return None
    (sign,), bound = relation.signs, _end(others[0])
    opposite = {"<": ">", "\\le": "\\ge", ">": "<", "\\ge": "\\le"}.get(sign)
    if opposite is None:
        return None
    above, below = _half_line(sign, bound), _half_line(opposite, -bound)
    return _intersection(above, below) if opposite.startswith((">", "\\g")) else above + below


def _half_line(sign: str, bound: Any) -> list[Interval]:
    (whole,) = _everything()
    if sign in ("<", "\\le"):
        return _one(whole.low, bound, False, sign == "\\le")
    if sign in (">", "\\ge"):
        return _one(bound, whole.high, sign == "\\ge", False)
    if sign == "=":
        return _one(bound, bound, True, True)
    if sign == "\\ne":
        return [*_half_line("<", bound), *_half_line(">", bound)]
    raise NotARegion


def _everything() -> list[Interval]:
    infinity = evaluate(("infinity",), {})
    return [Interval(low=-infinity, high=infinity, has_low=False, has_high=False)]


def _end(node: Node | None) -> Any:
    if node is None or variables(node):
        raise NotARegion
    try:
        value = evaluate(node, {})
    except Undefined as error:
        raise NotARegion from error
    if not is_real(value):
        raise NotARegion
    return inexact(value)


def _one(low: Any, high: Any, has_low: bool, has_high: bool) -> list[Interval]:
    if low > high or (values_equal(low, high) and not (has_low and has_high)):
        return []
    return [Interval(low=low, high=high, has_low=has_low, has_high=has_high)]


def _joined(intervals: list[Interval]) -> list[Interval]:
    """Sorted, and those that touch or overlap made one."""
    found: list[Interval] = []
    for each in sorted(intervals, key=lambda interval: (interval.low, not interval.has_low)):
        last = found[-1] if found else None
        if last is None or not _touch(last, each):
            found.append(each)
            continue
        further = each.high > last.high and not values_equal(each.high, last.high)
        same_end = values_equal(each.high, last.high)
        found[-1] = Interval(
            low=last.low,
            has_low=last.has_low,
            high=each.high if further else last.high,
            has_high=each.has_high if further else last.has_high or (same_end and each.has_high),
        )
    return found


def _touch(first: Interval, second: Interval) -> bool:
    if values_equal(first.high, second.low):
        return first.has_high or second.has_low
    return bool(first.high > second.low)


def _intersection(first: list[Interval], second: list[Interval]) -> list[Interval]:
    found = []
    for a in first:
        for b in second:
            low = max((a, b), key=lambda i: (i.low, not i.has_low))
            high = min((a, b), key=lambda i: (i.high, i.has_high))
            found.extend(_one(low.low, high.high, low.has_low, high.has_high))
    return found


def _without(intervals: list[Interval], removed: Interval) -> list[Interval]:
    infinity = evaluate(("infinity",), {})
    before = _one(-infinity, removed.low, False, not removed.has_low)
    after = _one(removed.high, infinity, not removed.has_high, False)
    return _intersection(intervals, before + after)
