"""Where the time of a round goes, and who is told.

A phase's seconds are the loop's own; work that runs beside it is not in them.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class Reporter(Protocol):
    """Shows where the run is."""

    def phase(self, name: str) -> None:
        """A phase of the round begins."""
        ...

    def round(self, metrics: dict[str, float]) -> None:
        """A round is done."""
        ...


@dataclass(kw_only=True)
class Clock:
    """Seconds by phase of one round."""

    report: Reporter
    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self.report.phase(phase)
        began = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - began

    def metrics(self) -> dict[str, float]:
        """`time/sample_s` and so on; `time/other_s` is what no phase claims."""
        total = time.perf_counter() - self.started
        times = {f"time/{phase}_s": s for phase, s in self.seconds.items()}
        other = total - sum(self.seconds.values())
        return times | {"time/other_s": other, "time/round_s": total}
