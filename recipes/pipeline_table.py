"""What a pipeline came to: one row a model, the differences that matter, and samples of its thinking.

Everything is read from the folders of the evaluations; nothing is sampled or graded again.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from eval.intervals import agree
from eval.problem_counts import Difference, difference
from recipes.pipeline import Pipeline
from recipes.pipeline_rows import Row, grades, kind_of, read_rows
from recipes.standings import printable
from rl.run_folder import write_atomically
from rollouts.completions import Saved, Texts

NUM_SHOWN = 3


def report(pipeline: Pipeline) -> None:
    """Write table.json and report.md, and print both tables; says so where nothing is measured yet."""
    rows = list(read_rows(pipeline))
    if not rows:
        print("no model is measured yet")
        return
    compared = list(comparisons(rows, pipeline.compared))
    stages = {s.name: m for s in pipeline.listed if (m := pipeline.stages.manifest(s.name))}
    seconds = sum(manifest["seconds"] for manifest in stages.values())
    measuring = sum(m["seconds"] for name, m in stages.items() if name.startswith("measure_"))
    table = {
        "rows": [asdict(row) for row in rows],
        "comparisons": [{"before": a, "after": b, **asdict(d)} for a, b, d in compared],
        "seconds": {name: manifest["seconds"] for name, manifest in stages.items()},
    }
    root = pipeline.stages.root
    write_atomically(root / "table.json", (json.dumps(table, indent=1) + "\n").encode())
    console = Console()
    for benchmark in dict.fromkeys(row.benchmark for row in rows):
        console.print(built([row for row in rows if row.benchmark == benchmark]))
    lines = [comparison_line(*each) for each in compared]
    lines += seed_lines(compared)
    lines.append(
        f"{len(stages)} stages, {seconds / 60:.0f} min in all, {measuring / 60:.0f} of them measuring; "
        f"each stage's manifest is in {root}/stages/NAME/manifest.json"
    )
    for line in lines:
        console.print(printable(line), soft_wrap=True)
    text = "\n\n".join([*map(markdown, _by_benchmark(rows)), *lines, *samples(pipeline, rows)])
    write_atomically(root / "report.md", (text + "\n").encode())


def comparisons(
    rows: Sequence[Row], pairs: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, str, Difference]]:
    """Pairs of rows of one benchmark, problem by problem."""
    found = {(row.stage, row.benchmark): row for row in rows}
    for before, after in pairs:
        for benchmark in dict.fromkeys(row.benchmark for row in rows):
            if (before, benchmark) in found and (after, benchmark) in found:
                one, other = found[before, benchmark], found[after, benchmark]
                yield one.name, other.name, difference(one.counts, other.counts)


def comparison_line(before: str, after: str, found: Difference) -> str:
    """Dev1 to Dev2: +20.0 points of pass@1 [+12.1, +27.9], p = 0.0001, paired over 100 problems."""
    low, high = (100 * bound for bound in found.interval)
    return (
        f"{before} to {after}: {100 * found.mean:+.1f} points of pass@1 [{low:+.1f}, {high:+.1f}], "
        f"p = {found.p_value:.2g}, paired over {found.num_problems} problems"
    )


def seed_lines(compared: Sequence[tuple[str, str, Difference]]) -> Iterator[str]:
    """Where several seeds made the same step, whether they agree."""
    steps: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for before, after, found in compared:
        step = (before.partition(", seed ")[0], after.partition(", seed ")[0])
        steps.setdefault(step, []).append(found.interval)
    for (before, after), intervals in steps.items():
        if len(intervals) > 1:
            told = "agree" if agree(intervals) else "do not suffice to call one better"
            yield f"{before} to {after}: the paired intervals of {len(intervals)} seeds {told}"


def built(rows: Sequence[Row]) -> Table:
    """One benchmark's rows for a terminal."""
    first = rows[0]
    table = Table(
        title=printable(
            f"{first.benchmark}: {len(first.counts)} problems, n = {first.num_samples}, a single draw",
            style="bold",
        ),
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for place, header in enumerate(_headers(first)):
        shape = {"justify": "right", "no_wrap": True} if place else {"overflow": "fold"}
        table.add_column(header, **shape)
    for row in rows:
        table.add_row(*(printable(cell) for cell in _cells(row)))
    return table


def markdown(rows: Sequence[Row]) -> str:
    """The same as a table of Markdown, and thinking by the kind of problem."""
    headers = _headers(rows[0])
    lines = [f"## {rows[0].benchmark}", "", _line(headers), _line(["---"] * len(headers))]
    lines += [_line(_cells(row)) for row in rows]
    sources = list(rows[0].thinking_by_source)
    lines += ["", "pass@1 (and tokens of thinking) by kind:", ""]
    lines += [_line(["", *sources]), _line(["---"] * (len(sources) + 1))]
    for row in rows:
        cells = [
            f"{100 * row.pass_by_source[s]:.0f}% ({row.thinking_by_source[s]:.0f})" for s in sources
        ]
        lines.append(_line([row.name, *cells]))
    return "\n".join(lines)


def samples(pipeline: Pipeline, rows: Sequence[Row]) -> Iterator[str]:
    """Three right and three wrong completions of some models, of other kinds of problems where they can be."""
    for row in (row for stage in pipeline.shown for row in rows if row.stage == stage):
        trial = pipeline.stages.folder(f"measure_{row.stage}") / "completions" / row.trial
        verdicts = grades(trial)
        for title, wanted in (("right", True), ("wrong", False)):
            texts = (t for t in Texts(trial) if (verdicts[t.key] == "correct") is wanted)
            for each in _of_kinds(sorted(texts, key=lambda t: (t.sample, t.problem))):
                yield f"### {row.name}, {title}: {each.problem}\n\n{_fenced(each.text)}"


def _of_kinds(texts: Sequence[Saved]) -> list[Saved]:
    """A few of them: the first of each kind of problem, of the last kinds, then whatever is there."""
    firsts: dict[str, Saved] = {}
    for each in texts:
        firsts.setdefault(kind_of(each.problem), each)
    chosen = list(firsts.values())[-NUM_SHOWN:]
    rest = [each for each in texts if each not in chosen]
    return [*chosen, *rest][:NUM_SHOWN]


def _fenced(text: str) -> str:
    """Model text as an indented block of code: nothing in it is Markdown or HTML."""
    lines = text.splitlines() or [""]
    shown = ("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines)
    return "\n".join(f"    {line}" for line in shown)


def _by_benchmark(rows: Sequence[Row]) -> list[list[Row]]:
    names = dict.fromkeys(row.benchmark for row in rows)
    return [[row for row in rows if row.benchmark == name] for name in names]


def _headers(row: Row) -> list[str]:
    n = row.num_samples
    return ["", "pass@1 [95%]", f"pass@{n}", f"maj@{n}", "format", "think", "lang", "tokens"]


def _cells(row: Row) -> list[str]:
    low, high = (100 * bound for bound in row.pass_at_1_interval)
    return [
        f"{row.name} ({row.label.partition('(')[2]}" if row.stage == "base" else row.name,
        f"{100 * row.pass_at_1:.1f}% [{low:.1f}, {high:.1f}]",
        f"{100 * row.pass_at_n:.1f}%",
        "-" if row.maj_at_n is None else f"{100 * row.maj_at_n:.1f}%",
        f"{100 * row.format_frac:.1f}%",
        f"{row.thinking_tokens:.0f}",
        f"{100 * row.language_frac:.1f}%",
        f"{row.tokens:.0f}",
    ]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
