"""Where an answer is divided: commas, joining words and comparisons outside all brackets."""

import re
from collections.abc import Iterator

_OPENERS, _CLOSERS = "([{", ")]}"
_SPLITTER = re.compile(
    r"\\begin|\\end|\\[{}]|\\(?:le|ge|ne|approx|cup|cap|setminus|in|sim)(?![A-Za-z])"
    r"|[()\[\]{},;=<>|:]|(?<![A-Za-z\\])(?:or|and)(?![A-Za-z])"
)
_THOUSANDS = re.compile(r"[^,]*?[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?[^,]*")
_GROUPED = re.compile(r"(?<![0-9,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])")


def top_level(text: str) -> Iterator[tuple[int, int, str]]:
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


def split_at(text: str, marks: list[tuple[int, int, str]], at: tuple[str, ...]) -> list[str]:
    """The pieces of `text` between those of its marks that are `at`."""
    parts, start = [], 0
    for begin, end, mark in marks:
        if mark in at:
            parts.append(text[start:begin])
            start = end
    return [*parts, text[start:]]


def encloses(text: str) -> bool:
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


def without_thousands(text: str) -> str:
    """Thousands separators removed where every comma outside brackets is one."""
    if "," not in text:
        return text
    outside = sum(mark == "," for _, _, mark in top_level(text))
    if outside and not _THOUSANDS.fullmatch(text) and "\\frac" not in text:
        return text
    grouped = _GROUPED.sub(lambda m: m[0].replace(",", ""), text)
    left = sum(mark == "," for _, _, mark in top_level(grouped))
    return text if left or "(" in text or "[" in text or "\\{" in text else grouped
