"""Completions that a trainer wrote down, read one by one: our run folders, TRL's tables, verl's dumps.

What each trainer writes was read in its sources: TRL 1.16 (`log_completions`: one parquet file a
logging step in output_dir/completions), verl of August 2026 (`trainer.rollout_data_dir` and
`trainer.validation_data_dir`: one JSONL file a step). A JSONL file with prompt and response in a
row is read too. At most one of our round files, or a few rows of another, is in memory at once.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import zstandard

from eval.judged import Sample
from recipes.dump_rows import Fields, LeftOut, sample_of
from rewards.problem import Verdict
from rollouts.records import read_groups
from rollouts.tasks.rows import Row

KNOWN = (
    "a run folder of ours (rollouts/round-*.jsonl.zst), TRL's tables (completions_*.parquet with "
    "prompt and completion), verl's dumps (*.jsonl with input, output and score), *.jsonl with "
    "prompt and response"
)
RESPONSES = ("response", "completion", "text")
BATCH_ROWS = 64
BROKEN = (
    zstandard.ZstdError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,
)
"""What a round file raises that is none of ours, or was cut off or changed."""

_CORRECTNESS = re.compile(r"accura|correct|math|answer|verif|solution|acc$", re.IGNORECASE)


Read = Iterator[Sample | LeftOut]


@dataclass(frozen=True, kw_only=True)
class Dump:
    """Where completions lie, in what form."""

    format: str
    files: tuple[Path, ...]
    reader: Callable[[Sequence[Path], Fields], Read]

    def read(self, fields: Fields) -> Read:
        """Every completion in the order of the files, and what is left out in its place."""
        return self.reader(self.files, fields)


def open_dump(path: Path) -> Dump:
    """What is at a path; nothing but names and one row is read.

    Raises:
        ValueError: Nothing is there, it holds no completions, or they are in no known form.
    """
    if path.is_dir():
        files, reader, name = _in_folder(path)
    elif path.is_file():
        files = [path]
        reader, name = _by_ending(path)
    else:
        raise ValueError(f"{path} is not there: name a file or folder of completions")
    return Dump(format=name, files=tuple(files), reader=reader)


def read_run(files: Sequence[Path], fields: Fields) -> Read:
    """Round files of ours; the grade is 1 where the verdict is correct, or a part by its name."""
    for file in files:
        number = re.search(r"\d+", file.name)
        try:
            groups = read_groups(file)
        except BROKEN as error:
            yield LeftOut(place=str(file), reason=f"no whole round file ({error!s:.80})")
            continue
        rows = ((group.problem, rollout) for group in groups for rollout in group.rollouts)
        for row, (problem, rollout) in enumerate(rows, start=1):
            score, response = rollout.score, rollout.response
            if fields.theirs and fields.theirs not in score.parts and not score.verdict.is_ours:
                reason = (
                    f"no part {fields.theirs!r}; the parts are {', '.join(score.parts) or 'none'}"
                )
                yield LeftOut(place=f"{file}, row {row}", reason=reason)
                continue
            is_right = float(score.verdict is Verdict.CORRECT)
            yield Sample(
                table=str(file),
                row=row,
                step=int(number[0]) if number else 0,
                prompt=problem.prompt,
                response=response,
                is_truncated=response.finish == "length",
                grade=None if score.verdict.is_ours else score.parts.get(fields.theirs, is_right),
                grade_field=fields.theirs or "verdict",
                rewards={"value": None if score.verdict.is_ours else score.value},
                answer=problem.answer,
                answer_field="problem.answer",
                problem=problem,
            )


def read_trl(files: Sequence[Path], fields: Fields) -> Read:
    """TRL's completion tables; every column of floats but the advantage is a reward.

    A table that repeats the one before (logged twice between two generations) is left out.
    """
    from pyarrow import ArrowException, parquet, types

    before = b""
    for path in files:
        try:
            file = parquet.ParquetFile(path)
            now = _digest(file)
        except (ArrowException, OSError) as error:
            yield LeftOut(place=str(path), reason=f"no whole parquet file ({error!s:.80})")
            continue
        if now == before:
            yield LeftOut(place=str(path), reason="the table before it again", is_fault=False)
            continue
        before = now
        if missing := {"prompt", "completion"} - set(file.schema_arrow.names):
            raise ValueError(
                f"{path} has no column {sorted(missing)[0]!r}; its columns are "
                f"{file.schema_arrow.names[:12]!a}; known are {KNOWN}"
            )
        rewards = [
            column.name
            for column in file.schema_arrow
            if types.is_floating(column.type) and column.name not in ("advantage", "step")
        ]
        theirs = fields.theirs or (_correctness(rewards, path) if rewards else "")
        columns = replace(fields, theirs=theirs)
        try:
            for number, row in enumerate(_parquet_rows(file), start=1):
                yield sample_of(row, path, number, columns, ("prompt", "completion"), rewards)
        except (ArrowException, OSError) as error:
            yield LeftOut(place=str(path), reason=f"no whole parquet file ({error!s:.80})")


def read_verl(files: Sequence[Path], fields: Fields) -> Read:
    """verl's dumps; the grade is `acc` where the reward gave it, else the score."""
    for path, number, row in _json_rows(files):
        if isinstance(row, LeftOut):
            yield row
            continue
        theirs = fields.theirs or ("acc" if "acc" in row else "score")
        columns = replace(fields, theirs=theirs)
        yield sample_of(row, path, number, columns, ("input", "output"), ["score"])


def read_rows(files: Sequence[Path], fields: Fields) -> Read:
    """JSONL with prompt and response, and, if known, answer, reward and step."""
    for path, number, row in _json_rows(files):
        if isinstance(row, LeftOut):
            yield row
            continue
        response = next((name for name in RESPONSES if name in row), RESPONSES[0])
        theirs = fields.theirs or ("reward" if "reward" in row else "")
        columns = replace(fields, theirs=theirs)
        yield sample_of(row, path, number, columns, ("prompt", response), ["reward"])


def _in_folder(path: Path) -> tuple[list[Path], Callable[..., Read], str]:
    rounds = _found(path, "rollouts", "round-*.jsonl.zst")
    if rounds:
        return rounds, read_run, "groupwise"
    if (path / "rollouts").is_dir():
        raise ValueError(f"{path} holds no rollouts yet")
    if tables := _found(path, "completions", "completions_*.parquet"):
        return tables, read_trl, "trl"
    lines = sorted(path.glob("*.jsonl"), key=lambda file: (_number(file), file.name))
    if lines:
        return lines, *_by_row(lines, path)
    there = ", ".join(sorted(item.name for item in path.iterdir())[:5])
    raise ValueError(f"{path} holds {there or 'nothing'}; known are {KNOWN}")


def _by_ending(path: Path) -> tuple[Callable[..., Read], str]:
    if path.name.endswith(".jsonl.zst"):
        return read_run, "groupwise"
    if path.suffix == ".parquet":
        return read_trl, "trl"
    if path.suffix == ".jsonl":
        return _by_row([path], path)
    raise ValueError(f"{path} ends in {path.suffix or 'nothing'}; known are {KNOWN}")


def _by_row(files: Sequence[Path], path: Path) -> tuple[Callable[..., Read], str]:
    """By the fields of the first row that can be read."""
    fault = ""
    for _, _, row in _json_rows(files):
        if isinstance(row, LeftOut):
            fault = fault or f"; {row.place}: {row.reason}"
            continue
        if {"input", "output", "score"} <= set(row):
            return read_verl, "verl"
        if "prompt" in row and any(name in row for name in RESPONSES):
            return read_rows, "rows"
        names = ascii(list(row)[:12])
        raise ValueError(f"{path}: its first row has the fields {names}; known are {KNOWN}")
    raise ValueError(f"{path} holds no rows{fault}")


def _found(path: Path, inside: str, pattern: str) -> list[Path]:
    """By their numbers, which are padded to a width that a long run outgrows."""
    files = list(path.glob(pattern)) or list((path / inside).glob(pattern))
    return sorted(files, key=lambda file: (len(file.name), file.name))


def _number(file: Path) -> float:
    return int(file.stem) if file.stem.isdecimal() else math.inf


def _json_rows(files: Sequence[Path]) -> Iterator[tuple[Path, int, Row | LeftOut]]:
    for path in files:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield path, number, _json_row(line, f"{path}, line {number}")


def _json_row(line: bytes, place: str) -> Row | LeftOut:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        half = "" if line.endswith(b"\n") else ", and it has no end: it may be half-written"
        return LeftOut(place=place, reason=f"not valid JSON ({error!s:.80}){half}")
    if not isinstance(row, dict):
        return LeftOut(place=place, reason=f"a JSON {type(row).__name__}; an object is needed")
    return row


def _parquet_rows(file: Any) -> Iterator[Row]:
    for batch in file.iter_batches(batch_size=BATCH_ROWS):
        yield from batch.to_pylist()


def _digest(file: Any) -> bytes:
    """Of what was asked and answered, so that the step does not count."""
    names = [name for name in ("prompt", "completion") if name in file.schema_arrow.names]
    found = sha256(str(file.metadata.num_rows).encode())
    for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names):
        found.update(repr(batch.to_pylist()).encode("utf-8", "surrogatepass"))
    return found.digest()


def _correctness(rewards: Sequence[str], path: Path) -> str:
    """The reward that says right or wrong: the only one, or the only one that is called so."""
    named = [name for name in rewards if _CORRECTNESS.search(name)]
    for names in (rewards, named):
        if len(names) == 1:
            return names[0]
    raise ValueError(
        f"{path} has the rewards {list(rewards)!a}: say which one is right or wrong with "
        "--theirs NAME"
    )
