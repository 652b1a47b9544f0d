"""Supervised fine-tuning of a checkpoint on prompts with completions.

`python -m recipes.sft MODEL --data rows.jsonl [--config FILE | --resume FOLDER] [--run-folder
FOLDER] [--field.sub value]`. The loss is on completions only; the template is that of RL. It
generates no data: recipes.rejection does.
"""

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from recipes.arguments import read_fields, take, text_of, unknown_field
from recipes.cli import end, guarded

PROGRAM = "python -m recipes.sft"
FOLDERS = ("--config", "--resume", "--run-folder")


def main() -> None:
    """Run it as a program."""
    from rollouts.process import prepare_process

    prepare_process()
    end(guarded(lambda: start(sys.argv[1:])))


def start(argv: Sequence[str]) -> None:
    """What `main` guards: from the arguments to a checkpoint. Raises what says what to do."""
    from recipes.config import from_yaml, to_yaml
    from recipes.supervised import SftConfig, run

    words = list(argv)
    given, resume, chosen = (take(words, flag) for flag in FOLDERS)
    if words and not words[0].startswith("-"):
        words = ["--model", *words]
    file = Path(resume) / "config.yaml" if resume else Path(given) if given else None
    default = from_yaml(text_of(file), str(file), SftConfig) if file else SftConfig()
    config, unknown = read_fields(
        SftConfig,
        words,
        default=default,
        program=PROGRAM,
        description="Before the fields: [MODEL] [--config FILE | --resume FOLDER] [--run-folder FOLDER].",
    )
    if unknown:
        raise ValueError(unknown_field(unknown, config, FOLDERS))
    if resume and to_yaml(config) != to_yaml(default):
        raise ValueError(f"a resumed stage keeps its settings ({file}): leave the fields out")
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = Path(resume or chosen or f"runs/sft-{stamp}")
    if folder.exists() and not resume:
        raise ValueError(
            f"the folder {folder} exists: go on with --resume {folder}, or choose another with "
            "--run-folder"
        )
    run(config, folder, resume=bool(resume))


if __name__ == "__main__":
    main()
