"""Reads a run folder without its lock, also while the run is training.

What is half-written or broken is left out and counted, never guessed.
"""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
import zstandard

from rl.trained import Trained, read_trained
from rollouts.records import read_groups
from rollouts.rollout import Group

UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, zstandard.ZstdError)
"""What a broken or half-written file of a run raises when it is read."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """metrics.jsonl by column.

    Example: two rounds of which the second was evaluated: `Metrics(columns={"round": [0, 1],
    "eval/pass_at_1": [None, 0.5]}, num_unreadable=0, ends_half=False)`. What is not finite is None.

    Attributes:
        num_unreadable: Lines that are no JSON object.
        ends_half: Whether the last line has no end: it is being written, or its run was killed.
    """

    columns: dict[str, list[float | None]]
    num_unreadable: int
    ends_half: bool


@dataclass(frozen=True, kw_only=True)
class RunReader:
    """One run folder.

    Attributes:
        path: Of the folder.
        config: Its config.yaml, as written.
    """

    path: Path
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """What the run is called: its folder."""
        return self.path.resolve().name

    def rounds(self) -> list[int]:
        """The rounds that have a file, in order."""
        names = (p.name for p in (self.path / "rollouts").glob("round-*.jsonl.zst"))
        stems = (name.removeprefix("round-").removesuffix(".jsonl.zst") for name in names)
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def round_file(self, index: int) -> Path:
        """A round's file."""
        return self.path / "rollouts" / f"round-{index:06d}.jsonl.zst"

    def trained_file(self, index: int) -> Path:
        """A round's second file, which may not be there."""
        return self.path / "rollouts" / f"trainer-{index:06d}.jsonl.zst"

    def groups(self, index: int) -> list[Group]:
        """A round's groups. Raises one of `UNREADABLE` if the file is broken."""
        return read_groups(self.round_file(index))

    def trained(self, index: int) -> dict[tuple[int, int], Trained] | None:
        """What the trainer made of a round, by (group, sample); None without a readable file."""
        try:
            rows = read_trained(self.trained_file(index))
        except UNREADABLE:
            return None
        return {(row.group, row.sample): row for row in rows}

    def metrics(self) -> Metrics:
        """All whole lines that can be read."""
        rows, num_unreadable = [], 0
        *lines, rest = _bytes(self.path / "metrics.jsonl").split(b"\n")
        for line in filter(bytes.strip, lines):
            try:
                row = json.loads(line)
                rows.append({str(k): v for k, v in row.items() if isinstance(v, int | float)})
            except (ValueError, AttributeError, RecursionError):
                num_unreadable += 1
        names = sorted({name for row in rows for name in row})
        columns = {name: [_finite(row.get(name)) for row in rows] for name in names}
        return Metrics(columns=columns, num_unreadable=num_unreadable, ends_half=bool(rest))

    def evaluations(self) -> dict[str, dict[str, Any]]:
        """eval/*.json by label: the base first, then rounds in order, the result last."""
        found = {p.stem: _object(p) for p in (self.path / "eval").glob("*.json")}
        order = sorted(found, key=lambda n: (n == "trained", n.startswith("round-"), n))
        return {name: found[name] for name in order if found[name]}

    def summary(self) -> dict[str, Any]:
        """eval.json, or nothing."""
        return _object(self.path / "eval.json")

    def contamination(self) -> dict[str, Any]:
        """What contamination.json says without its pairs, or nothing."""
        found = _object(self.path / "contamination.json")
        return {name: value for name, value in found.items() if name != "overlaps"}

    def versions(self) -> dict[str, Any]:
        """versions.json, or nothing."""
        return _object(self.path / "versions.json")

    def stamp(self) -> tuple[tuple[str, int, int], ...]:
        """Changes whenever anything that is shown does: names, sizes and times of the files."""
        return tuple(sorted(self._stamps()))

    def _stamps(self) -> Iterator[tuple[str, int, int]]:
        patterns = ("metrics.jsonl", "eval.json", "eval/*.json", "rollouts/*.jsonl.zst")
        for path in (p for pattern in patterns for p in self.path.glob(pattern)):
            try:
                stat = path.stat()
            except OSError:
                continue
            yield path.name, stat.st_size, stat.st_mtime_ns


def open_run(path: Path) -> RunReader:
    """The reader of a folder. Raises ValueError if it is no run, with what to name instead."""
    file = path / "config.yaml"
    if not path.is_dir():
        raise ValueError(f"{path} does not exist: name the folder of a run, such as runs/NAME")
    if not file.is_file():
        raise ValueError(f"{path} is no run folder: it holds no config.yaml")
    try:
        config = shown_value(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{file} cannot be read ({reason}): restore it, or name another run"
        ) from error
    return RunReader(path=path, config=config if isinstance(config, dict) else {})


def shown_value(value: Any) -> Any:
    """A value as every reader of JSON takes it: an infinity, a date and the like as their text."""
    if isinstance(value, dict):
        return {str(key): shown_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [shown_value(inner) for inner in value]
    is_finite = isinstance(value, float) and math.isfinite(value)
    return value if value is None or isinstance(value, str | int) or is_finite else str(value)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _finite(value: float | None) -> float | None:
    """None for what is missing or no finite double."""
    return value if value is not None and abs(value) < sys.float_info.max else None


def _object(path: Path) -> dict[str, Any]:
    try:
        value = shown_value(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
