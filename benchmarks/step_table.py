"""The closing table of `benchmarks.step --against trl`: subjects in rows, at most 80 columns."""

from collections.abc import Sequence
from dataclasses import dataclass

COLUMNS = ("step s", "sample s", "update s", "memory GB", "step/ours")
NAME_COLUMNS = 26


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One subject; None where it was not measured.

    Example: `TableRow(name="TRL, best", step_s=21.0, sample_s=4.9, update_s=15.7,
    memory_bytes=9_700_000_000)`; its ratio is 2.6 beside 8.0 s of ours.
    """

    name: str
    step_s: float | None = None
    sample_s: float | None = None
    update_s: float | None = None
    memory_bytes: int | None = None
    """Highest, without the KV pool."""


def table(title: str, rows: Sequence[TableRow]) -> str:
    """Lines of a table; ratios are to the first row's step."""
    lines = [title, f"{'':{NAME_COLUMNS}}" + "".join(f"{name:>10}" for name in COLUMNS)]
    for row in rows:
        memory = row.memory_bytes / 1e9 if row.memory_bytes else None
        ratio = row.step_s / rows[0].step_s if row.step_s and rows[0].step_s else None
        cells = [_cell(row.step_s, 1), _cell(row.sample_s, 1), _cell(row.update_s, 1)]
        cells += [_cell(memory, 1), _cell(ratio, 2)]
        lines.append(f"{row.name:{NAME_COLUMNS}}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
