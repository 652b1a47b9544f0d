"""results.json and the tables of an evaluation. Names are made printable; model text never gets here."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.estimators import TIE_RULE, is_single_draw
from eval.intervals import MIN_SEEDS, SEEDS_NOTE, SeedSpread, agree, over_seeds
from eval.standings import Comparison, Standing, compared

AGAINST = "against"
MAX_NAMED = 5
"""So many of the problems that changed are named on the screen; results.json holds all."""


def comparisons(standings: Sequence[Standing]) -> list[Comparison]:
    """Each model's rows beside every measurement of `against` on that benchmark, in order."""
    return [
        compared(before, after)
        for before in standings
        for after in standings
        if before.subject == AGAINST != after.subject and after.benchmark == before.benchmark
    ]


def spreads(standings: Sequence[Standing]) -> dict[str, SeedSpread]:
    """By benchmark, pass@1 over models that are training seeds of one recipe; empty for one model."""
    found: dict[str, list[float]] = {}
    for each in standings:
        if each.subject != AGAINST:
            found.setdefault(each.benchmark, []).append(each.pass_at_1)
    return {name: over_seeds(values) for name, values in found.items() if len(values) > 1}


def results_json(
    standings: Sequence[Standing],
    compared_rows: Sequence[Comparison],
    *,
    asked: dict[str, Any],
    spread: dict[str, SeedSpread],
    templates: dict[str, Any],
    training_overlap: dict[str, Any],
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
        "over_models": {name: asdict(each) for name, each in spread.items()},
        "training_overlap": training_overlap,
        "streams": list(streams),
    }


def table(standings: Sequence[Standing]) -> Table:
    """One benchmark's rows, which share problems and samples; 80 columns are enough.

    A star marks a single draw: fewer than four times k samples.
    """
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
    for header in ("pass@1 [95%]", *_headers(first), "answered", "cut off", "tokens"):
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
    for line in [*notes, *(line for row in rows for line in comparison_lines(row, MAX_NAMED))]:
        console.print(printable(line), soft_wrap=True)


def reading_notes(standings: Sequence[Standing]) -> list[str]:
    """How the tables are to be read, and what is missing from them."""
    said = []
    if any(each.num_samples > 1 for each in standings):
        said.append(
            "* a single draw (n is below 4k): too noisy to compare rows by. results.json has pass@k "
            f"for every k. maj@k: {TIE_RULE}."
        )
    for each in standings:
        for count, what in (
            (each.rates.num_ungraded, "samples could not be graded"),
            (each.num_uncompared, "answers vote alone in maj@k: comparing them took too long"),
        ):
            if count:
                said.append(f"{each.benchmark}, {each.label}: {count} {what}")
    return said


def spread_lines(spread: Mapping[str, SeedSpread], rows: Sequence[Comparison]) -> list[str]:
    """Several models side by side, and whether all of them say the same of the other one."""
    lines = [
        f"{name}: pass@1 of {each.num_seeds} models {100 * each.mean:.1f}% on average, standard "
        f"deviation {100 * each.std:.1f} points, from {100 * each.lowest:.1f} to {100 * each.highest:.1f}"
        for name, each in spread.items()
        if each.std is not None
    ]
    for benchmark, before in dict.fromkeys((row.benchmark, row.before) for row in rows):
        intervals = [r.interval for r in rows if (r.benchmark, r.before) == (benchmark, before)]
        if len(intervals) > 1:
            verdict = "agree" if agree(intervals) else "do not suffice"
            lines.append(
                f"{benchmark}, beside {before}: {len(intervals)} paired intervals {verdict} to call "
                f"one better ({MIN_SEEDS} or more, none with 0, all on one side)"
            )
    return [*lines, *([f"Over models: {SEEDS_NOTE}."] if lines else [])]


def say(text: str) -> None:
    """One line for a person, harmless whatever names are in it."""
    Console().print(printable(text), soft_wrap=True)


def comparison_lines(row: Comparison, max_named: int) -> list[str]:
    """The difference with its interval and p-value, and the first of the problems that changed."""
    low, high = (100 * bound for bound in row.interval)
    lines = [
        f"{row.benchmark}, {row.before} to {row.after}: {100 * row.mean:+.1f} points of pass@1 "
        f"[{low:+.1f}, {high:+.1f}], p = {row.p_value:.2g}, paired over {row.num_problems} problems"
    ]
    for word, ids in (("gained", row.gained), ("lost", row.lost)):
        if ids:
            more = f" and {len(ids) - max_named} more" if len(ids) > max_named else ""
            lines.append(f"  {word} on {len(ids)}: {', '.join(ids[:max_named])}{more}")
    return lines


def _shown_ks(each: Standing) -> list[int]:
    """Of pass@k: the largest k that is no single draw, and the largest of all."""
    sound = [k for k in each.ks if k > 1 and not is_single_draw(each.num_samples, k)]
    return sorted({*sound[-1:], max(each.ks)} - {1})


def _headers(each: Standing) -> list[str]:
    marked = {k: f"{k}{'*' * is_single_draw(each.num_samples, k)}" for k in each.ks}
    ks = _shown_ks(each)
    return [*(f"pass@{marked[k]}" for k in ks), *(f"maj@{marked[k]}" for k in ks[-1:])]


def _cells(each: Standing) -> list[str]:
    low, high = each.pass_at_1_interval
    ks = _shown_ks(each)
    return [
        f"{100 * each.pass_at_1:.1f}% [{100 * low:.1f}, {100 * high:.1f}]",
        *(_percent(each.pass_at.get(k)) for k in ks),
        *(_percent(each.maj_at.get(k)) for k in ks[-1:]),
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
