"""Whether two expressions are equal: their values at several points.

They are equal if they agree at every point of a fixed list where both are defined; one point
where they differ is a proof that they are not.
"""

from fractions import Fraction

from rewards.maths.precision import Undefined, values_equal
from rewards.maths.trees import Node, operations, variables
from rewards.maths.values import evaluate

MIN_POINTS = 3
"""Points where both expressions must be defined before they can be called equal."""

_STEPS = frozenset(("floor", "ceil", "factorial", "binomial"))
_WHOLE = frozenset("nmkNMKpqrjl")  # with such steps these are whole numbers

# Rationals of both signs and no special relation; the first points are positive. Denominators
# are powers of two, so that (-1)^n is undefined there and goes to the integers.
_REAL_POINTS = (
    (Fraction(7, 2), Fraction(13, 4), Fraction(17, 8), Fraction(23, 16), Fraction(29, 8)),
    (Fraction(3, 8), Fraction(5, 16), Fraction(9, 16), Fraction(1, 4), Fraction(11, 32)),
    (Fraction(19, 2), Fraction(31, 8), Fraction(11, 4), Fraction(37, 8), Fraction(27, 4)),
    (Fraction(-5, 2), Fraction(7, 4), Fraction(-9, 8), Fraction(3, 16), Fraction(-13, 4)),
    (Fraction(9, 4), Fraction(-17, 8), Fraction(5, 8), Fraction(-21, 16), Fraction(15, 4)),
    (Fraction(-11, 8), Fraction(-3, 4), Fraction(-19, 4), Fraction(-7, 16), Fraction(-25, 8)),
)
_SMALL_POINTS = (
    (Fraction(3, 16), Fraction(7, 32), Fraction(1, 8), Fraction(5, 16), Fraction(11, 64)),
    (Fraction(5, 8), Fraction(1, 16), Fraction(3, 32), Fraction(9, 32), Fraction(7, 16)),
    (Fraction(1, 32), Fraction(15, 32), Fraction(3, 4), Fraction(5, 64), Fraction(13, 16)),
)
_INTEGER_POINTS = tuple(
    tuple(Fraction(n) for n in row)
    for row in (
        (5, 3, 7, 4, 6), (8, 5, 3, 6, 2), (12, 7, 5, 9, 4), (7, 4, 2, 3, 5), (9, 6, 4, 8, 3),
        (17, 11, 8, 5, 7), (30, 13, 9, 10, 11), (33, 16, 10, 12, 14),
    )
)  # fmt: skip


def agree(first: Node, second: Node) -> bool | None:
    """True if two trees are equal wherever both are defined, None if that cannot be told.

    Raises:
        TooLarge: A value on the way is over a cap.
    """
    names = sorted(variables(first) | variables(second))
    if not names:
        try:
            return values_equal(evaluate(first, {}), evaluate(second, {}))
        except Undefined:
            return None
    steps = (operations(first) | operations(second)) & _STEPS
    whole = steps and _WHOLE.issuperset(names)
    for points in (_INTEGER_POINTS,) if whole else (_REAL_POINTS, _SMALL_POINTS, _INTEGER_POINTS):
        found = _agree_at(first, second, names, points)
        if found is not None:
            return found
    return None


def points_for(names: list[str]) -> list[dict[str, Fraction]]:
    """The real points with these variables; a sixth and later one is shifted by its place."""
    return [_point(names, row) for row in _REAL_POINTS]


def _agree_at(
    first: Node, second: Node, names: list[str], rows: tuple[tuple[Fraction, ...], ...]
) -> bool | None:
    defined = 0
    for row in rows:
        point = _point(names, row)
        try:
            a, b = evaluate(first, point), evaluate(second, point)
        except Undefined:
            continue
        if not values_equal(a, b):
            return False
        defined += 1
    return True if defined >= MIN_POINTS else None


def _point(names: list[str], row: tuple[Fraction, ...]) -> dict[str, Fraction]:
    return {name: row[i % len(row)] + i // len(row) for i, name in enumerate(names)}
