"""Before and after side by side: a table for the terminal and a dictionary for eval.json.

Rows share problems, samples and sampling, or there is no table. Model text never gets here.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from eval.evaluate import EvalResult
from eval.problem_counts import Difference, difference


def paired_difference(before: EvalResult, after: EvalResult) -> Difference:
    """pass@1 of `after` minus `before`, paired by problem, with its 95% interval.

    Raises:
        ValueError: The two do not hold the same problems in the same order, or no problem
            was graded in both.
    """
    _check_comparable({"before": before, "after": after})
    return difference(before.counts, after.counts)


def before_after_table(results: Mapping[str, EvalResult]) -> Table:
    """One row a result, in the order given; the caption compares the first with the last.

    Example: `before_after_table({"base": base, "base, best prompt": best, "trained": after})`.

    Raises:
        ValueError: No result, or rows that were not measured alike.
    """
    first = _check_comparable(results)
    star = "*" if first.is_single_draw else ""
    # Without frame and spare padding it fits into 80 columns.
    table = Table(
        title="Before and after",
        title_justify="left",
        caption=_caption(results),
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("")
    headers = ("pass@1 [95% interval]", f"pass@{first.k}{star}", f"maj@{first.k}{star}")
    for header in (*headers, "truncated", "tokens"):
        table.add_column(escape(header), justify="right")
    for label, result in results.items():
        low, high = result.pass_at_1_interval
        table.add_row(
            escape(label),
            escape(f"{100 * result.pass_at_1:.1f}% [{100 * low:.1f}, {100 * high:.1f}]"),
            _percent(result.pass_at_k),
            _percent(result.maj_at_k),
            _percent(result.truncated_frac),
            f"{result.mean_tokens:.0f}",
        )
    return table


def eval_json(results: Mapping[str, EvalResult]) -> dict[str, Any]:
    """What eval.json holds: each result, and the paired difference of first and last row.

    `{"results": {label: EvalResult.to_json()}, "difference": {"before": label, "after":
    label, "mean": ..., "interval": [...], "p_value": ..., "num_problems": ..., "gained": [...],
    "lost": [...]} or None if there is one row}`.
    """
    _check_comparable(results)
    written: dict[str, Any] = {name: result.to_json() for name, result in results.items()}
    before, after = _ends(results)
    if before == after:
        return {"results": written, "difference": None}
    found = paired_difference(results[before], results[after])
    return {
        "results": written,
        "difference": {"before": before, "after": after, **asdict(found)},
    }


def _check_comparable(results: Mapping[str, EvalResult]) -> EvalResult:
    """The first result, once every other was measured like it."""
    if not results:
        raise ValueError("no result to report; evaluate at least one policy first")
    (first_label, first), *others = results.items()
    for label, other in others:
        for name in ("split", "num_samples", "k", "sampling"):
            ours, theirs = getattr(first, name), getattr(other, name)
            if ours != theirs:
                raise ValueError(
                    f"{first_label!r} has {name}={ours} and {label!r} has {name}={theirs}; "
                    "evaluate both with the same protocol to compare them"
                )
        if [count.id for count in first.counts] != [count.id for count in other.counts]:
            raise ValueError(
                f"{first_label!r} and {label!r} do not hold the same problems in the same "
                "order; evaluate both on one list"
            )
    return first


def _caption(results: Mapping[str, EvalResult]) -> str:
    """What the table's numbers are of; markup in labels is escaped."""
    first = next(iter(results.values()))
    split = f" of the {first.split} split" if first.split else ""
    problems = "problem" if first.num_problems == 1 else "problems"
    lines = [
        f"{first.num_problems} {problems}{split}, {first.num_samples} samples each at "
        f"temperature {first.sampling.temperature:g}, at most {first.sampling.max_tokens} tokens."
    ]
    if first.is_single_draw:
        lines.append(f"* a single draw at n={first.num_samples}: too noisy to compare rows by.")
    lines += [
        f"{label}: {result.num_ungraded} samples could not be graded and are left out."
        for label, result in results.items()
        if result.num_ungraded
    ]
    before, after = _ends(results)
    if before != after:
        lines.append(_difference_line(before, after, results))
    return escape("\n".join(lines))


def _difference_line(before: str, after: str, results: Mapping[str, EvalResult]) -> str:
    found = paired_difference(results[before], results[after])
    low, high = (100 * bound for bound in found.interval)
    return (
        f"pass@1, {before} to {after}: {100 * found.mean:+.1f} points "
        f"[{low:+.1f}, {high:+.1f}], p = {found.p_value:.2g}, paired over "
        f"{found.num_problems} problems: {len(found.gained)} gained, "
        f"{len(found.lost)} lost."
    )


def _ends(results: Mapping[str, EvalResult]) -> tuple[str, str]:
    labels = list(results)
    return labels[0], labels[-1]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"
