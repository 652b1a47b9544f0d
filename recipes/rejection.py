"""Rejection sampling: n samples a problem, the correct and readable ones as supervised data.

`python -m recipes.rejection MODEL [--config FILE | --resume FOLDER] [--run-folder FOLDER]
[task:KIND] [--field.sub VALUE]`, or `--endpoint.url http://HOST/v1 --endpoint.model NAME` instead
of MODEL. Samples are kept as they finish: `--resume FOLDER` goes on after any end and samples
nothing twice. What comes of it is in FOLDER/kept.jsonl and FOLDER/counts.json.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from recipes.arguments import take, text_of
from recipes.cli import FOLDERS, guarded, with_fields

PROGRAM = "python -m recipes.rejection"


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
    """What `main` guards: from the arguments to the rows. Raises what says what to do."""
    command = read_command(argv)
    from recipes.rejecting import reject

    reject(command.config, command.folder, resume=command.resume)


def read_command(argv: Sequence[str]) -> Command:
    """The settings: those of the folder that is resumed, of a file, or the command line's.

    Raises ValueError for an unknown field with the nearest, for a folder that is there, and if the
    settings of what is resumed would differ in more than where a server is.
    """
    from recipes.config import differences, from_yaml
    from recipes.rejection_config import FREE, OneTaskRejectionConfig, RejectionConfig

    words = list(argv)
    file, resume, chosen = (take(words, flag) for flag in FOLDERS)
    if file and resume:
        raise ValueError("give --config or --resume, not both: what is resumed has its own config")
    if resume:
        file = str(Path(resume) / "config.yaml")
    default = RejectionConfig()
    if file:
        default = from_yaml(text_of(Path(file)), file, RejectionConfig)
    named = words.pop(0) if words and not words[0].startswith("-") and ":" not in words[0] else None
    config = with_fields(
        replace(default, model=named) if named else default,
        words,
        OneTaskRejectionConfig,
        program=PROGRAM,
        description="A MODEL comes first, or --endpoint.url and --endpoint.model; then fields. "
        "Beside the fields: [--config FILE | --resume FOLDER] [--run-folder FOLDER].",
    )
    if resume:
        if changed := differences(default, config, FREE):
            raise ValueError(
                f"a resumed folder keeps its config; these fields differ (folder, asked): "
                f"{'; '.join(changed)}. Leave them out, or start a new folder"
            )
        return Command(config=config, folder=Path(resume), resume=True)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = Path(chosen or f"rejections/{stamp}")
    if folder.exists():
        raise ValueError(
            f"the folder {folder} exists: go on with --resume {folder}, or choose another with "
            "--run-folder"
        )
    return Command(config=config, folder=folder, resume=False)


if __name__ == "__main__":
    main()
