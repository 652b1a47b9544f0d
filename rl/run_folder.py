"""A run is its folder: config, versions, metrics, rounds, checkpoints, evaluations, result.

Everything is written beside its place, flushed and renamed, so that a kill at any instant
leaves whole files only. One process at a time: the lock refuses a second.

    run/config.yaml  versions.json  metrics.jsonl  eval.json
        rollouts/round-000003.jsonl.zst, trainer-000003.jsonl.zst
        checkpoints/round-000010/   eval/round-000010.json   final/
"""

import fcntl
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from rl.trained import Trained, encode_trained
from rollouts.records import encode_groups, read_groups
from rollouts.rollout import Group

_TEMPORARY = ".tmp-"


class RunFolder:
    """Reads and writes one run; holds its lock until `close`."""

    def __init__(self, path: Path):
        """Take an existing folder. Raises ValueError if it is no run or in use."""
        if not (path / "config.yaml").is_file():
            raise ValueError(f"{path} is not a run folder: it holds no config.yaml")
        self.path = path
        self._lock = lock_folder(path)
        for leftover in path.rglob(f"{_TEMPORARY}*"):
            _remove(leftover)

    @classmethod
    def create(cls, path: Path, config_yaml: str, versions: dict[str, Any]) -> "RunFolder":
        """Start a new run. Raises ValueError if the folder exists."""
        if path.exists():
            raise ValueError(
                f"the run folder {path} exists: continue it with --resume {path}, "
                "or choose another with --run-folder"
            )
        with AtomicFolder(path) as folder:
            for name in ("rollouts", "checkpoints", "eval"):
                (folder / name).mkdir()
            write_atomically(folder / "versions.json", _json(versions))
            write_atomically(folder / "config.yaml", config_yaml.encode())
        return cls(path)

    def close(self) -> None:
        """Give the lock back."""
        self._lock.close()

    def round_path(self, index: int) -> Path:
        """The round file of a round."""
        return self.path / "rollouts" / f"round-{index:06d}.jsonl.zst"

    def write_round(self, index: int, groups: Sequence[Group]) -> None:
        """Keep a round's groups, whole, before they are trained on."""
        write_atomically(self.round_path(index), encode_groups(groups))

    def read_round(self, index: int) -> list[Group] | None:
        """The groups of a round that was sampled before, or None."""
        path = self.round_path(index)
        return read_groups(path) if path.exists() else None

    def write_trained(self, index: int, rows: Sequence[Trained]) -> None:
        """Keep what the trainer made of a round, after its updates."""
        path = self.path / "rollouts" / f"trainer-{index:06d}.jsonl.zst"
        write_atomically(path, encode_trained(rows))

    def log(self, metrics: dict[str, float]) -> None:
        """Append one line to metrics.jsonl."""
        self._append("metrics.jsonl", metrics)

    def metrics(self) -> list[dict[str, float]]:
        """All logged lines; a half-written last one is left out."""
        return read_metrics(self.path / "metrics.jsonl")

    def log_fates(self, index: int, fates: dict[str, list[str]]) -> None:
        """Append one line to ledger.jsonl: what became of a round's problems, their ids by fate."""
        self._append("ledger.jsonl", {"round": index, **fates})

    def fates(self) -> list[dict[str, Any]]:
        """All lines of ledger.jsonl."""
        return read_metrics(self.path / "ledger.jsonl")

    def forget_rounds_from(self, round_index: int) -> None:
        """Drop lines of rounds that will be trained again."""
        for name in ("metrics.jsonl", "ledger.jsonl"):
            rows = read_metrics(self.path / name)
            kept = [json.dumps(row) for row in rows if row["round"] < round_index]
            write_atomically(self.path / name, "".join(f"{r}\n" for r in kept).encode())

    def _append(self, name: str, row: dict[str, Any]) -> None:
        with (self.path / name).open("a") as file:
            file.write(json.dumps(row) + "\n")

    def eval_path(self, label: str) -> Path:
        """Where an evaluation's result stands."""
        return self.path / "eval" / f"{label}.json"

    def write_eval(self, label: str, result: dict[str, Any]) -> None:
        """Keep an evaluation."""
        write_atomically(self.eval_path(label), _json(result))

    def read_eval(self, label: str) -> dict[str, Any] | None:
        """An evaluation made before, or None."""
        path = self.eval_path(label)
        return json.loads(path.read_text()) if path.exists() else None

    def write_summary(self, result: dict[str, Any]) -> None:
        """Keep eval.json: the evaluations before and after, side by side."""
        write_atomically(self.path / "eval.json", _json(result))

    def checkpoints(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        return sorted((self.path / "checkpoints").glob("round-*"))

    def best_checkpoint(self, metric: str) -> str | None:
        """The name of the one whose metric on validation is highest, the earliest of equals."""
        scores: dict[str, Any] = {}
        for path in self.checkpoints():
            value = (self.read_eval(path.name) or {}).get(metric)
            if value is not None:
                scores[path.name] = value
        return max(scores, key=lambda name: scores[name], default=None)

    def keep_checkpoints(self, keep_last: int, best: str | None) -> None:
        """Remove all but the last `keep_last` checkpoints and the one named `best`."""
        for old in self.checkpoints()[:-keep_last]:
            if old.name != best:
                _remove(old)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All lines of a metrics.jsonl or ledger.jsonl, none if there is no file; a half-written last one is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and onto the disk before this returns."""
    temporary = path.with_name(f"{_TEMPORARY}{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


class AtomicFolder:
    """A folder that appears under its name only when everything in it is on the disk.

    Example: `with AtomicFolder(run / "final") as folder: model.save_pretrained(folder)`.
    """

    def __init__(self, path: Path):
        self.path = path
        self._temporary = path.with_name(f"{_TEMPORARY}{path.name}")

    def __enter__(self) -> Path:
        _remove(self._temporary)
        self._temporary.mkdir(parents=True)
        return self._temporary

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            _remove(self._temporary)
            return
        try:
            for file in self._temporary.rglob("*"):
                _sync(file)
            _remove(self.path)
            self._temporary.replace(self.path)
        except OSError:
            _remove(self._temporary)
            raise
        _sync(self.path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def lock_folder(path: Path) -> TextIO:
    """Hold a folder's lock until the file is closed. Raises ValueError if another process does."""
    file = (path / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise ValueError(f"the run folder {path} is in use by another process") from error
    return file
