"""The folder of an evaluation: what was asked, every completion, and the results.

    evaluations/NAME/config.yaml  versions.json  asked.json  results.json  report.md
        completions/model/gsm8k/completions.jsonl  grades.jsonl

One process at a time. What was asked is written before the first completion, so that a resumed
evaluation is refused if a model, a tokenizer or a data set has changed under it.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recipes.arguments import text_of
from recipes.config import from_yaml, to_yaml
from recipes.digests import folder_digest
from recipes.evaluation import Asking, EvaluateConfig
from rl.run_folder import AtomicFolder, lock_folder, write_atomically
from rollouts.completions import Store
from rollouts.trials import Trial

RESULTS, REPORT = "results.json", "report.md"


class EvaluationFolder:
    """Reads and writes one evaluation; holds its lock until `close`."""

    def __init__(self, path: Path):
        """Take an existing folder. Raises ValueError if it is in use."""
        self.path = path
        self._lock = lock_folder(path)
        self._stores: list[Store] = []

    @classmethod
    def create(
        cls, path: Path, config: EvaluateConfig, asked: dict[str, Any], versions: dict[str, Any]
    ) -> "EvaluationFolder":
        """Start a new one; it appears with all three files."""
        with AtomicFolder(path) as folder:
            (folder / "completions").mkdir()
            write_atomically(folder / "versions.json", _json(versions))
            write_atomically(folder / "asked.json", _json(asked))
            write_atomically(folder / "config.yaml", to_yaml(config).encode())
        return cls(path)

    def check(self, asked: dict[str, Any]) -> None:
        """Raise ValueError naming what is no longer as it was when the evaluation was started."""
        before = json.loads((self.path / "asked.json").read_text())
        now = json.loads(json.dumps(asked))
        for part, remedy in (
            ("models", "give the files back, or start a new evaluation"),
            ("trials", "its rows, the tokenizer or the template changed: start a new evaluation"),
        ):
            for name in sorted(before[part].keys() | now[part].keys()):
                if before[part].get(name) != now[part].get(name):
                    raise ValueError(
                        f"{self.path} was started with another {name} ({part} of asked.json): "
                        f"{remedy}"
                    )

    def store(self, trial: Trial) -> Store:
        """What is known of a trial; its notes are printed by the caller.

        Raises ValueError for a line that is not ours, or of a completion that is not asked for.
        """
        folder = self.path / "completions" / trial.name
        store = Store(folder)
        self._stores.append(store)
        for problem, sample in store.completions:
            if problem not in trial.by_id or not 0 <= sample < trial.num_samples:
                raise ValueError(
                    f"{folder} holds sample {sample} of problem {problem!a}, which is not asked "
                    "for: remove that line, or start a new evaluation"
                )
        return store

    def versions(self) -> dict[str, Any]:
        """What the evaluation was started with."""
        return json.loads((self.path / "versions.json").read_text())

    def write_results(self, results: dict[str, Any], report: str) -> None:
        """Keep results.json and report.md."""
        write_atomically(self.path / RESULTS, _json(results))
        write_atomically(self.path / REPORT, report.encode())

    def close(self) -> None:
        """Give files and lock back."""
        for store in self._stores:
            store.close()
        self._lock.close()


def read_settings(path: Path) -> EvaluateConfig:
    """The settings of an evaluation's folder. Raises ValueError if it is none."""
    if not (path / "asked.json").is_file():
        raise ValueError(f"{path} is no folder of an evaluation: it holds no asked.json")
    return read_config(path / "config.yaml")


def read_config(file: Path) -> EvaluateConfig:
    """The settings in a file. Raises ValueError naming what is wrong."""
    return from_yaml(text_of(file), str(file), EvaluateConfig)


def described(asking: Asking) -> dict[str, Any]:
    """What asked.json holds: the models' files and every trial, candidates for a template too.

    Equal descriptions ask equal models the same prompts with the same seeds.
    """
    trials = [trial for subject in asking.subjects for trial in asking.trials(subject)]
    trials += [t for subject in asking.subjects for t in asking.probe_trials(subject).values()]
    return {
        "models": {
            subject.label: {
                "name": subject.name,
                "template": subject.template,
                "prompts": asdict(asking.prompts),
                **folder_digest(subject.path),
            }
            for subject in asking.subjects
        },
        "benchmarks": {
            each.name: {
                "origin": each.origin,
                "split": each.split,
                "kind": each.kind,
                "num_problems": len(each.problems),
                "sha256": each.digest(),
                "notes": each.notes,
            }
            for each in asking.benchmarks
        },
        "trials": {
            trial.name: {
                "problems": len(trial.problems),
                "samples": trial.num_samples,
                "sampling": asdict(trial.sampling),
                "seed": trial.seed,
                "prompts_sha256": trial.prompts_sha256,
            }
            for trial in trials
        },
    }


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
