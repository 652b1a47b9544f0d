"""R1-Distill: a student learns from a teacher's samples, and the same student by RL in the same time.

`python -m recipes.distill [PRESET | --config FILE] [--teacher MODEL] [--student MODEL] [--run-folder
FOLDER] [--stages NAME ...]`; `--list` names the stages, `--show` prints the settings as a file for
--config, where the teacher may be a server (data.endpoint). The same command goes on after any end.
"""

import sys
from collections.abc import Sequence
from typing import Any

from recipes.cli import guarded
from recipes.pipeline_command import Command, read_command, start_pipeline


def main() -> None:
    """Run it as a program."""
    sys.exit(guarded(lambda: start(sys.argv[1:])))


def start(argv: Sequence[str]) -> None:
    """What `main` guards: from the arguments to the table. Raises what says what to do."""
    if "--help" in argv or "-h" in argv:
        print(__doc__)
        return
    from recipes.distill_config import DistillConfig
    from recipes.distill_presets import DISTILL_PRESETS

    command = read_command(
        argv,
        recipe="distill",
        cls=DistillConfig,
        presets=DISTILL_PRESETS,
        own_flags=(),
        fields={"--teacher": "teacher", "--student": "student"},
    )
    start_pipeline(command, _pipeline)


def _pipeline(command: Command) -> Any:
    from recipes.distill_config import check_teacher, distill_pipeline

    if not command.shows:
        check_teacher(command.config)
    return distill_pipeline(command.config, command.folder)


if __name__ == "__main__":
    main()
