"""When things happened, by name and from any thread, and how much of one ran beside another.

Times are `time.perf_counter`'s, in seconds.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

Span = tuple[float, float]
"""(began, ended)."""


@dataclass(kw_only=True)
class Timeline:
    """Spans of time by name, in the order in which they ended.

    Example: "engine" (0, 2) and (3, 5), "score" (1, 4): 2 of score's 3 seconds ran beside engine.
    """

    spans: dict[str, list[Span]] = field(default_factory=dict)

    def record(self, name: str, began: float, ended: float) -> None:
        """Add a span."""
        self.spans.setdefault(name, []).append((began, ended))

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Record what happens inside, however it ends."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.record(name, began, time.perf_counter())

    def take(self, other: "Timeline") -> None:
        """Move all that `other` holds into this one."""
        for name, spans in other.spans.items():
            self.spans.setdefault(name, []).extend(spans)
        other.spans = {}

    def seconds(self, name: str) -> float:
        """Of all spans of a name together; where they overlap each counts."""
        return sum(ended - began for began, ended in self.spans.get(name, ()))

    def beside(self, name: str, other: str) -> float:
        """Seconds of `name` that fell into spans of `other`, which must not overlap one another."""
        edges = np.array(sorted(self.spans.get(other, ()))).ravel()
        if not edges.size or name not in self.spans:
            return 0.0
        steps = np.diff(edges)
        steps[1::2] = 0.0  # between two spans
        passed = np.concatenate([[0.0], steps.cumsum()])
        within = np.interp(np.array(self.spans[name]), edges, passed)
        return float((within[:, 1] - within[:, 0]).sum())
