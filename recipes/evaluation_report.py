"""report.md of an evaluation: every table, note and changed problem, to be read or sent on."""

from collections.abc import Sequence
from typing import Any

from eval.estimators import is_single_draw
from eval.standings import Comparison, Standing
from recipes.markdown import plain, table
from recipes.standings import comparison_lines


def report(
    standings: Sequence[Standing],
    rows: Sequence[Comparison],
    notes: Sequence[str],
    *,
    asked: dict[str, Any],
    versions: dict[str, Any],
) -> str:
    """Markdown. Names are made printable and lose what Markdown would take for markup."""
    lines = ["# Evaluation", ""]
    for label, model in asked["models"].items():
        digest = model["sha256"][:12]
        lines.append(
            f"- {label}: {plain(model['name'])} (files {digest}), template {model['template']}"
        )
    for benchmark in dict.fromkeys(each.benchmark for each in standings):
        origin = asked["benchmarks"][benchmark]
        lines += ["", f"## {plain(benchmark)}", ""]
        lines += [f"{plain(origin['origin'])}; rows {origin['sha256'][:12]}", ""]
        lines += _table([each for each in standings if each.benchmark == benchmark])
        for row in rows:
            if row.benchmark == benchmark:
                found = comparison_lines(row, max_named=len(row.gained) + len(row.lost))
                lines += ["", *(f"- {plain(line.strip())}" for line in found)]
    lines += ["", "## Notes", "", *(f"- {plain(line)}" for line in notes)]
    packages = ", ".join(f"{name} {version}" for name, version in versions["packages"].items())
    lines += ["", "## Made with", "", packages, ""]
    return "\n".join(lines)


def _table(standings: Sequence[Standing]) -> list[str]:
    first = standings[0]
    header = ["", *(each.label for each in standings)]
    body = [
        ["problems x samples", *(f"{s.num_problems} x {s.num_samples}" for s in standings)],
        ["pass@1, 95%", *(_with_interval(s) for s in standings)],
    ]
    for name, field in (("pass", "pass_at"), ("maj", "maj_at")):
        for k in first.ks:
            values = [getattr(each, field).get(k) for each in standings]
            if k > 1 and any(value is not None for value in values):
                star = "*" * is_single_draw(first.num_samples, k)
                body.append([f"{name}@{k}{star}", *map(_percent, values)])
    for part in dict.fromkeys(name for each in standings for name in each.parts):
        if part != "accuracy":  # pass@1 says it
            body.append([f"{part}, mean", *(_percent(each.parts.get(part)) for each in standings)])
    for verdict in first.rates.verdict_fracs:
        fracs = [each.rates.verdict_fracs[verdict] for each in standings]
        if any(fracs):
            body.append([verdict, *map(_percent, fracs)])
    if any(each.rates.formatted_frac is not None for each in standings):
        fracs = [each.rates.formatted_frac for each in standings]
        body.append(["in the format asked for", *map(_percent, fracs)])
    body += [
        ["cut off", *(_percent(each.rates.truncated_frac) for each in standings)],
        ["tokens, mean", *(f"{each.rates.mean_tokens:.0f}" for each in standings)],
        ["tokens, median", *(f"{each.rates.median_tokens:.0f}" for each in standings)],
        ["tokens, 95 of 100", *(f"{each.rates.p95_tokens:.0f}" for each in standings)],
    ]
    return table([header, *body])


def _with_interval(each: Standing) -> str:
    low, high = each.pass_at_1_interval
    return f"{100 * each.pass_at_1:.1f}% [{100 * low:.1f}, {100 * high:.1f}]"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"
