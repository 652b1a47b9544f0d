"""What each scorer of reasoning-gym may be handed: its scorers trust the text, and it is hostile.

Every scorer of `VERSION` was read. `REFUSED` names the data sets that cannot be trained on,
`GUARDS` those whose scorer evaluates the text, can be made to take for ever, or takes some
nonsense for right; a guard lets through only texts of which none of that holds. A data set in
neither compares texts, numbers or JSON, in time that grows slowly with the length.
"""

import ast
import re
from collections.abc import Callable
from functools import partial
from typing import Any

VERSION = "0.1.25"
"""Of the package whose scorers were read; another may evaluate what this one compares."""

MAX_ANSWER_CHARS = 10_000
"""A longer answer is too large; the longest references have about 5,000."""

MAX_MOVES_CHARS = 2_000
MAX_DEPTH = 24
MAX_EXPRESSION_CHARS = 300
MAX_DIGITS = 12

Entry = dict[str, Any]
Guard = Callable[[str, Entry], bool]

_UNBOUNDED = "its scorer hands the answer to sympy, which evaluates it and may simplify for minutes"
_UNSTABLE = "its entries do not follow from the seed alone, so that no run could be resumed"

REFUSED = {
    "codeio": _UNSTABLE,
    "coin_flip": "its scorer takes the first digits for the whole: 0 is right for most entries",
    "composite": "it is made of other data sets; name them one by one in a mixture",
    "game_of_life_halting": "its scorer takes every answer for right",
    "intermediate_integration": _UNBOUNDED,
    "isomorphic_strings": _UNSTABLE,
    "knight_swap": _UNSTABLE,
    "list_functions": _UNSTABLE,
    "polynomial_multiplication": _UNSTABLE,
    "propositional_logic": "its scorer takes any consequence: P \u2228 Q is right for most entries",
    "ransom_note": _UNSTABLE,
    "simple_integration": _UNBOUNDED,
    "word_ladder": _UNSTABLE,
}
"""Data sets without a sound reward or without stable problems, each with the reason."""

REFERENCE_IN_METADATA = {
    "graph_color": "possible_answer",
    "rubiks_cube": "example_correct_answer",
}
"""Data sets whose entries have no `answer`, but an example of a right one under this name."""

WITHOUT_REFERENCE = ("boxnet", "rush_hour")
"""Data sets that only judge: no right answer is known, so none can be checked."""


def admits(dataset: str, answer: str, entry: Entry) -> bool:
    """True if the scorer of a data set may see `answer`; never raises, never evaluates.

    Example: `admits("countdown", "3*7 + 25", entry)` is True, "9**9**9" and "f(1)" are not.
    """
    guard = GUARDS.get(dataset)
    return guard is None or guard(answer, entry)


def is_literal(text: str) -> bool:
    """True for a list of lists of texts and whole numbers, or one text, as Python writes them."""
    if not re.fullmatch(r"[\w\s\[\],'\"-]*", text, re.ASCII):
        return False
    tree = _parsed(text)
    return tree is not None and _is_literal(tree, MAX_DEPTH)


def is_arithmetic(text: str) -> bool:
    """True for + - * / and parentheses over whole numbers."""
    if len(text) > MAX_EXPRESSION_CHARS or not re.fullmatch(r"[0-9+\-*/() ]+", text):
        return False
    tree = _parsed(text)
    return tree is not None and _is_arithmetic(tree, MAX_DEPTH)


def _parsed(text: str) -> ast.expr | None:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_literal(node: ast.expr, depth: int) -> bool:
    match node:
        case ast.Constant(value=str() | int() as value):
            return not isinstance(value, bool)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int())):
            return True
        case ast.List(elts=items):
            return depth > 0 and all(_is_literal(item, depth - 1) for item in items)
    return False


def _is_arithmetic(node: ast.expr, depth: int) -> bool:
    if depth < 0:
        return False
    match node:
        case ast.Constant(value=int() as number):
            return len(str(number)) <= MAX_DIGITS
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _is_arithmetic(operand, depth - 1)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), right=right):
            return _is_arithmetic(left, depth - 1) and _is_arithmetic(right, depth - 1)
    return False


def _matches(answer: str, _entry: Entry, pattern: str, max_chars: int) -> bool:
    return len(answer) <= max_chars and re.fullmatch(pattern, answer) is not None


def _plain_or_literal(answer: str, _entry: Entry, plain: str) -> bool:
    return re.fullmatch(plain, answer) is not None or is_literal(answer)


def _own_numbers(answer: str, entry: Entry) -> bool:
    """The scorer does not ask whether the numbers are the puzzle's: 4*6*1*1 would solve all."""
    numbers = sorted(int(number) for number in re.findall(r"[0-9]+", answer[:MAX_EXPRESSION_CHARS]))
    return is_arithmetic(answer) and numbers == sorted(entry["metadata"]["numbers"])


def _single_digits(answer: str, _entry: Entry, pattern: str) -> bool:
    """The scorer makes a move with a number that often: R1000000, F+1000000."""
    if len(answer) > MAX_MOVES_CHARS or re.search(r"[0-9]{2}", answer):
        return False
    return re.fullmatch(pattern, answer) is not None


GUARDS: dict[str, Guard] = {
    # eval(answer), where the answer is not the reference
    "binary_matrix": partial(_plain_or_literal, plain=r"[0-9\s]+"),
    "spiral_matrix": partial(_plain_or_literal, plain=r"-?[0-9]+(\s+-?[0-9]+)*"),
    "n_queens": partial(_plain_or_literal, plain=r"[Q_\s]+"),
    "string_insertion": partial(_plain_or_literal, plain=r"[A-Z]+"),
    # sympy.parse_expr(answer), which is eval
    "countdown": lambda answer, _entry: is_arithmetic(answer),
    "puzzle24": _own_numbers,
    # What takes time without bound
    "rubiks_cube": partial(_single_digits, pattern=r"[UDLRFBMESXYZudlrfbmesxyzw0-9'\s]+"),
    "rush_hour": partial(_single_digits, pattern=r"[A-Z0-9+\-\s]+"),
    # "nan" and [NaN, ...] are right to these
    "complex_arithmetic": partial(_matches, pattern=r"[-+0-9.ij() ]+", max_chars=100),
    "number_sorting": partial(_matches, pattern=r"[-+0-9.,\s'\"\[\]]+", max_chars=4000),
}
"""By the data set's name; the others' scorers may see any text up to `MAX_ANSWER_CHARS`."""
