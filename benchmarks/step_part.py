"""One process of `benchmarks.step --against`, as the driver is told of it."""

from dataclasses import dataclass
from typing import Any

OUT = "{out}"
"""Stands for a part's result among its arguments."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """`python -m benchmarks.MODULE ARGUMENTS`."""

    name: str
    module: str
    arguments: tuple[Any, ...]
    expected_s: float
    """On two cores with AMX, the machine otherwise idle."""
