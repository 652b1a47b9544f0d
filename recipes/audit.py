"""Audit what a trainer wrote down: its completions graded again by our rewards, and looked at.

`python -m recipes.audit PATH [--answers FILE] [--out FILE]`. PATH is a run folder of ours, TRL's
output_dir (log_completions), verl's rollout_data_dir, or a file of one of these; docs/audit.md.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from eval.audit import Audit
from eval.audit_report import show
from eval.judged import Judged, Sample
from eval.references import References, answer_in, read_references
from recipes.cli import guarded
from recipes.dump_rows import Fields, LeftOut
from recipes.dumps import Dump, open_dump
from recipes.regrading import Grader, Regrader, grader_of, grader_of_run, row_tests, usable_tests
from rewards.pool import RewardPool, ScoringConfig, num_workers
from rl.run_folder import read_metrics
from rollouts.tasks.rows import read_rows

SHOWN_FAULTS = 8
"""Different reasons for leaving rows out that are told apart."""


def main(argv: Sequence[str]) -> None:
    """Read, grade, print, write. Raises ValueError for a person's mistake."""
    given = _arguments(argv)
    dump = open_dump(given.path)
    fields = Fields(
        theirs=given.theirs or "",
        answer="" if given.answers else given.answer_column or "",
        logprobs=tuple(given.logprobs) if given.logprobs else None,
    )
    left_out: dict[str, dict[str, Any]] = {}
    samples = islice(_samples(dump, fields, left_out, skip=given.bad_rows == "skip"), given.limit)
    first = next(samples, None)
    if first is None:
        raise ValueError(f"{given.path} holds no completions")
    samples = chain([first], samples)
    if given.reward == "none":
        grader, judged = None, (Judged(sample=sample) for sample in samples)
        audit = _counted(judged, given, is_math=False)
    else:
        grader = _grader(given, dump, first)
        audit = _graded(samples, grader, given, dump)
    result = {
        "path": str(given.path),
        "format": dump.format,
        "files": len(dump.files),
        "left_out": left_out,
        "reward": grader.name if grader else "none",
        "answers": given.answers,
        "logged_mismatch": _logged_mismatch(given.path),
        **audit.to_json(),
    }
    show(result, Console())
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"everything, with {given.examples} examples a kind: {given.out}")


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m recipes.audit", description=__doc__)
    add = parser.add_argument
    add("path", type=Path, help="run folder, dump folder or file")
    add("--answers", help="questions with answers: a file, a folder with one a split, a hub id")
    add("--split", default="train", help="of --answers, where it has several (%(default)s)")
    add("--question-column", default="", help="of --answers")
    add("--answer-column", default="", help="of --answers, or else of the dump")
    add("--reward", default="", help="math, code, none, package.module:function")
    add("--language", default="en", help="whose share of words is a part (%(default)s)")
    add("--theirs", default="", help="the dump's field that says right or wrong")
    add("--right-above", type=float, default=0.0, help="their grade is right above it (0)")
    add("--logprobs", nargs=2, metavar=("SAMPLER", "TRAINER"), help="fields of the dump")
    add("--bad-rows", choices=("refuse", "skip"), default="refuse")
    add("--limit", type=int, help="completions, the first so many")
    add("--examples", type=int, default=5, help="kept of each kind (%(default)s)")
    add("--out", type=Path, help="a JSON file with everything")
    add("--workers", type=int, help="grading processes; one a core")
    add("--deadline-s", type=float, default=ScoringConfig.deadline_s)
    given = parser.parse_args(argv)
    if given.workers == 0:
        raise ValueError("--workers is 0: model text is graded in other processes; use 1 or more")
    for name in ("limit", "examples"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            raise ValueError(f"--{name} is {getattr(given, name)}: use 1 or more")
    if given.question_column and not given.answers:
        raise ValueError("--question-column names a field of --answers: give both, or neither")
    if given.out and not given.out.absolute().parent.is_dir():
        raise ValueError(f"--out is {given.out}, but {given.out.parent} is no folder")
    if given.out and given.out.is_dir():
        raise ValueError(f"--out is {given.out}, a folder: name a file")
    return given


def _samples(
    dump: Dump, fields: Fields, left_out: dict[str, dict[str, Any]], *, skip: bool
) -> Iterator[Sample]:
    """The samples; what is left out is counted by its reason, or a fault is raised."""
    for item in dump.read(fields):
        if isinstance(item, Sample):
            yield item
            continue
        if item.is_fault and not skip:
            raise ValueError(f"{item.place}: {item.reason}; --bad-rows skip leaves such rows out")
        _count(item, left_out)


def _count(item: LeftOut, left_out: dict[str, dict[str, Any]]) -> None:
    reason = item.reason.partition(" (")[0]
    if reason not in left_out and len(left_out) >= SHOWN_FAULTS:
        reason = "other faults"
    found = left_out.setdefault(reason, {"count": 0, "first": item.place})
    found["count"] += 1


def _grader(given: argparse.Namespace, dump: Dump, first: Sample) -> Grader:
    """The reward that was named, the run's own, or by the first reference."""
    if given.reward:
        return grader_of(given.reward, given.language)
    if dump.format == "groupwise" and (given.path / "config.yaml").is_file():
        return grader_of_run(given.path, given.language)
    are_tests = first.answer is not None and usable_tests(first.answer) is not None
    return grader_of("code" if are_tests else "math", given.language)


def _graded(
    samples: Iterator[Sample], grader: Grader, given: argparse.Namespace, dump: Dump
) -> Audit:
    scoring = ScoringConfig(workers=given.workers, deadline_s=given.deadline_s)
    references = _references(given, grader)
    with RewardPool(grader.reward, scoring) as pool:
        regrader = Regrader(
            grader=grader,
            pool=pool,
            references=references,
            source=dump.format,
            workers=num_workers(scoring),
        )
        return _counted(regrader.judged(samples), given, is_math=grader.is_math)


def _references(given: argparse.Namespace, grader: Grader) -> References | None:
    if not given.answers:
        return None
    read = row_tests if grader.takes_tests else answer_in
    column = given.answer_column
    rows = read_rows(given.answers, "", given.split)
    return read_references(rows, given.question_column, lambda row, place: read(row, column, place))


def _counted(judged: Iterable[Judged], given: argparse.Namespace, *, is_math: bool) -> Audit:
    audit = Audit(right_above=given.right_above, num_examples=given.examples, is_math=is_math)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task("audit", total=given.limit)
        for item in judged:
            audit.add(item)
            bar.update(task, advance=1, description=f"{audit.completions:,} completions")
    return audit


def _logged_mismatch(path: Path) -> dict[str, Any] | None:
    """What a run of ours logged of it, round by round."""
    rows = [row for row in read_metrics(path / "metrics.jsonl") if "mismatch/abs" in row]
    if not rows:
        return None
    worst = max(rows, key=lambda row: row["mismatch/abs"])
    return {
        "rounds": len(rows),
        "abs": sum(row["mismatch/abs"] for row in rows) / len(rows),
        "worst_round": int(worst["round"]),
        "abs_of_worst": worst["mismatch/abs"],
        "max": max(row["mismatch/max"] for row in rows),
    }


if __name__ == "__main__":
    sys.exit(guarded(partial(main, sys.argv[1:])))
