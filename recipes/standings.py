"""results.json and the tables of an evaluation. Names are made printable; model text never gets here."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.standings import Comparison, Standing, compared

MAX_NAMED = 5
"""So many of the problems that changed are named on the screen; results.json holds all."""


def comparisons(standings: Sequence[Standing], model: str) -> list[Comparison]:
    """The model's own rows against each other measurement of the same benchmark, in their order."""
    own = {each.benchmark: each for each in standings if each.label == model}
    others = {each.trial: each for each in reversed(standings) if each.label != model}
    return [compared(each, own[each.benchmark]) for each in reversed(others.values())]


def results_json(
    standings: Sequence[Standing],
    compared_rows: Sequence[Comparison],
    *,
    asked: dict[str, Any],
    templates: dict[str, Any],
    streams: Sequence[dict[str, Any]],
    versions: dict[str, Any],
    config: dict[str, Any],
) -> dict[str, Any]:
    """What results.json holds: all that is needed to ask the same again, and what came of it."""
    return {
        "config": config,
        "versions": versions,
        **asked,
        "best_templates": templates,
        "standings": [each.to_json() for each in standings],
        "comparisons": [asdict(each) for each in compared_rows],
        "streams": list(streams),
    }


def table(standings: Sequence[Standing]) -> Table:
    """One benchmark's rows, which share problems and samples; 80 columns are enough."""
    first = standings[0]
    size = f"{first.num_problems} problems, n = {first.num_samples}"
    built = Table(
        title=printable(f"{first.benchmark}: {size}", style="bold"),
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    built.add_column("", overflow="fold")
    for header in ("pass@1 [95%]", "pass@n", "maj@n", "answered", "cut off", "tokens"):
        built.add_column(header, justify="right", no_wrap=True)
    for each in standings:
        built.add_row(printable(each.label), *_cells(each))
    return built


def show(
    console: Console,
    standings: Sequence[Standing],
    rows: Sequence[Comparison],
    notes: Sequence[str],
) -> None:
    """A table a benchmark, what is to be known of them, and the comparisons."""
    for benchmark in dict.fromkeys(each.benchmark for each in standings):
        console.print(table([each for each in standings if each.benchmark == benchmark]))
    said = [*notes]
    if any(each.num_samples > 1 for each in standings):
        said.append(
            "pass@n and maj@n are single draws, too noisy to compare rows by; results.json has "
            "every k. In maj@k a tie is shared evenly."
        )
    said += [
        f"{each.benchmark}, {each.label}: {each.rates.num_ungraded} samples could not be graded"
        for each in standings
        if each.rates.num_ungraded
    ]
    said += [line for row in rows for line in comparison_lines(row)]
    for line in said:
        console.print(printable(line), soft_wrap=True)


def say(text: str) -> None:
    """One line for a person, harmless whatever names are in it."""
    Console().print(printable(text), soft_wrap=True)


def comparison_lines(row: Comparison) -> list[str]:
    """The difference with its interval and p-value, and the first of the problems that changed."""
    low, high = (100 * bound for bound in row.interval)
    lines = [
        f"{row.benchmark}, {row.before} to {row.after}: {100 * row.mean:+.1f} points of pass@1 "
        f"[{low:+.1f}, {high:+.1f}], p = {row.p_value:.2g}, paired over {row.num_problems} problems"
    ]
    for word, ids in (("gained", row.gained), ("lost", row.lost)):
        if ids:
            more = f" and {len(ids) - MAX_NAMED} more" if len(ids) > MAX_NAMED else ""
            lines.append(f"  {word} on {len(ids)}: {', '.join(ids[:MAX_NAMED])}{more}")
    return lines


def _cells(each: Standing) -> list[str]:
    low, high = each.pass_at_1_interval
    k = each.num_samples
    return [
        f"{100 * each.pass_at_1:.1f}% [{100 * low:.1f}, {100 * high:.1f}]",
        _percent(each.pass_at.get(k)) if k > 1 else "-",
        _percent(each.maj_at.get(k)) if k > 1 else "-",
        _percent(each.rates.answered_frac),
        _percent(each.rates.truncated_frac),
        f"{each.rates.mean_tokens:.0f}",
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def printable(text: str, style: str = "") -> Text:
    """Names come from files and command lines: control characters and markup do nothing."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return Text(shown, style=style)
