r"""The form of an answer: a value, several, a tuple, an interval, an equation, a matrix.

`read_form` takes a text in the spelling of rewards/spelling.py. What the forms mean to each
other is decided in rewards/comparison.py.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rewards.latex import Node, Unreadable, operations, read_expression
from rewards.spelling import strip_group

MAX_ITEMS = 64
"""Of a list, a set or a matrix."""

MAX_NESTING = 8
"""Brackets in brackets."""

_OPENERS, _CLOSERS = "([{", ")]}"
_COMPARISONS = ("=", "<", ">", "\\le", "\\ge", "\\ne", "\\approx")
_SPLITTER = re.compile(
    r"\\begin|\\end|\\[{}]|\\(?:le|ge|ne|approx|cup|cap|setminus|in|sim)(?![A-Za-z])"
    r"|[()\[\]{},;=<>|:]|(?<![A-Za-z\\])(?:or|and)(?![A-Za-z])"
)
_MATRIX = re.compile(
    r"\\begin\s*\{([pbvBV]?matrix|array)\}(?:\s*\{[clr| ]*\})?(.*)\\end\s*\{\1\}", re.DOTALL
)
_THOUSANDS = re.compile(r"[^,]*?[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?[^,]*")
_GROUPED = re.compile(r"(?<![0-9,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")
_SIGNS = frozenset(("plus_minus", "minus_plus"))
_BRANCHES = (("add", "subtract"), ("subtract", "add"))  # the upper signs, the lower signs
_EMPTY = frozenset(("\\emptyset", "empty set", "no solution", "no solutions", "no real solution"))
_LABEL = re.compile(r"[A-Za-z\\][^0-9=<>]*")


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


def read_form(text: str, nesting: int = 0) -> Form:
    """The form of an answer.

    Examples: "(1, 2]" is a Bracket of two Scalars, "x = 5" a Relation, "3 \\pm 1" a Many of
    two, "x > 1 or x < 0" a Many of kind "or".

    Raises:
        Unreadable: The text is none of these, or over a cap.
    """
    if nesting > MAX_NESTING:
        raise Unreadable("too deep")
    text = strip_group(text.strip())
    if text in _EMPTY or text.replace(" ", "") == "\\{\\}":
        return Many(items=(), kind="set")
    if text == "\\reals":
        return read_form("(-\\infty, \\infty)")
    if text.startswith("\\begin"):
        return _read_matrix(text)
    text = _without_thousands(text)
    marks = list(_top_level(text))
    for separators, kind in ((("or",), "or"), (("and", ";"), "and"), ((",",), "list")):
        if any(mark in separators for _, _, mark in marks):
            return _read_many(_split(text, marks, separators), kind, nesting)
    if any(mark == "\\in" for _, _, mark in marks):
        _, inside = _split(text, marks, ("\\in",))[:2]
        return read_form(inside, nesting + 1)
    if any(mark == "\\cup" for _, _, mark in marks):
        parts = _split(text, marks, ("\\cup",))
        return Union(parts=tuple(read_form(part, nesting + 1) for part in parts[:MAX_ITEMS]))
    if any(mark == "\\setminus" for _, _, mark in marks):
        whole, removed = _split(text, marks, ("\\setminus",))[:2]
        return Without(whole=read_form(whole, nesting + 1), removed=read_form(removed, nesting + 1))
    if any(mark in _COMPARISONS for _, _, mark in marks):
        return _both_signs(_read_relation(text, marks))
    enclosed = _read_enclosed(text, nesting)
    return _read_scalar(text, marks) if enclosed is None else enclosed


def _read_scalar(text: str, marks: list[tuple[int, int, str]]) -> Form:
    if any(mark == ":" for _, _, mark in marks):  # a ratio, 1:4
        text = "/".join(f"({part})" for part in _split(text, marks, (":",)))
    node = read_expression(text)
    if not operations(node) & _SIGNS:
        return Scalar(node=node)
    return Many(items=tuple(Scalar(node=_one_sign(node, *pair)) for pair in _BRANCHES), kind="list")


def _both_signs(relation: Relation) -> Form:
    """Two relations where one has a \\pm."""
    if not any(side and operations(side) & _SIGNS for side in relation.sides):
        return relation
    branches = (
        tuple(side and _one_sign(side, *pair) for side in relation.sides) for pair in _BRANCHES
    )
    items = tuple(Relation(signs=relation.signs, sides=sides) for sides in branches)
    return Many(items=items, kind="list")


def _one_sign(node: Node, upper: str, lower: str) -> Node:
    kind = {"plus_minus": upper, "minus_plus": lower}.get(node[0], node[0])
    parts = (_one_sign(p, upper, lower) if isinstance(p, tuple) else p for p in node[1:])
    return (kind, *parts)


def _read_many(parts: list[str], kind: str, nesting: int) -> Form:
    parts = [part for part in parts if part.strip()]
    if len(parts) > MAX_ITEMS:
        raise Unreadable("too many items")
    items: list[Form] = []
    for part in parts:
        item = read_form(part, nesting + 1)
        inner = isinstance(item, Many) and item.kind != "set"
        items.extend(item.items if inner else (item,))
    return items[0] if len(items) == 1 else Many(items=tuple(items), kind=kind)


def _read_enclosed(text: str, nesting: int) -> Form | None:
    """A set, tuple or interval in brackets around the whole text; None if there are none."""
    if text.startswith("\\{") and text.endswith("\\}"):
        inner = text[2:-2]
        builder = [mark for mark in _top_level(inner) if mark[2] in ("|", ":")]
        if builder:
            return read_form(inner[builder[0][1] :], nesting + 1)
        form = read_form(inner, nesting + 1)
        items = form.items if isinstance(form, Many) and form.kind != "set" else (form,)
        return Many(items=items, kind="set")
    if not (text[:1] in ("(", "[") and text[-1:] in (")", "]") and _encloses(text)):
        return None
    inner = text[1:-1]
    marks = list(_top_level(inner))
    if not any(mark in (",", ";") for _, _, mark in marks):
        is_wrapped = text[0] == "(" and any(mark[2] in (*_COMPARISONS, "\\cup") for mark in marks)
        return read_form(inner, nesting + 1) if is_wrapped else None
    parts = _split(inner, marks, (",", ";"))
    if len(parts) > MAX_ITEMS:
        raise Unreadable("too many items")
    items = tuple(read_form(part, nesting + 1) for part in parts)
    if text[0] == "[" and all(isinstance(i, Bracket) and i.opening == "[" for i in items):
        rows = (tuple(_node(cell) for cell in row.items) for row in items)  # type: ignore
        return Grid(rows=tuple(rows))
    return Bracket(opening=text[0], closing=text[-1], items=items)


def _read_relation(text: str, marks: list[tuple[int, int, str]]) -> Relation:
    signs = tuple(mark for _, _, mark in marks if mark in _COMPARISONS)
    parts = _split(text, marks, _COMPARISONS)
    sides: list[Node | None] = []
    for i, part in enumerate(parts):
        try:
            sides.append(read_expression(part))
        except Unreadable:
            names = part.strip() == "" or _LABEL.fullmatch(part.strip())
            if i > 0 or signs[0] not in ("=", "\\approx") or not names:
                raise
            sides.append(None)
    return Relation(signs=signs, sides=tuple(sides))


def _read_matrix(text: str) -> Grid:
    match = _MATRIX.fullmatch(text)
    if match is None or "\\begin" in match[2]:
        raise Unreadable("a matrix")
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", match[2]) if row.strip()]
    if len(rows) > MAX_ITEMS or text.count("&") > MAX_ITEMS:
        raise Unreadable("a matrix too large")
    return Grid(rows=tuple(tuple(read_expression(c) for c in row.split("&")) for row in rows))


def _node(form: Form) -> Node:
    if not isinstance(form, Scalar):
        raise Unreadable("not a number in a matrix")
    return form.node


def _without_thousands(text: str) -> str:
    """Thousands separators removed where every comma outside brackets is one."""
    if "," not in text:
        return text
    outside = sum(mark == "," for _, _, mark in _top_level(text))
    if outside and not _THOUSANDS.fullmatch(text) and "\\frac" not in text:
        return text
    grouped = _GROUPED.sub(lambda m: m[0].replace(",", ""), text)
    left = sum(mark == "," for _, _, mark in _top_level(grouped))
    return text if left or "(" in text or "[" in text or "\\{" in text else grouped


def _top_level(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, mark) of separators and comparisons outside all brackets."""
    depth = 0
    for match in _SPLITTER.finditer(text):
        mark = match[0]
        if mark in ("\\{", "\\begin") or mark in _OPENERS:
            depth += 1
        elif mark in ("\\}", "\\end") or mark in _CLOSERS:
            depth -= 1
        elif depth == 0:
            yield match.start(), match.end(), mark


def _split(text: str, marks: list[tuple[int, int, str]], at: tuple[str, ...]) -> list[str]:
    parts, start = [], 0
    for begin, end, mark in marks:
        if mark in at:
            parts.append(text[start:begin])
            start = end
    return [*parts, text[start:]]


def _encloses(text: str) -> bool:
    """True if the first bracket is closed by the last one."""
    depth = 0
    for match in _SPLITTER.finditer(text):
        mark = match[0]
        if mark == "\\{" or mark in _OPENERS:
            depth += 1
        elif mark == "\\}" or mark in _CLOSERS:
            depth -= 1
            if depth == 0:
                return match.end() == len(text)
    return False
