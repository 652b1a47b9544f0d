"""Sums and differences worked out column by column, from the ones up, in few words."""

import re

PLACES = ("ones", "tens", "hundreds", "thousands")


def worked_chain(expression: str) -> str:
    r"""The steps of whole numbers joined by + and -, from left to right, a line a column.

    Example: "52-38" is "52 - 38\nones: 12 - 8 = 4, borrow 1\ntens: 5 - 3 - 1 = 1\nso 14".

    Raises:
        ValueError: An intermediate result is below 0 or has more than four digits.
    """
    total, *rest = re.findall(r"[+-]?\d+", expression)
    value, lines = int(total), []
    for term in rest:
        number = int(term[1:])
        lines += [f"{value} {term[0]} {number}"]
        lines += _sum(value, number) if term[0] == "+" else _difference(value, number)
        value += int(term)
        if not 0 <= value < 10 ** len(PLACES):
            raise ValueError(f"{expression} passes {value}, which is not worked in columns here")
        lines.append(f"so {value}")
    return "\n".join(lines)


def spaced(expression: str) -> str:
    """ "47+38-29" as "47 + 38 - 29"."""
    return re.sub(r"([+-])", r" \1 ", expression)


def _columns(a: int, b: int) -> list[tuple[str, int, int]]:
    count = max(len(str(a)), len(str(b)))
    return [(PLACES[i], a // 10**i % 10, b // 10**i % 10) for i in range(count)]


def _sum(a: int, b: int) -> list[str]:
    lines, carry = [], 0
    columns = _columns(a, b)
    for place, x, y in columns:
        total = x + y + carry
        carried = " + 1" if carry else ""
        line = f"{place}: {x} + {y}{carried} = {total}"
        carry, digit = divmod(total, 10)
        is_last = place == columns[-1][0]
        lines.append(line + (f", write {digit}, carry 1" if carry and not is_last else ""))
    return lines


def _difference(a: int, b: int) -> list[str]:
    lines, borrow = [], 0
    for place, x, y in _columns(a, b):
        borrowed, left = (" - 1" if borrow else ""), x - y - borrow
        borrow = int(left < 0)
        lines.append(
            f"{place}: {x + 10 * borrow} - {y}{borrowed} = {left + 10 * borrow}"
            + (", borrow 1" if borrow else "")
        )
    return lines
