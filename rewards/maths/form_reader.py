r"""Reads the form of an answer: a value, several, a tuple, an interval, an equation, a matrix.

`read_form` takes a text in the spelling of rewards/maths/spelling.py. What the forms mean to each
other is decided in rewards/maths/comparison.py.
"""

import itertools
import re
from fractions import Fraction

from rewards.maths.forms import Bracket, Form, Grid, Many, Relation, Scalar, Union, Without
from rewards.maths.latex import Unreadable, read_expression
from rewards.maths.separators import encloses, split_at, top_level, without_thousands
from rewards.maths.spelling import strip_group
from rewards.maths.trees import Node, operations

MAX_ITEMS = 64
"""Of a list, a set or a matrix."""

MAX_NESTING = 8
"""Brackets in brackets."""

_COMPARISONS = ("=", "<", ">", "\\le", "\\ge", "\\ne", "\\approx")
_MATRIX = re.compile(
    r"\\begin\s*\{([pbvBV]?matrix|array)\}(?:\s*\{[clr| ]*\})?(.*)\\end\s*\{\1\}", re.DOTALL
)
_SIGNS = frozenset(("plus_minus", "minus_plus"))
_BRANCHES = (("add", "subtract"), ("subtract", "add"))  # the upper signs, the lower signs
_EMPTY = frozenset(
    (
        "\\emptyset",
        "empty set",
        "no solution",
        "no solutions",
        "no real solution",
        "no real solutions",
        "no real solutions exist",
        "no solutions exist",
        "no solution exists",
    )
)
_THERE = re.compile(r"^there (?:is|are) ")


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
    if _THERE.sub("", text.lower()) in _EMPTY or text.replace(" ", "") == "\\{\\}":
        return Many(items=(), kind="set")
    if text == "\\reals":
        return read_form("(-\\infty, \\infty)")
    if text.endswith("}") and "\\end" in text:
        return _read_matrix(text)
    text = without_thousands(text)
    marks = list(top_level(text))
    for separators, kind in ((("or",), "or"), (("and", ";"), "and"), ((",",), "list")):
        if any(mark in separators for _, _, mark in marks):
            return _read_many(split_at(text, marks, separators), kind, nesting)
    if any(mark == "\\in" for _, _, mark in marks):
        _, inside = split_at(text, marks, ("\\in",))[:2]
        return read_form(inside, nesting + 1)
    if any(mark == "\\cup" for _, _, mark in marks):
        parts = split_at(text, marks, ("\\cup",))
        return Union(parts=tuple(read_form(part, nesting + 1) for part in parts[:MAX_ITEMS]))
    if any(mark == "\\setminus" for _, _, mark in marks):
        whole, removed = split_at(text, marks, ("\\setminus",))[:2]
        return Without(whole=read_form(whole, nesting + 1), removed=read_form(removed, nesting + 1))
    if any(mark in _COMPARISONS for _, _, mark in marks):
        try:
            return _both_signs(_read_relation(text, marks))
        except Unreadable:
            return _read_named(text, marks, nesting)
    if text.startswith("\\pm") and text.endswith(")"):
        point = _read_enclosed(text[3:].strip(), nesting)
        if isinstance(point, Bracket) and all(isinstance(item, Scalar) for item in point.items):
            return Many(items=(point, _opposite(point)), kind="list")
    enclosed = _read_enclosed(text, nesting)
    return _read_scalar(text, marks) if enclosed is None else enclosed


def _read_scalar(text: str, marks: list[tuple[int, int, str]]) -> Form:
    if any(mark == ":" for _, _, mark in marks):  # a ratio, 1:4
        parts = [read_expression(part) for part in split_at(text, marks, (":",))]
        ratios = tuple(Scalar(node=("divide", part, parts[0])) for part in parts[1:])
        return (
            Bracket(opening=":", closing=":", items=ratios)
            if len(ratios) > 1
            else Scalar(node=("divide", parts[0], parts[1]))
        )
    node = read_expression(text)
    if not operations(node) & _SIGNS:
        return Scalar(node=node)
    return Many(items=tuple(Scalar(node=_one_sign(node, *pair)) for pair in _BRANCHES), kind="list")


def _opposite(point: Bracket) -> Bracket:
    zero = ("number", Fraction(0))
    items = (Scalar(node=("subtract", zero, _node(item))) for item in point.items)
    return Bracket(opening=point.opening, closing=point.closing, items=tuple(items))


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
        item = _named_tuple(read_form(part, nesting + 1))
        inner = isinstance(item, Many) and item.kind != "set"
        items.extend(item.items if inner else (item,))
    return items[0] if len(items) == 1 else Many(items=tuple(items), kind=kind)


def _named_tuple(form: Form) -> Form:
    """a = 3, b = 0 as (3, 0), by the order of the names, among others: or a = -3, b = 1."""
    if not isinstance(form, Many) or form.kind != "list":
        return form
    values: dict[str, Node] = {}
    for item in form.items:
        if not isinstance(item, Relation) or item.signs != ("=",):
            return form
        name, value = item.sides
        if name is None or value is None or name[0] != "variable" or name[1] in values:
            return form
        values[name[1]] = value
    items = tuple(Scalar(node=values[name]) for name in sorted(values))
    return Bracket(opening="(", closing=")", items=items)


def _read_enclosed(text: str, nesting: int) -> Form | None:
    """A set, tuple or interval in brackets around the whole text; None if there are none."""
    if text.startswith("\\{") and text.endswith("\\}"):
        inner = text[2:-2]
        builder = [mark for mark in top_level(inner) if mark[2] in ("|", ":")]
        if builder:
            return read_form(inner[builder[0][1] :], nesting + 1)
        form = read_form(inner, nesting + 1)
        items = form.items if isinstance(form, Many) and form.kind != "set" else (form,)
        return Many(items=items, kind="set")
    if not (text[:1] in ("(", "[") and text[-1:] in (")", "]") and encloses(text)):
        return None
    inner = text[1:-1].strip()
    if inner.startswith("\\begin"):
        return read_form(inner, nesting + 1)
    marks = list(top_level(inner))
    if not any(mark in (",", ";") for _, _, mark in marks):
        is_wrapped = text[0] == "(" and any(mark[2] in (*_COMPARISONS, "\\cup") for mark in marks)
        return read_form(inner, nesting + 1) if is_wrapped else None
    parts = split_at(inner, marks, (",", ";"))
    if len(parts) > MAX_ITEMS:
        raise Unreadable("too many items")
    items = tuple(read_form(part, nesting + 1) for part in parts)
    if text[0] == "(" and any(isinstance(item, Many) and item.kind == "list" for item in items):
        return _each_sign(items, together="\\mp" in inner)
    if text[0] == "[" and all(isinstance(i, Bracket) and i.opening == "[" for i in items):
        rows = (tuple(_node(cell) for cell in row.items) for row in items)  # type: ignore
        return Grid(rows=tuple(rows))
    return Bracket(opening=text[0], closing=text[-1], items=items)


def _each_sign(items: tuple[Form, ...], *, together: bool) -> Many:
    r"""(0, \pm 2) as the points (0, 2) and (0, -2); with a \mp all signs change `together`."""
    choices = [item.items if isinstance(item, Many) else (item,) * (1 + together) for item in items]
    combined = zip(*choices, strict=False) if together else itertools.product(*choices)
    points = list(itertools.islice(combined, MAX_ITEMS))
    return Many(
        items=tuple(Bracket(opening="(", closing=")", items=point) for point in points), kind="list"
    )


def _read_relation(text: str, marks: list[tuple[int, int, str]]) -> Relation:
    signs = tuple(mark for _, _, mark in marks if mark in _COMPARISONS)
    parts = split_at(text, marks, _COMPARISONS)
    sides: list[Node | None] = []
    for i, part in enumerate(parts):
        try:
            sides.append(_read_ratio(part))
        except Unreadable:
            if part == parts[-1] or signs[i] not in ("=", "\\approx"):
                raise
            sides.append(None)  # a word, or what is not read, such as an integral
    return Relation(signs=signs, sides=tuple(sides))


def _read_ratio(text: str) -> Node:
    """An expression; 4:6 is 4/6."""
    left, colon, right = text.partition(":")
    node = read_expression(left)
    return ("divide", node, read_expression(right)) if colon else node


def _read_named(text: str, marks: list[tuple[int, int, str]], nesting: int) -> Form:
    """What a name is said to be, where it is no expression: (x, y) = (1, 2)."""
    name, *forms = split_at(text, marks, ("=",))
    if len(forms) != 1 or re.search(r"[0-9]", name):
        raise Unreadable("a relation")
    return read_form(forms[0], nesting + 1)


def _read_matrix(text: str) -> Grid:
    match = _MATRIX.fullmatch(text, text.index("\\begin") if "\\begin" in text else 0)
    if match is None or "\\begin" in match[2]:
        raise Unreadable("a matrix")
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", match[2]) if row.strip()]
    if len(rows) > MAX_ITEMS or text.count("&") > MAX_ITEMS:
        raise Unreadable("a matrix too large")
    cells = [[read_expression(cell) for cell in row.split("&")] for row in rows]
    factor = text[: match.start()].rpartition("=")[2].strip()
    if factor:
        scale = read_expression(factor)
        cells = [[("multiply", scale, cell) for cell in row] for row in cells]
    return Grid(rows=tuple(map(tuple, cells)))


def _node(form: Form) -> Node:
    if not isinstance(form, Scalar):
        raise Unreadable("not a number in a matrix")
    return form.node
