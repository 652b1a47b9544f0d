"""An audit for a person: tables for a terminal. Model text is hostile and is shown as ASCII only.

Takes what `Audit.to_json` gives, with what the command adds. Leaves out the JSON file.
"""

from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

MAX_STEPS = 8
SHOWN = 100
"""Characters of a response's end that are shown."""
SIDES = {
    "accepted": "they call it right, we do not",
    "refused": "we call it right, they do not",
}
FAULTS = ("truncated", "looks_cut", "loop", "repetitive", "empty")


def show(result: dict[str, Any], console: Console) -> None:
    """Print all of it."""
    for part in _parts(result):
        console.print(part, markup=False, highlight=False, soft_wrap=isinstance(part, str))


def _parts(result: dict[str, Any]) -> Iterator[str | Table]:
    yield _safe(_title(result))
    yield from (_safe(line) for line in _left_out(result))
    yield from _grades(result)
    for side in SIDES:
        if result["wrong_grades"][side]:
            yield _kinds(result, side)
    yield from _examples(result)
    yield _faults(result)
    yield from (_safe(line) for line in _lines(result))
    if len(result["steps"]) > 1:
        yield _steps(result["steps"])


def _title(result: dict[str, Any]) -> str:
    steps, groups = result["steps"], result["groups"]
    return (
        f"{result['format']}: {result['completions']:,} completions in {groups['count']:,} groups, "
        f"steps {steps[0]['step']} to {steps[-1]['step']}; graded by: {result['reward']}"
    )


def _left_out(result: dict[str, Any]) -> Iterator[str]:
    for reason, found in result["left_out"].items():
        yield f"left out: {found['count']:,} x {reason} (the first: {found['first']})"


def _grades(result: dict[str, Any]) -> Iterator[str | Table]:
    right, agreement = result["right"], result["agreement"]
    for name in ("theirs", "ours"):
        if right[name]:
            yield f"right by {name + ':':<8}{_rate(right[name])}"
    both = agreement["both_graded"]
    if both:
        yield (
            f"agreed: {agreement['agreed_frac']:.1%} of {both:,} graded by both; accepted wrongly "
            f"{agreement['accepted']:,}, refused wrongly {agreement['refused']:,}, if ours are right"
        )
    for name, count in result["ungraded"].items():
        yield f"{name.replace('_', ' ')}: {count:,}"
    if result["verdicts"]:
        verdicts = (f"{name} {v['frac']:.1%}" for name, v in result["verdicts"].items())
        yield "our verdicts: " + ", ".join(verdicts)
    means = {"their reward": result["rewards"], "our part": result["parts"]}
    for label, found in means.items():
        for name, spread in found.items():
            yield _safe(f"{label} {name}: mean {spread['mean']:.4f} of {spread['count']:,}")


def _kinds(result: dict[str, Any], side: str) -> Table:
    both = result["agreement"]["both_graded"]
    table = _table(f"{side}: {SIDES[side]}", "kind", "count", "of all", left=1)
    table.add_column("meaning", overflow="fold")
    for kind, found in result["wrong_grades"][side].items():
        share = f"{found['count'] / both:.2%}"
        table.add_row(Text(kind), f"{found['count']:,}", share, Text(found["meaning"]))
    return table


def _examples(result: dict[str, Any]) -> Iterator[str]:
    for side in SIDES:
        for kind, found in result["wrong_grades"][side].items():
            for example in found["examples"][:1]:
                yield _safe(
                    f"{side}, {kind}: {example['place']}; reference "
                    f"{_quoted(example['reference'])}, theirs {example['theirs']:g}, ours "
                    f"{example['ours']}; ends in {_quoted(example['response_end'])}"
                )


def _faults(result: dict[str, Any]) -> Table:
    table = _table("texts", "what", "share", "right by theirs", "right by ours", left=1)
    texts = result["texts"]
    for name in FAULTS:
        cells = (texts.get(f"{name}{end}") for end in ("", "_right_by_theirs", "_right_by_ours"))
        shares = ["-" if rate is None else f"{rate['frac']:.1%}" for rate in cells]
        table.add_row(name.replace("_", " "), *shares)
    return table


def _lines(result: dict[str, Any]) -> Iterator[str]:
    for name, rule in result["texts"]["rules"].items():
        yield f"{name.replace('_', ' ')}: {rule}"
    for name, spread in result["lengths"].items():
        yield (
            f"{name.replace('_', ' ')}: mean {spread['mean']:.0f}, median {spread['p50']:.0f}, "
            f"95% {spread['p95']:.0f}, most {spread['max']:.0f}"
        )
    groups = result["groups"]
    for name in ("no_signal_by_their_rewards", "no_signal_by_our_verdicts"):
        if groups[name]:
            yield f"groups with {name.replace('_', ' ')}: {_rate(groups[name])}"
    if groups["duplicate_completions"]:
        yield f"completions that repeat one of their group: {_rate(groups['duplicate_completions'])}"
    yield from _mismatch(result)


def _mismatch(result: dict[str, Any]) -> Iterator[str]:
    if gaps := result["mismatch"]:
        yield (
            f"sampler to trainer over {gaps['num_tokens']:,} tokens: abs {gaps['abs']:.2g}, "
            f"k3 {gaps['k3']:.2g}, max {gaps['max']:.2g} nats"
        )
    if logged := result.get("logged_mismatch"):
        yield (
            f"sampler to trainer by metrics.jsonl over {logged['rounds']:,} rounds: abs "
            f"{logged['abs']:.2g} (worst round {logged['worst_round']}: {logged['abs_of_worst']:.2g}), "
            f"max {logged['max']:.2g} nats"
        )


def _steps(steps: list[dict[str, Any]]) -> Table:
    """Evenly chosen ones, the first and the last among them."""
    table = _table(
        "by step", "step", "completions", "theirs", "ours", "cut", "loop", "characters", left=0
    )
    last = len(steps) - 1
    count = min(MAX_STEPS, len(steps))
    for row in (steps[round(i * last / (count - 1))] for i in range(count)):
        cut = "looks_cut_frac" if row["truncated_frac"] is None else "truncated_frac"
        shares = (row[name] for name in ("theirs_frac", "ours_frac", cut, "loop_frac"))
        table.add_row(
            str(row["step"]),
            f"{row['completions']:,}",
            *("-" if share is None else f"{share:.1%}" for share in shares),
            f"{row['mean_characters']:.0f}",
        )
    return table


def _table(title: str, *columns: str, left: int) -> Table:
    table = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right")
    return table


def _rate(rate: dict[str, Any]) -> str:
    return f"{rate['frac']:.1%} ({rate['count']:,} of {rate['of']:,})"


def _quoted(text: str) -> str:
    return ascii(text[-SHOWN:])


def _safe(line: str) -> str:
    """Printable ASCII: names of fields and files come from outside, too."""
    return line if line.isascii() and line.isprintable() else ascii(line)[1:-1]
