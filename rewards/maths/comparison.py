"""Whether two answers that were read (rewards/maths/forms.py) say the same; None if it cannot be told.

Values are compared at several points (rewards/maths/identity.py), lists and sets without order, tuples
in order, intervals as sets of reals, equations up to a constant factor.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from rewards.maths.forms import Bracket, Form, Grid, Many, Relation, Scalar, Union, Without
from rewards.maths.identity import MIN_POINTS, agree, points_for
from rewards.maths.precision import Undefined, inexact, is_real, values_equal
from rewards.maths.regions import NotARegion, region
from rewards.maths.trees import Node, number, variables
from rewards.maths.values import evaluate

CLOSE_FRAC = 0.01
"""How far apart, of the larger, the sides of an "about equal" sign may be."""

_NAMING = frozenset(("add", "subtract", "multiply", "divide", "absolute", "sin", "cos", "tan"))
_FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}


def same(reference: Form, answer: Form) -> bool | None:
    """True if `answer` is `reference` in another form.

    Raises:
        TooLarge: A value on the way is over a cap.
    """
    found = _same_kind(reference, answer)
    if found is not None:
        return found
    if _is_set_of_reals(reference) or _is_set_of_reals(answer):
        try:
            return region(reference) == region(answer)
        except NotARegion:
            return False
    return _mixed(reference, answer)


def in_order(form: Form) -> Form:
    """A list as a tuple, for a problem that asks for an order; 1 < 2 < 3 is a list too."""
    if isinstance(form, Many) and form.kind in ("list", "and"):
        return Bracket(opening="(", closing=")", items=form.items)
    if isinstance(form, Relation) and set(form.signs) == {"<"} and len(form.signs) > 1:
        items = tuple(Scalar(node=side) for side in form.sides if side and not variables(side))
        return Bracket(opening="(", closing=")", items=items) if len(items) > 2 else form
    return form


def _same_kind(a: Form, b: Form) -> bool | None:
    match a, b:
        case Scalar(), Scalar():
            return agree(a.node, b.node)
        case Relation(), Relation():
            return _same_relation(a, b)
        case Bracket(), Bracket():
            if (a.opening, a.closing) == (b.opening, b.closing):
                return _in_order(a.items, b.items)
            return False
        case Grid(), Grid():
            if [len(row) for row in a.rows] != [len(row) for row in b.rows]:
                return False
            return _all(agree(x, y) for x, y in zip(_cells(a), _cells(b), strict=True))
        case Many(), Many():
            return _same_many(a, b)
    return None


def _mixed(a: Form, b: Form) -> bool | None:
    """Different forms of one thing: x = 5 and 5, (1, 2) and x = 1, y = 2, a column and a tuple."""
    match a, b:
        case (Scalar(), Relation()):
            return _states(b, a.node)
        case (Relation(), Scalar()):
            return _states(a, b.node)
        case (Many(), Bracket()):
            return _ordered(a, b)
        case (Bracket(), Many()):
            return _ordered(b, a)
        case (Grid(), Bracket()):
            return _vector(a, b)
        case (Bracket(), Grid()):
            return _vector(b, a)
        case (Many(kind="list"), Relation()) if all(map(_is_name, b.sides[:-1])):
            values = [Scalar(node=b.sides[-1])] * (len(b.sides) - 1)
            return _in_order(a.items, values)
        case (Many(), _):
            return bool(a.items) and _all(same(item, b) for item in a.items)
        case (_, Many()):
            return bool(b.items) and _all(same(a, item) for item in b.items)
    return False


def _same_many(a: Many, b: Many) -> bool | None:
    """Without order and repetition; a list of inequalities is a set of reals.

    A list that names each of its values, "b = 0, a = 1", has the order of the names, or its own.
    """
    if any(_is_inequality(item) for item in (*a.items, *b.items)):
        try:
            return region(a) == region(b)
        except NotARegion:
            return None
    if all(isinstance(item, Scalar) for item in a.items) and a.kind != "set":
        names = [_solved(item) if isinstance(item, Relation) else None for item in b.items]
        if len({name[0] for name in names if name}) == len(b.items) > 1:
            whole = Bracket(opening="(", closing=")", items=a.items)
            return _any((_in_order(a.items, b.items), _ordered(b, whole)))
    return _all((_contained(a.items, b.items), _contained(b.items, a.items)))


def _contained(items: Sequence[Form], others: Sequence[Form]) -> bool | None:
    return _all(_any(same(item, other) for other in others) for item in items)


def _in_order(first: Sequence[Form], second: Sequence[Form]) -> bool | None:
    if len(first) != len(second):
        return False
    return _all(same(x, y) for x, y in zip(first, second, strict=True))


def _ordered(many: Many, bracket: Bracket) -> bool | None:
    """A tuple without its brackets; "y = 2, x = 1" is (1, 2), in the order of the names."""
    if many.kind == "set" or bracket.opening != "(" or bracket.closing != ")":
        return False
    items = many.items
    if all(isinstance(item, Relation) and _solved(item) for item in items):
        items = tuple(sorted(items, key=lambda item: str(_solved(item))))  # type: ignore
    if any(isinstance(item, Bracket) for item in items):
        return False
    return _in_order(bracket.items, items)


def _vector(grid: Grid, bracket: Bracket) -> bool | None:
    if any(len(row) != 1 for row in grid.rows) or bracket.opening != "(":
        return False
    return _in_order([Scalar(node=row[0]) for row in grid.rows], bracket.items)


def _states(relation: Relation, node: Node) -> bool | None:
    """True if an equation says that something is `node`: x = 5, 2 + 3 = 5, 1/3 = 0.333..."""
    if any(sign not in ("=", "\\approx") for sign in relation.signs):
        return False
    sides = relation.sides[1:] if _is_name(relation.sides[0]) else relation.sides
    if _is_name(relation.sides[0]) and _named(relation.sides[0]) & _free(sides):
        return False  # x = x + 1 names nothing
    if "\\approx" not in relation.signs:
        return _all(agree(node, side) for side in sides if side is not None)
    close = all(_close(node, side) for side in sides if side is not None)
    return close and _any(agree(node, side) for side in sides if side is not None)


def _close(first: Node, second: Node) -> bool:
    try:
        a, b = inexact(evaluate(first, {})), inexact(evaluate(second, {}))
    except (Undefined, KeyError):
        return False
    return bool(abs(a - b) <= CLOSE_FRAC * max(abs(a), abs(b)))


def _same_relation(a: Relation, b: Relation) -> bool | None:
    if _is_inequality(a) != _is_inequality(b):
        return False
    if _is_inequality(a):
        return _same_inequality(a, b)
    first, second = _solved(a), _solved(b)
    if first and second:
        found = agree(first[1], second[1])
        functions = [name for name in (first[0], second[0]) if name[0] == "opaque"]
        if len(functions) == 2 and functions[0][1] != functions[1][1]:
            return False  # f(n) = n, g(n) = 1 is not f(n) = 1, g(n) = n
        if first[0] == second[0] or functions:
            return found
        if a.sides[0] is None or b.sides[0] is None:
            return found
    if a.signs == b.signs and _all(map(_same_side, a.sides, b.sides)):
        return True
    if None in a.sides or None in b.sides or len(a.sides) != 2 or len(b.sides) != 2:
        return False if len(a.sides) != len(b.sides) else None
    return _proportional(_difference(a), _difference(b), positive=False)


def _same_side(first: Node | None, second: Node | None) -> bool | None:
    return first is second if first is None or second is None else agree(first, second)


def _same_inequality(a: Relation, b: Relation) -> bool | None:
    names = {name for r in (a, b) for side in r.sides if side for name in variables(side)}
    if len(names) == 1:
        try:
            return region(a) == region(b)
        except NotARegion:
            pass
    if len(a.signs) != 1 or len(b.signs) != 1 or None in (*a.sides, *b.sides):
        return None
    flips = a.signs != b.signs
    if flips and _FLIPPED.get(a.signs[0]) != b.signs[0]:
        return False
    second = _difference(b)
    return _proportional(
        _difference(a), ("subtract", number(0), second) if flips else second, positive=True
    )


def _difference(relation: Relation) -> Node:
    return ("subtract", relation.sides[0], relation.sides[1])


def _proportional(first: Node, second: Node, *, positive: bool) -> bool | None:
    """True if first / second is one constant, not 0, at all points where both are defined."""
    names = sorted(variables(first) | variables(second))
    if not names:
        return False
    ratio: Any = None
    found = 0
    for point in points_for(names):
        try:
            a, b = evaluate(first, point), evaluate(second, point)
        except Undefined:
            continue
        if values_equal(a, Fraction(0)) or values_equal(b, Fraction(0)):
            return False
        here = (
            a / b
            if isinstance(a, Fraction) and isinstance(b, Fraction)
            else inexact(a) / inexact(b)
        )
        if ratio is not None and not values_equal(ratio, here):
            return False
        if positive and (not is_real(here) or here < 0):
            return False
        ratio, found = here, found + 1
    return True if found >= MIN_POINTS else None


def _solved(relation: Relation) -> tuple[Node, Node] | None:
    """(name, value) of an equation "x = value", either way around."""
    if relation.signs not in (("=",), ("\\approx",)):
        return None
    for name, value in (relation.sides, relation.sides[::-1]):
        if name is None and value is not None:
            return ("label",), value
        if name is None or value is None:
            continue
        is_free = name[0] == "variable" and name[1] not in variables(value)
        if is_free or name[0] == "opaque":
            return name, value
    return None


def _is_name(side: Node | None) -> bool:
    """A side that only names what the other is: x, f(2), AB, P(A), v/c, m + n, a word."""
    if side is None or side[0] in ("variable", "opaque"):
        return True
    return side[0] in _NAMING and all(part[0] == "variable" or _is_name(part) for part in side[1:])


def _named(side: Node | None) -> frozenset[str]:
    return frozenset() if side is None or side[0] == "opaque" else variables(side)


def _free(sides: Sequence[Node | None]) -> frozenset[str]:
    return frozenset().union(*(variables(side) for side in sides if side is not None))


def _is_inequality(form: Form) -> bool:
    return isinstance(form, Relation) and not set(form.signs) <= {"=", "\\approx"}


def _is_set_of_reals(form: Form) -> bool:
    return isinstance(form, Union | Without) or _is_inequality(form)


def _cells(grid: Grid) -> list[Node]:
    return [cell for row in grid.rows for cell in row]


def _all(found: Iterable[bool | None]) -> bool | None:
    """Three-valued and: False decides, then None."""
    answer: bool | None = True
    for each in found:
        if each is False:
            return False
        answer = None if each is None else answer
    return answer


def _any(found: Iterable[bool | None]) -> bool | None:
    answer: bool | None = False
    for each in found:
        if each:
            return True
        answer = None if each is None else answer
    return answer
