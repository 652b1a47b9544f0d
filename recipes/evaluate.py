"""Measure a model on benchmarks, alone or beside another: pass@k, maj@k, intervals, a p-value.

`python -m recipes.evaluate MODEL --benchmarks gsm8k math500 [--against OTHER] [--protocol r1]`.
Completions are kept as they finish: `python -m recipes.evaluate --resume FOLDER` goes on after
any end and samples nothing twice. `--list` shows the benchmarks. It trains nothing.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from recipes.arguments import read_fields, take, unknown_field
from recipes.cli import guarded

PROGRAM = "python -m recipes.evaluate"
FOLDERS = ("--config", "--resume", "--run-folder")


@dataclass(frozen=True, kw_only=True)
class Command:
    """What the command line asked for."""

    config: Any
    folder: Path
    resume: bool


def main() -> None:
    """Run it as a program."""
    from rollouts.process import prepare_process

    prepare_process()
    sys.exit(guarded(lambda: start(sys.argv[1:])))


def start(argv: Sequence[str]) -> None:
    """What `main` guards: from the arguments to the table. Raises what says what to do."""
    if list(argv) == ["--list"]:
        from eval.benchmarks import benchmark_names

        print("\n".join(benchmark_names()))
        return
    command = read_command(argv)
    from recipes.measuring import evaluate

    evaluate(command.config, command.folder, resume=command.resume)


def read_command(argv: Sequence[str]) -> Command:
    """The settings: those of the folder that is resumed, or the command line's.

    Raises ValueError for an unknown field with the nearest, for no MODEL, for a folder that is
    there, and if a resumed evaluation's settings would differ.
    """
    from recipes.config import to_yaml
    from recipes.evaluation import EvaluateConfig
    from recipes.evaluation_folder import read_config, read_settings

    words = list(argv)
    file, resume, chosen = (take(words, flag) for flag in FOLDERS)
    if words and not words[0].startswith("-"):
        words = ["--models", *words]
    default = EvaluateConfig(models=(), benchmarks=())
    if resume or file:
        default = read_settings(Path(resume)) if resume else read_config(Path(file))
    config, unknown = read_fields(
        EvaluateConfig,
        words,
        default=default,
        program=PROGRAM,
        description="One MODEL or more come first, then fields. Beside the fields: [--config FILE], "
        "[--run-folder FOLDER], [--resume FOLDER], [--list].",
    )
    if unknown:
        raise ValueError(unknown_field(unknown, config, FOLDERS))
    if resume:
        if to_yaml(config) != to_yaml(default):
            raise ValueError(
                f"a resumed evaluation keeps its settings ({resume}/config.yaml): leave the fields "
                "out, or start a new one"
            )
        return Command(config=config, folder=Path(resume), resume=True)
    if not config.models:
        raise ValueError(f"no model is named: {PROGRAM} MODEL --benchmarks gsm8k")
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = Path(chosen or f"evaluations/{stamp}")
    if folder.exists():
        raise ValueError(
            f"the folder {folder} exists: go on with --resume {folder}, or choose another with "
            "--run-folder"
        )
    return Command(config=config, folder=folder, resume=False)


if __name__ == "__main__":
    main()
