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
SHOWN_LINES = 4
SHOWN_CHARS = 100
"""Of a text's end in an example: lines, and characters of each."""
SIDES = {
    "accepted": "they call it right, we do not",
    "refused": "we call it right, they do not",
}
FAULTS = ("truncated", "looks_cut", "loop", "repetitive", "empty")
PARTS = {
    "format": ", R1-Zero's <think> and <answer> tags",
    "language": ", the share of words in the language that was asked for",
}
UNGRADED = {
    "no_answer_to_grade_against": "not graded by ours, no reference answer found",
    "reference_not_read": "not graded by ours, the reference is not right by its own reward",
    "our_grader_failed": "not graded by ours, our grader failed",
    "not_graded_by_them": "not graded by theirs",
}


def show(result: dict[str, Any], console: Console) -> None:
    """Print all of it."""
    for part in _parts(result):
        console.print(part, markup=False, highlight=False, soft_wrap=isinstance(part, str))


def _parts(result: dict[str, Any]) -> Iterator[str | Table]:
    yield from (_safe(line) for line in _origins(result))
    yield from (_safe(line) for line in _grades(result))
    for side in SIDES:
        if result["wrong_grades"][side]:
            yield ""
            yield _kinds(result, side)
            yield from (_safe(line) for line in _examples(result, side))
    yield ""
    yield _faults(result)
    yield from (_safe(line) for line in _rules(result))
    yield ""
    yield _lengths(result["lengths"])
    yield ""
    yield from (_safe(line) for line in _groups(result))
    if len(result["steps"]) > 1:
        yield ""
        yield _steps(result["steps"])


def _origins(result: dict[str, Any]) -> Iterator[str]:
    """What was read, and what says right or wrong."""
    steps, groups = result["steps"], result["groups"]
    span = f"step {steps[0]['step']}"
    if len(steps) > 1:
        span = f"steps {steps[0]['step']} to {steps[-1]['step']}"
    yield (
        f"{result['format']}: {_counted(result['completions'], 'completion')} in "
        f"{_counted(groups['count'], 'group')}, {span}; {result['path']}, "
        f"{_counted(result['files'], 'file')}"
    )
    for reason, found in result["left_out"].items():
        yield f"left out: {found['count']:,} x {reason} (the first: {found['first']})"
    fields = ", ".join(result["grade_fields"])
    above = "" if fields == "verdict" else f", right above {result['right_above']:g}"
    yield f"theirs: the dump's {fields}{above}" if fields else "theirs: no grade in the dump"
    fields = ", ".join(result["answer_fields"]) or "none"
    answers = result["answers"] or f"the dump's {fields}"
    is_graded = result["reward"] != "none"
    yield f"ours: {result['reward']}" + (f"; reference answers: {answers}" if is_graded else "")


def _grades(result: dict[str, Any]) -> Iterator[str]:
    yield ""
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
        yield f"{UNGRADED[name]}: {count:,}"
    if result["verdicts"]:
        verdicts = (f"{name} {v['frac']:.1%}" for name, v in result["verdicts"].items())
        yield "our verdicts: " + ", ".join(verdicts)
    for name, spread in result["rewards"].items():
        yield f"their reward {name}: {_mean(spread)}"
    for name, spread in result["parts"].items():
        yield f"our part {name}{PARTS.get(name, '')}: {_mean(spread)}"


def _kinds(result: dict[str, Any], side: str) -> Table:
    both = result["agreement"]["both_graded"]
    table = _table(f"{side}: {SIDES[side]}", "kind", "count", "of all", left=1)
    table.add_column("meaning", overflow="fold")
    for kind, found in result["wrong_grades"][side].items():
        share = f"{found['count'] / both:.2%}"
        table.add_row(Text(kind), f"{found['count']:,}", share, Text(found["meaning"]))
    return table


def _examples(result: dict[str, Any], side: str) -> Iterator[str]:
    """One of each kind; the texts' last lines, as they stand."""
    for kind, found in result["wrong_grades"][side].items():
        for example in found["examples"][:1]:
            yield f"{side}, {kind}: {example['place']}"
            yield f"  theirs {example['theirs']:g}, ours {example['ours']}"
            for label, name in (
                ("reference", "reference"),
                ("prompt", "prompt_end"),
                ("response", "response_end"),
            ):
                for line in _last_lines(example[name]):
                    yield f"  {label:<9} | {line}"
                    label = ""


def _last_lines(text: str) -> list[str]:
    lines = [line for line in text.split("\n") if line.strip()][-SHOWN_LINES:]
    return [line[-SHOWN_CHARS:] for line in lines] or [""]


def _faults(result: dict[str, Any]) -> Table:
    table = _table("texts", "what", "share", "right by theirs", "right by ours", left=1)
    texts = result["texts"]
    for name in FAULTS:
        if texts.get(name):
            ends = ("", "_right_by_theirs", "_right_by_ours")
            cells = (texts.get(f"{name}{end}") for end in ends)
            shares = ["-" if rate is None else f"{rate['frac']:.1%}" for rate in cells]
            table.add_row(name.replace("_", " "), *shares)
    return table


def _rules(result: dict[str, Any]) -> Iterator[str]:
    for name, rule in result["texts"]["rules"].items():
        if result["texts"][name]["count"]:
            yield f"{name.replace('_', ' ')}: {rule}"


def _lengths(lengths: dict[str, Any]) -> Table:
    table = _table("lengths", "of", "mean", "median", "95%", "most", left=1)
    for name in sorted(lengths):
        shown = (f"{lengths[name][key]:,.0f}" for key in ("mean", "p50", "p95", "max"))
        table.add_row(name.replace("_", " "), *shown)
    return table


def _groups(result: dict[str, Any]) -> Iterator[str]:
    groups = result["groups"]
    for name in ("no_signal_by_their_rewards", "no_signal_by_our_verdicts"):
        if groups[name]:
            label = f"groups of two or more with {name.replace('_', ' ')} (all equal)"
            yield f"{label}: {_rate(groups[name])}"
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
    is_known = any(step["truncated_frac"] is not None for step in steps)
    cut = "truncated" if is_known else "looks_cut"
    columns = ("step", "completions", "theirs", "ours", cut.replace("_", " "), "loop", "characters")
    table = _table("by step", *columns, left=0)
    last = len(steps) - 1
    count = min(MAX_STEPS, len(steps))
    for row in (steps[round(i * last / (count - 1))] for i in range(count)):
        shares = (row[f"{name}_frac"] for name in ("theirs", "ours", cut, "loop"))
        table.add_row(
            str(row["step"]),
            f"{row['completions']:,}",
            *("-" if share is None else f"{share:.1%}" for share in shares),
            f"{row['mean_characters']:.0f}",
        )
    return table


def _table(title: str, *columns: str, left: int) -> Table:
    table = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right")
    return table


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _mean(spread: dict[str, Any]) -> str:
    return f"mean {spread['mean']:.4f} of {spread['count']:,}"


def _rate(rate: dict[str, Any]) -> str:
    return f"{rate['frac']:.1%} ({rate['count']:,} of {rate['of']:,})"


def _safe(line: str) -> str:
    """Printable ASCII, anything else escaped: names of fields and files come from outside, too."""
    return "".join(
        char if char.isascii() and char.isprintable() else ascii(char)[1:-1] for char in line
    )
