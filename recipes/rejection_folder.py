"""The folder of rejection sampling: what was asked, every sample, and what was kept.

    rejections/NAME/config.yaml  versions.json  asked.json  counts.json  kept.jsonl
        samples/completions.jsonl  grades.jsonl     rewritten/ likewise, where a model rewrites

One process at a time. As in an evaluation's folder, what was asked is written first.
"""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from recipes.config import to_yaml
from recipes.rejection_config import RejectionConfig
from rl.run_folder import AtomicFolder, lock_folder, write_atomically
from rollouts.completions import Store
from rollouts.trials import Trial

KEPT, COUNTS = "kept.jsonl", "counts.json"


class RejectionFolder:
    """Reads and writes one folder; holds its lock until `close`."""

    def __init__(self, path: Path):
        """Take an existing folder. Raises ValueError if it is none, or in use."""
        if not (path / "asked.json").is_file():
            raise ValueError(f"{path} is no folder of rejection sampling: it holds no asked.json")
        self.path = path
        self._lock = lock_folder(path)
        self._stores: list[Store] = []

    @classmethod
    def create(
        cls, path: Path, config: RejectionConfig, asked: dict[str, Any], versions: dict[str, Any]
    ) -> "RejectionFolder":
        """Start a new one; it appears with all three files."""
        with AtomicFolder(path) as folder:
            write_atomically(folder / "versions.json", _json(versions))
            write_atomically(folder / "asked.json", _json(asked))
            write_atomically(folder / "config.yaml", to_yaml(config).encode())
        return cls(path)

    def check(self, asked: dict[str, Any]) -> None:
        """Raise ValueError naming what is no longer as it was when sampling was started."""
        before, now = json.loads((self.path / "asked.json").read_text()), _plain(asked)
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                raise ValueError(
                    f"{self.path} was started with another {name} (asked.json): give back what "
                    "changed, or start a new folder"
                )

    def store(self, trial: Trial) -> Store:
        """What is known of a trial. Raises ValueError for what is not ours or not asked for."""
        store = Store(self.path / trial.name)
        self._stores.append(store)
        for problem, sample in store.completions:
            known = problem in trial.by_id and 0 <= sample < trial.num_samples
            if not known or (trial.only is not None and (problem, sample) not in trial.only):
                raise ValueError(
                    f"{self.path / trial.name} holds sample {sample} of problem {problem!a}, which is "
                    "not asked for: remove that line, or start a new folder"
                )
        return store

    def versions(self) -> dict[str, Any]:
        """What the folder was started with."""
        return json.loads((self.path / "versions.json").read_text())

    def write_results(
        self, rows: Iterable[dict[str, Any]], counts: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Keep the rows, one a line, and the counts, asked for when the last row is written.

        Each file appears whole; kept.jsonl, which comes last, only if there is a row.
        """
        temporary = self.path / f".{KEPT}"
        with temporary.open("w") as file:
            for row in rows:
                file.write(json.dumps(row) + "\n")
            is_empty = not file.tell()
            file.flush()
            os.fsync(file.fileno())
        write_atomically(self.path / COUNTS, _json(told := counts()))
        if not is_empty:
            temporary.replace(self.path / KEPT)
        else:
            temporary.unlink()
            (self.path / KEPT).unlink(missing_ok=True)
        return told

    def close(self) -> None:
        """Give files and lock back."""
        for store in self._stores:
            store.close()
        self._lock.close()


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(values))


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
