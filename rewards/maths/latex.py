r"""Reads a mathematical expression, LaTeX or plain, into a tree of tuples. Evaluates nothing.

A node is `(operation, operand, ...)`: ("number", Fraction), ("variable", name), ("add", a, b),
("power", a, b), ("sqrt", a) and so on; rewards/maths/values.py gives them values. Numbers, the usual
functions, roots, factorials, binomials, floors, absolute values, \pm, degrees, numerals with a
base, finite sums and products are read. Integrals, limits and matrices are not: `Unreadable`.
"""

from fractions import Fraction
from typing import Any

from rewards.maths.tokens import (
    ACCENTS,
    CONSTANTS,
    FUNCTIONS,
    GREEK,
    INVERSE,
    STARTING,
    Unreadable,
    split_words,
)
from rewards.maths.trees import Node, height, number

MAX_LENGTH = 1000
"""Characters of an expression."""

MAX_DEPTH = 40
"""Nested groups, functions and powers; keeps the parser off Python's recursion limit."""

MAX_HEIGHT = 150
"""Of a tree; a sum of 150 terms is as high. Keeps evaluation off the recursion limit."""

_ADD = {"+": "add", "-": "subtract", "\\pm": "plus_minus", "\\mp": "minus_plus"}
_MULTIPLY = {"*", "\\cdot", "\\times", "\\ast"}
_DIVIDE = {"/", "\\div"}
_GROUPS = {"(": ")", "[": "]", "{": "}", "\\{": "\\}"}
_OPAQUE = frozenset("fgh")  # f(x) is a function's value; any other letter multiplies the bracket


def read_expression(text: str) -> Node:
    r"""The tree of `text`, all of it, as rewards/maths/spelling.py writes it.

    Examples: "2x^2" is ("multiply", 2, ("power", x, 2)) with numbers and variables as nodes;
    "3\frac{1}{2}" is the mixed number 7/2.

    Raises:
        Unreadable: The text is something else, too long or too deep.
    """
    if len(text) > MAX_LENGTH:
        raise Unreadable("too long")
    parser = _Parser(text)
    node = parser.sum()
    if parser.token != "":
        raise Unreadable(parser.token)
    if height(node) > MAX_HEIGHT:
        raise Unreadable("too high")
    return node


class _Parser:
    """Recursive descent; `token` is the next one, "" at the end."""

    def __init__(self, text: str) -> None:
        self._tokens = split_words(text)
        self._next = 0
        self._depth = 0
        self._index: str | None = None  # of the sum whose terms are being read
        self.token = self._tokens[0]

    def advance(self) -> str:
        token = self.token
        self._next += 1
        self.token = self._tokens[self._next] if self._next < len(self._tokens) else ""
        return token

    def expect(self, token: str) -> None:
        if self.advance() != token:
            raise Unreadable(f"no {token}")

    def sum(self) -> Node:
        node = self._signed(self.product)
        while self.token in _ADD:
            node = (_ADD[self.advance()], node, self._signed(self.product))
        return node

    def _signed(self, read: Any) -> Node:
        signs = []
        while self.token in _ADD:
            signs.append(_ADD[self.advance()])
        node = read()
        for sign in reversed(signs):
            node = node if sign == "add" else (sign, number(0), node)
        return node

    def product(self) -> Node:
        node = self.power()
        while True:
            if self.token in _MULTIPLY:
                self.advance()
                node = ("multiply", node, self._signed(self.power))
            elif self.token in _DIVIDE:
                self.advance()
                node = ("divide", node, self._signed(self.power))
            elif self._starts_factor():
                node = self._adjacent(node, self.power())
            else:
                return node

    def _adjacent(self, left: Node, right: Node) -> Node:
        """3 1/2 and 3\\frac{1}{2} are mixed numbers, "2 3" is nothing, all else a product."""
        if right[0] == "number":
            if left[0] == "number" and left[1].denominator == 1 and self.token == "/":
                self.advance()
                bottom = self.power()
                if bottom[0] == "number" and 0 < right[1] < bottom[1]:
                    return ("add", left, ("divide", right, bottom))
            raise Unreadable("two numbers side by side")
        if right[0] == "fraction":
            top, bottom = right[1:]
            whole = left[0] == "number" and left[1].denominator == 1
            if whole and top[0] == bottom[0] == "number" and 0 < top[1] < bottom[1]:
                return ("add", left, right)
        return ("multiply", left, right)

    def _starts_factor(self) -> bool:
        token = self.token
        return token != "" and (
            token[0].isalnum()
            or token in ("(", "[", "{", "\\{", "\u221a", ".")
            or (token[0] == "\\" and token[1:] in STARTING)
        )

    def power(self) -> Node:
        node = self.postfix(self.atom())
        if self.token in ("^", "**"):
            self.advance()
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise Unreadable("too deep")
            exponent = self._group() if self.token == "{" else self._signed(self.power)
            self._depth -= 1
            node = self.postfix(("power", node, exponent))
        return node

    def postfix(self, node: Node) -> Node:
        while self.token in ("!", "\u00b0", "%"):
            node = ({"!": "factorial", "\u00b0": "degrees", "%": "percent"}[self.advance()], node)
        return node

    def atom(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("too deep")
        node = self._atom()
        self._depth -= 1
        return node

    def _atom(self) -> Node:
        token = self.advance()
        if token[:1].isdigit() or (token[:1] == "." and len(token) > 1):
            return self._numeral(token)
        if token in ("(", "[", "{", "\\{"):
            node = self.sum()
            self.expect(_GROUPS[token])
            return node
        if token in ("|", "\\lvert"):
            node = self.sum()
            self.expect("|" if token == "|" else "\\rvert")
            return ("absolute", node)
        if token == "\u221a":
            return ("sqrt", self.power())
        name = token[1:] if token[:1] == "\\" else token
        if name in FUNCTIONS:
            return self._function(FUNCTIONS[name])
        if token[:1] == "\\" or name == "sqrt":
            return self._command(name)
        if not token.isalpha():
            raise Unreadable(token or "the end")
        return self._variable(name)

    def _numeral(self, token: str) -> Node:
        value = number(Fraction(token))
        if self.token != "_":
            return value
        self.advance()
        base = self._group() if self.token == "{" else self.atom()
        if base[0] != "number" or not token.isdigit():
            raise Unreadable("a subscript")
        return ("based", token, base)

    def _command(self, name: str) -> Node:
        if name in ("frac", "binom"):
            kind = "fraction" if name == "frac" else "binomial"
            return (kind, self._argument(), self._argument())
        if name == "sqrt":
            if self.token == "[":
                self.advance()
                degree = self.sum()
                self.expect("]")
                return ("root", self._argument(), degree)
            return ("sqrt", self._argument())
        if name in ("sum", "prod"):
            return self._series(name)
        if name in ("lfloor", "lceil"):
            node = self.sum()
            self.expect("\\r" + name[1:])
            return (name[1:], node)
        if name in ACCENTS:
            return self._variable(name + str(self._argument()))
        if name in GREEK or name in CONSTANTS:
            return self._variable(name)
        raise Unreadable(name)

    def _series(self, name: str) -> Node:
        r"""\sum_{k=1}^{9} k^2, to the next plus or minus: (name, index, first, last, term)."""
        for token in ("_", "{"):
            self.expect(token)
        index = self.advance()
        if len(index) != 1 or not index.isalpha() or self._index:
            raise Unreadable("a sum")
        self.expect("=")
        first = self.sum()
        for token in ("}", "^"):
            self.expect(token)
        last = self._group() if self.token == "{" else self.atom()
        self._index = index
        term = self._signed(self.product)
        self._index = None
        return (name, index, first, last, term)

    def _argument(self) -> Node:
        r"""What a command takes: a group, or one digit or letter (\frac12, \sqrt3)."""
        if self.token == "{":
            return self._group()
        if self.token.isdigit() and len(self.token) > 1:
            digits = self.token
            self._tokens[self._next : self._next + 1] = list(digits)
            self.token = digits[0]
        return self.atom()

    def _group(self) -> Node:
        self.expect("{")
        node = self.sum()
        self.expect("}")
        return node

    def _variable(self, name: str) -> Node:
        if name == self._index:
            return ("variable", name)
        if name in CONSTANTS and self.token != "_":
            return CONSTANTS[name]
        while self.token in ("_", "'"):
            name += self.advance()
            if name[-1] == "_":
                name += str(self._group() if self.token == "{" else self.atom())
        if self.token == "(" and name in _OPAQUE:
            self.advance()
            node = self.sum()
            self.expect(")")
            return ("opaque", name, node)
        if self._tokens[self._next : self._next + 3] == ["(", "0", ")"]:
            del self._tokens[self._next : self._next + 3]  # I(0): a value of its own, not I times 0
            self.token = self._tokens[self._next] if self._next < len(self._tokens) else ""
            name += "(0)"
        return ("variable", name)

    def _function(self, name: str) -> Node:
        base, exponent = None, None
        while self.token in ("_", "^", "**"):
            is_base = self.advance() == "_"
            node = self._group() if self.token == "{" else self._signed(self.atom)
            base, exponent = (node, exponent) if is_base else (base, node)
        if exponent == ("subtract", number(0), number(1)) and name in INVERSE:
            name, exponent = INVERSE[name], None
        argument = self._function_argument()
        node = (name, argument) if base is None else ("log_base", argument, base)
        return node if exponent is None else ("power", node, exponent)

    def _function_argument(self) -> Node:
        """A bracket, or the adjacent factors up to the next function: sin 2x cos x."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("too deep")
        if self.token in ("(", "[", "{"):
            node = self.postfix(self.atom())
        else:
            node = self._signed(self.power)
            while self._starts_factor() and self.token.lstrip("\\") not in FUNCTIONS:
                if self.token == "(":
                    break
                node = self._adjacent(node, self.power())
        self._depth -= 1
        return node
