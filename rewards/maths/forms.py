r"""The forms of an answer: a value, several, a tuple, an interval, an equation, a matrix.

They are read from text in rewards/maths/form_reader.py, and compared in comparison.py.
"""

from dataclasses import dataclass

from rewards.maths.trees import Node


@dataclass(frozen=True, kw_only=True)
class Scalar:
    """One expression."""

    node: Node


@dataclass(frozen=True, kw_only=True)
class Many:
    """Several answers without order: "1, 2" (list), "\\{1, 2\\}" (set), joined by "or", "and"."""

    items: tuple["Form", ...]
    kind: str


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """Items in round or square brackets: a tuple, a point, an interval."""

    opening: str
    closing: str
    items: tuple["Form", ...]


@dataclass(frozen=True, kw_only=True)
class Union:
    """Intervals and finite sets joined."""

    parts: tuple["Form", ...]


@dataclass(frozen=True, kw_only=True)
class Without:
    """A set without the points of another."""

    whole: "Form"
    removed: "Form"


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A chain of equations or inequalities: `sides[0] signs[0] sides[1] ...`.

    A first side that is a mere name ("Area", "P(A)") is None.
    """

    signs: tuple[str, ...]
    sides: tuple[Node | None, ...]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A matrix, by rows."""

    rows: tuple[tuple[Node, ...], ...]


Form = Scalar | Many | Bracket | Union | Without | Relation | Grid
