"""What rejection sampling came to, as counts.json holds it and as a person sees it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from recipes.rejection_asking import Asked
from recipes.standings import printable
from rollouts.rejection import Selection

DIFFICULTIES = ("0", "up to 0.25", "up to 0.5", "up to 0.75", "below 1", "1")
"""Pass rates that are counted together."""

NAMED = 3
"""Problems without a correct sample that the screen names."""


@dataclass(kw_only=True)
class Mean:
    """A mean of numbers of tokens; what is unknown counts nowhere."""

    count: int = 0
    total: int = 0

    def add(self, value: int | None) -> None:
        """One more."""
        if value is not None:
            self.count += 1
            self.total += value

    @property
    def value(self) -> float | None:
        """The mean; None of nothing."""
        return self.total / self.count if self.count else None


@dataclass(kw_only=True)
class Seen:
    """Lengths of what was sampled, and what rows were written.

    Attributes:
        by_origin: Rows.
        by_problem: Rows that are samples, by problem.
    """

    sampled: Mean = field(default_factory=Mean)
    correct: Mean = field(default_factory=Mean)
    kept: Mean = field(default_factory=Mean)
    by_origin: Counter[str] = field(default_factory=Counter)
    by_problem: Counter[str] = field(default_factory=Counter)
    problems: set[str] = field(default_factory=set)

    @property
    def num_rows(self) -> int:
        """Of all origins."""
        return sum(self.by_origin.values())

    def watched(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The same rows, counted as they pass."""
        for row in rows:
            self.kept.add(row["num_tokens"])
            self.by_origin[row["origin"]] += 1
            self.by_problem[row["problem_id"]] += row["origin"] == "samples"
            self.problems.add(row["problem_id"])
            yield row


def difficulty(pass_rate: float) -> str:
    """Which of `DIFFICULTIES` a pass rate belongs to."""
    bounds = (0.0, 0.25, 0.5, 0.75)
    for name, bound in zip(DIFFICULTIES, bounds, strict=False):
        if pass_rate <= bound:
            return name
    return DIFFICULTIES[-1] if pass_rate == 1.0 else DIFFICULTIES[-2]


def counts_of(
    asked: Asked, selection: Selection, removed: Mapping[str, Counter[str]], seen: Seen
) -> dict[str, Any]:
    """What counts.json holds. Of the samples, removed and kept add up to sampled."""
    tallies = {
        p.id: selection.tallies[p.id] for p in asked.trial.problems if p.id in selection.tallies
    }
    unsolved = [problem for problem, tally in tallies.items() if not tally.num_correct]
    by_difficulty = {
        name: {"problems": 0, "correct": 0, "kept": 0} for name in DIFFICULTIES if tallies
    }
    for problem, tally in tallies.items():
        row = by_difficulty[difficulty(tally.pass_rate)]
        row["problems"] += 1
        row["correct"] += tally.num_correct
        row["kept"] += seen.by_problem[problem]
    return {
        "sampled": seen.sampled.count,
        "correct": sum(tally.num_correct for tally in tallies.values()),
        "removed": {
            origin: {n: c for n, c in counts.items() if c} for origin, counts in removed.items()
        },
        "problems": {
            "asked": len(tallies),
            "prompt_too_long": asked.num_too_long,
            "without_correct": len(unsolved),
            "without_correct_ids": unsolved,
            "kept": len(seen.problems),
        },
        "kept": {
            "rows": seen.num_rows,
            "wanted": asked.config.num_rows,
            "by_origin": dict(seen.by_origin),
            "by_pass_rate": by_difficulty,
        },
        "mean_tokens": {
            "sampled": seen.sampled.value,
            "correct": seen.correct.value,
            "kept": seen.kept.value,
        },
    }


def nothing_kept(asked: Asked, counts: dict[str, Any], path: Path) -> str:
    """Why there is no row, in one line."""
    sampled, correct, problems = counts["sampled"], counts["correct"], counts["problems"]["asked"]
    removed = ", ".join(
        f"{name} {count}"
        for reasons in counts["removed"].values()
        for name, count in reasons.items()
    )
    if sampled and not correct:
        return (
            f"no sample is correct: {sampled} samples of {problems} problems by {asked.name}; see "
            f"{path}/samples/completions.jsonl, and raise num_samples or sampling.max_tokens, or "
            "choose easier problems, other prompts or another model"
        )
    return f"no row is kept; removed were {removed or 'none'} ({path}/counts.json): loosen filters"


def show(asked: Asked, counts: dict[str, Any]) -> None:
    """The small table."""
    console = Console()
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("rows", justify="right")
    for name, count in _steps(counts):
        table.add_row(name, str(count))
    console.print(table)
    unsolved = counts["problems"]["without_correct_ids"]
    lines = [f"kept of {counts['problems']['kept']} problems"]
    if unsolved:
        more = f" and {len(unsolved) - NAMED} more" if len(unsolved) > NAMED else ""
        lines.append(
            f"{len(unsolved)} of {counts['problems']['asked']} problems have no correct sample: "
            f"{', '.join(unsolved[:NAMED])}{more}"
        )
    lines += _told(asked, counts)
    for line in lines:
        console.print(printable(line), soft_wrap=True)


def _steps(counts: dict[str, Any]) -> Iterator[tuple[str, int]]:
    if counts["sampled"]:
        yield "sampled", counts["sampled"]
    for origin, reasons in counts["removed"].items():
        for name, count in reasons.items():
            yield f"  {name}{'' if origin == 'samples' else f' ({origin})'}", -count
    for origin, count in counts["kept"]["by_origin"].items():
        yield f"kept, {origin}", count


def _told(asked: Asked, counts: dict[str, Any]) -> Iterator[str]:
    """Pass rates, lengths, and what is missing."""
    rates = counts["kept"]["by_pass_rate"]
    if rates:
        parts = (
            f"{name}: {row['kept']} rows of {row['problems']} problems"
            for name, row in rates.items()
            if row["problems"]
        )
        yield f"samples kept by pass rate: {'; '.join(parts)}"
    means = {name: value for name, value in counts["mean_tokens"].items() if value is not None}
    if means:
        yield "mean tokens: " + ", ".join(f"{name} {value:.0f}" for name, value in means.items())
    rows, wanted = counts["kept"]["rows"], counts["kept"]["wanted"]
    if wanted is not None and rows < wanted:
        yield (
            f"{rows} of {wanted} rows that were wanted"
            + ("" if counts["kept"]["by_origin"].get("worked") else f"; {_no_more(asked)}")
        )


def _no_more(asked: Asked) -> str:
    if not asked.config.fill_up:
        return "fill_up is off"
    return f"task {asked.config.task.name} has no generator of worked solutions that pass"
