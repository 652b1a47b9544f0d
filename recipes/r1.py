"""DeepSeek-R1's whole pipeline: R1-Zero, cold start, Dev1, Dev2, rejection sampling, Dev3, R1, a student.

`python -m recipes.r1 [PRESET | --config FILE] [--run-folder FOLDER] [--model MODEL] [--stages NAME
...] [--from DEV1_FOLDER] [--seeds N]`; `--list` names the stages, `--show` prints the settings as a
file for --config. The same command goes on after any end; a stage that is done is not run again.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipes.cli import guarded
from recipes.pipeline_command import Command, read_command, start_pipeline


def main() -> None:
    """Run it as a program."""
    sys.exit(guarded(lambda: start(sys.argv[1:])))


def start(argv: Sequence[str]) -> None:
    """What `main` guards: from the arguments to the table. Raises what says what to do."""
    if "--help" in argv or "-h" in argv:
        print(f"{__doc__}\n{_presets(argv)}")
        return
    from recipes.r1_config import R1Config
    from recipes.r1_presets import R1_PRESETS

    command = read_command(
        argv,
        recipe="r1",
        cls=R1Config,
        presets=R1_PRESETS,
        own_flags=("--from", "--seeds"),
        fields={"--model": "model"},
    )
    start_pipeline(command, _pipeline)


def _presets(argv: Sequence[str]) -> str:
    """Their names, and what is known of the one that is named."""
    from recipes.r1_facts import R1_FACTS

    named = [
        R1_FACTS[word].told("python -m recipes.doctor --plan --recipe r1 estimates them")
        for word in argv
        if word in R1_FACTS
    ]
    return "\n".join([f"Presets: {', '.join(R1_FACTS)} (docs/presets.md)", *named])


def _pipeline(command: Command) -> Any:
    from recipes.r1_stages import r1_pipeline

    seeds, dev1 = command.flags.get("--seeds", "1"), command.flags.get("--from")
    if not seeds.isdecimal() or int(seeds) < 1:
        raise ValueError(f"--seeds is {seeds!r}: use 1 or more")
    if dev1 and not (Path(dev1) / "config.json").is_file():
        raise ValueError(f"--from {dev1} holds no model (config.json): name a checkpoint's folder")
    return r1_pipeline(
        command.config,
        command.folder,
        dev1=Path(dev1).resolve() if dev1 else None,
        num_seeds=int(seeds),
    )


if __name__ == "__main__":
    main()
