"""Trees of expressions, as rewards/maths/latex.py reads them: what is in them, and how high they are.

A node is `(operation, operand, ...)`; operands that are no nodes are names and numbers.
"""

from fractions import Fraction
from typing import Any

Node = tuple[Any, ...]


def variables(node: Node) -> frozenset[str]:
    """Names of the variables in a tree."""
    if node[0] == "variable":
        return frozenset((node[1],))
    names = frozenset().union(*(variables(part) for part in node[1:] if isinstance(part, tuple)))
    return names - {node[1]} if node[0] in ("sum", "prod") else names


def operations(node: Node) -> frozenset[str]:
    """Names of the operations in a tree."""
    inner = (operations(part) for part in node[1:] if isinstance(part, tuple))
    return frozenset((node[0],)).union(*inner)


def height(node: Node) -> int:
    """Levels of a tree, without recursion."""
    level, height = [node], 0
    while level:
        height += 1
        level = [part for each in level for part in each[1:] if isinstance(part, tuple)]
    return height


def number(value: int | Fraction) -> Node:
    """A number as a node."""
    return ("number", Fraction(value))
