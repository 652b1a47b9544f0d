"""Text that others wrote, put into Markdown so that nothing of it acts: names, paths, settings."""

import re

from recipes.standings import printable


def plain(text: str) -> str:
    """One line that is printable and without what Markdown or HTML would act on."""
    shown = printable(text).plain
    for mark, harmless in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "'")):
        shown = shown.replace(mark, harmless)
    return shown.replace("](", "] (")


def table(rows: list[list[str]]) -> list[str]:
    """Lines of a table, its first row the header; the first column is left, the others right."""
    ruled = [rows[0], ["---", *("---:" for _ in rows[0][1:])], *rows[1:]]
    return [f"| {' | '.join(map(plain, row))} |" for row in ruled]


def fenced(text: str, language: str) -> list[str]:
    """Lines of a block of code that no run of backticks in the text can end."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    shown = [printable(line).plain for line in text.splitlines()]
    return [f"{fence}{language}", *shown, fence]
