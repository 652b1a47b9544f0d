"""Where the time of a round goes, what ran beside what, and who is told.

A phase's seconds are the loop's own, without those of a phase inside it; work of other threads
and processes is not in them, only what the loop waited for.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rollouts.timeline import Timeline

BACKGROUND = ("score", "flatten")
"""Spans of work beside the loop; each has a span of the loop's waiting, such as score_wait."""


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
    """Seconds by phase of one round, and its time line.

    Attributes:
        timeline: Each phase from begin to end, and whatever else is taken into it.
    """

    report: Reporter
    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)
    timeline: Timeline = field(default_factory=Timeline)
    _outer: list[str] = field(default_factory=list)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self.report.phase(phase)
        began = time.perf_counter()
        self._outer.append(phase)
        yield
        self._outer.pop()
        ended = time.perf_counter()
        self.timeline.record(phase, began, ended)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + ended - began
        for outer in self._outer[-1:]:
            self.seconds[outer] = self.seconds.get(outer, 0.0) - (ended - began)
            self.report.phase(outer)

    def metrics(self) -> dict[str, float]:
        """`time/sample_s` and so on; `time/other_s` is what no phase claims."""
        total = time.perf_counter() - self.started
        times = {f"time/{phase}_s": s for phase, s in self.seconds.items()}
        other = total - sum(self.seconds.values())
        times |= {"time/other_s": other, "time/round_s": total}
        return times | self._places() | self._overlap()

    def _places(self) -> dict[str, float]:
        """Where on the round's time line phases and background work are: first begin, last end.

        What ran ahead, before the round began, has no place there.
        """
        places = {}
        for name in (*self.seconds, *BACKGROUND):
            spans = self.timeline.spans.get(name, [])
            if spans and (began := min(spans)[0]) >= self.started:
                places[f"time/{name}_from_s"] = began - self.started
                places[f"time/{name}_to_s"] = max(ended for _, ended in spans) - self.started
        return places

    def _overlap(self) -> dict[str, float]:
        """How much of scoring and packing ran while the engine sampled, and what was waited for.

        Packing is what the flattening thread does and then the loop's phase pack.
        """
        line, found = self.timeline, {}
        if "engine" in line.spans:
            found["time/engine_s"] = line.seconds("engine")
        for name in BACKGROUND:
            if name in line.spans:
                found[f"time/{name}_work_s"] = line.seconds(name)
                found[f"time/{name}_wait_s"] = line.seconds(f"{name}_wait")
        for metric, parts in (("score", ("score",)), ("pack", ("flatten", "pack"))):
            if work := sum(line.seconds(part) for part in parts if parts[0] in line.spans):
                hidden = sum(line.beside(part, "engine") for part in parts)
                found[f"time/{metric}_hidden_frac"] = hidden / work
        return found
