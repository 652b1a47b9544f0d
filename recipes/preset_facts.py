"""What a preset asks for and what to expect of it, in words: for --help, --plan and docs/presets.md.

Hours are the paper's or a measured run's where there are any, and otherwise the planner's estimate
on the stated device (`Plan.hours`), which counts no traffic between GPUs.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PresetFacts:
    """Of one preset. Sentences without a full stop at the end, for lists and tables."""

    about: str
    """What it is."""
    device: str
    """What it is planned for, as `--device` takes it: cpu, h100, 8xh100, 64x8xh800."""
    hardware: str
    """The same in words, the host's memory included where it matters."""
    data: str
    """Where the problems come from, and what stands in for what is not public."""
    licence: str
    """Of model and data."""
    hours: str = ""
    """The paper's or measured, with its source; empty: the planner's estimate."""
    mean_tokens: int
    """Of a completion over the run, as the estimate assumes."""
    prompt_tokens: int
    """Of the longest prompt, as the estimate assumes."""
    expected: str
    """Numbers to expect and whose they are."""
    ours: str
    """What no paper prints and was chosen here."""
    missing: str = ""
    """What this version lacks for it, so that the planner refuses it; empty if it fits."""
    ran: str = "never run here"
    """Whether it was run here, and where to read of it."""

    def rows(self, hours: str) -> Iterator[tuple[str, str]]:
        """Name and text of each fact that there is; `hours` as the caller knows them."""
        yield "hardware", self.hardware
        yield "data", self.data
        yield "licence", self.licence
        yield "hours", self.hours or hours
        yield "expect", self.expected
        yield "ours", self.ours
        if self.missing:
            yield "missing", self.missing
        yield "state", self.ran

    def told(self, hours: str = "python -m recipes.doctor --plan estimates them") -> str:
        """All of it as lines."""
        return "\n".join([self.about, *(f"{name}: {text}" for name, text in self.rows(hours))])
