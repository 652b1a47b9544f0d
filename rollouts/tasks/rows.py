"""The rows of a data set as dictionaries, each with its place, wherever the data set lies.

A place is a file (.jsonl, .json, .csv, .parquet), a folder with one such file a split, or the
id of a Hugging Face data set. Leaves out what the rows mean (rollouts/tasks/dataset.py).
"""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Located = tuple[str, Row]


class MissingField(ValueError):
    """A row has no such field."""


class HubUnreachable(ValueError):
    """The hub did not give a data set: no network, no such name, or no right to read it."""

    def __init__(self, reason: str, remedy: str):
        """One line of both; `reason` alone stays to be read."""
        super().__init__(f"{reason}: {remedy}")
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class RowSource:
    """Where a task's rows lie, and which of them are its own test rows."""

    path: str
    """A .jsonl, .json, .csv or .parquet file, a folder with one a split, or a Hugging Face id."""
    subset: str = ""
    """Configuration of a Hugging Face data set, such as "main"."""
    train_split: str = "train"
    """Its rows are trained on, but for a tenth or two that a hash keeps for validation and test;
    empty for none."""
    test_split: str = ""
    """The data set's own test rows; empty where it has none: then a tenth of all, by hash."""
    name: str = ""
    """First part of ids and the source; empty takes the file's or data set's name."""

    def __post_init__(self) -> None:
        """Name the task after its data; a slash would end the first part of an id."""
        if not self.name:
            object.__setattr__(self, "name", Path(self.path).stem)
        if not self.name or "/" in self.name:
            raise ValueError(f"the name of the task is {self.name!r}; give one without a slash")


def json_object(text: str, field: str) -> dict[str, Any]:
    """The settings in a task's field, a JSON object as text; empty for none. Raises ValueError."""
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise ValueError(f"{field} is {text!r}, no JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{field} is {text!r}; give a JSON object")
    return value


def read_rows(path: str, subset: str, split: str) -> Iterator[Located]:
    """(place, row) of every row of a split; a single file has the same rows for any split.

    Example: `read_rows("data/gsm8k", "", "test")` reads `data/gsm8k/test.jsonl`; the place of its
    third row is "data/gsm8k/test.jsonl, line 3".

    Raises:
        ValueError: Nothing is there, the split is not, or a row is no object; with the place.
        HubUnreachable: The hub does not give it.
    """
    found = Path(path).expanduser()
    if found.is_dir():
        return _read_file(_file_of_split(found, split))
    if found.is_file() or found.suffix in READERS:
        return _read_file(found)
    if path.startswith(("/", ".", "~")) or path.count("/") > 1:
        raise ValueError(f"{path!r} is not there; give the path from {Path.cwd()}, or another")
    return _from_hub(path, subset, split)


def field_of(row: Row, column: str, place: str) -> Any:
    """The value of a column; dots lead into objects ("reward_model.ground_truth").

    Raises MissingField naming the fields that are there, and the nearest.
    """
    value: Any = row
    if column in row:
        return row[column]
    for name in column.split("."):
        if not isinstance(value, dict) or name not in value:
            known = list(value) if isinstance(value, dict) else []
            fields = ", ".join(repr(key) for key in known) or "none"
            nearest = get_close_matches(name, known, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise MissingField(f"{place}: no field {column!r}; the fields are {fields}{hint}")
        value = value[name]
    return value


def _file_of_split(folder: Path, split: str) -> Path:
    for ending in READERS:
        if (folder / f"{split}{ending}").is_file():
            return folder / f"{split}{ending}"
    there = sorted(file.name for file in folder.iterdir() if file.suffix in READERS)
    raise ValueError(
        f"{str(folder)!r} holds no file of the split {split!r}; it holds {', '.join(there) or 'none'}"
    )


def _read_file(path: Path) -> Iterator[Located]:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{str(path)!r} is none of {', '.join(READERS)}: convert it to one")
    if not path.is_file():
        raise ValueError(
            f"{str(path)!r} is not a file; give the path from {Path.cwd()}, or an absolute one"
        )
    return reader(path)


def _json_lines(path: Path) -> Iterator[Located]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                place = f"{path}, line {number}"
                yield (
                    place,
                    _object(_parsed(line, place, "each line must be one JSON object"), place),
                )


def _json(path: Path) -> Iterator[Located]:
    rows = _parsed(path.read_bytes(), str(path), "it must be a list of objects")
    if not isinstance(rows, list):
        raise ValueError(f"{path}: a JSON {type(rows).__name__}; it must be a list of objects")
    for number, row in enumerate(rows, start=1):
        yield f"{path}, row {number}", _object(row, f"{path}, row {number}")


def _csv(path: Path) -> Iterator[Located]:
    import csv

    with path.open(encoding="utf-8", newline="") as lines:
        for number, row in enumerate(csv.DictReader(lines), start=1):
            yield f"{path}, row {number}", row


def _parquet(path: Path) -> Iterator[Located]:
    from pyarrow import ArrowException, parquet

    try:
        file = parquet.ParquetFile(path)
        number = 0
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row
    except ArrowException as error:
        raise ValueError(f"{path}: no whole parquet file ({error})") from error


READERS: dict[str, Callable[[Path], Iterator[Located]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
"""By the ending of a file's name."""


def _from_hub(path: str, subset: str, split: str) -> Iterator[Located]:
    from datasets import load_dataset  # seconds: only where it is needed

    name = f"{path}/{subset}" if subset else path
    try:
        with _without_retries_shown():
            rows = load_dataset(path, subset or None, split=split)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise HubUnreachable(
            f"the data set {name!r} cannot be had ({type(error).__name__}: {reason})",
            "give a local file or folder, or see whether the hub answers",
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{name} {split}, row {number}", row


@contextlib.contextmanager
def _without_retries_shown() -> Iterator[None]:
    """The hub's client warns at each try; what matters is how it ends."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _parsed(text: bytes, place: str, wanted: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:  # not JSON, or not UTF-8
        raise ValueError(f"{place}: not valid JSON ({error}); {wanted}") from error


def _object(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        raise ValueError(
            f"{place}: a JSON {type(row).__name__} ({str(row)[:80]!r}); each line must be one object"
        )
    return row
