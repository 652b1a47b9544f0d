"""DeepSeek-R1's whole pipeline: R1-Zero, cold start, Dev1, Dev2, rejection sampling, Dev3, R1, a student.

`python -m recipes.r1 [PRESET | --config FILE] [--run-folder FOLDER] [--model MODEL] [--stages NAME
...] [--from DEV1_FOLDER] [--seeds N]`; `--list` names the stages, `--show` prints the settings as a
file for --config. The same command goes on after any end; a stage that is done is not run again.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from recipes.arguments import take, text_of
from recipes.cli import guarded

PROGRAM = "python -m recipes.r1"
DEFAULT_PRESET = "smollm2-cpu"
FLAGS = ("--config", "--run-folder", "--model", "--from", "--seeds")


@dataclass(frozen=True, kw_only=True)
class Command:
    """What the command line asked for."""

    config: Any
    folder: Path
    stages: tuple[str, ...]
    dev1: Path | None
    num_seeds: int
    shows: str | None
    """--list or --show, in place of a run."""


def main() -> None:
    """Run it as a program."""
    sys.exit(guarded(lambda: start(sys.argv[1:])))


def start(argv: Sequence[str]) -> None:
    """What `main` guards: from the arguments to the table. Raises what says what to do."""
    if "--help" in argv or "-h" in argv:
        print(__doc__)
        return
    command = read_command(argv)
    from recipes.r1_config import write_config
    from recipes.r1_run import run_pipeline, stages_of

    if command.shows == "--show":
        print(write_config(command.config), end="")
    elif command.shows == "--list":
        print("\n".join(stage.name for stage in stages_of(command)))
    else:
        run_pipeline(command)


def read_command(argv: Sequence[str]) -> Command:
    """The settings and what of them is run.

    Raises ValueError for an unknown preset, flag or stage, with the nearest.
    """
    from recipes.r1_config import read_config
    from recipes.r1_presets import R1_PRESETS

    words = list(argv)
    file, folder, model, dev1, seeds = (take(words, flag) for flag in FLAGS)
    shows = next((flag for flag in ("--list", "--show") if flag in words), None)
    words = [word for word in words if word != shows]
    names = _stages(words)
    preset = words.pop(0) if words and not words[0].startswith("-") else None
    if words:
        known = (*FLAGS, "--stages", "--list", "--show")
        near = (get_close_matches(words[0], known, n=1) or ["--config"])[0]
        raise ValueError(
            f"unknown argument {words[0]!r}; did you mean {near}? Settings of stages are changed in a "
            f"file: {PROGRAM} {preset or DEFAULT_PRESET} --show > r1.yaml, then --config r1.yaml"
        )
    if file and preset:
        raise ValueError(f"give {preset} or --config, not both")
    preset = preset or DEFAULT_PRESET
    if preset not in R1_PRESETS:
        near = (get_close_matches(preset, R1_PRESETS, n=1) or [DEFAULT_PRESET])[0]
        raise ValueError(
            f"unknown preset {preset!r}; did you mean {near!r}? Presets are {', '.join(R1_PRESETS)}"
        )
    config = read_config(text_of(Path(file)), file) if file else R1_PRESETS[preset]()
    if seeds is not None and (not seeds.isdecimal() or int(seeds) < 1):
        raise ValueError(f"--seeds is {seeds!r}: use 1 or more")
    if dev1 and not (Path(dev1) / "config.json").is_file():
        raise ValueError(f"--from {dev1} holds no model (config.json): name a checkpoint's folder")
    return Command(
        config=replace(config, model=model) if model else config,
        folder=Path(folder or f"runs/r1-{Path(file).stem if file else preset}").resolve(),
        stages=names,
        dev1=Path(dev1).resolve() if dev1 else None,
        num_seeds=int(seeds or 1),
        shows=shows,
    )


def _stages(words: list[str]) -> tuple[str, ...]:
    """Take --stages with all names behind it off the words."""
    if "--stages" not in words:
        return ()
    start = words.index("--stages")
    stop = next((i for i in range(start + 1, len(words)) if words[i].startswith("-")), len(words))
    names = tuple(words[start + 1 : stop])
    del words[start:stop]
    if not names:
        raise ValueError("--stages needs a name; --list shows them")
    return names


if __name__ == "__main__":
    main()
