"""The command line of every training recipe: preset, --config, --resume and fields.

`python -m recipes.NAME [PRESET] [--config FILE | --resume FOLDER] [--run-folder FOLDER]
[field:choice] [--field.sub value]`. A user's mistake ends with one line and exit code 2.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

USER_ERROR = 2


@dataclass(frozen=True, kw_only=True)
class Command:
    """What the command line asked for, before any field was read."""

    preset: str
    config: Path | None
    resume: Path | None
    run_folder: Path
    fields: list[str]


def main(name: str, about: str, default_preset: str) -> None:
    """Run a training recipe; `about` is the first line that a person sees."""
    from rollouts.process import prepare_process

    prepare_process()
    print(about, flush=True)
    argv = sys.argv[1:]
    sys.exit(guarded(lambda: _train(name, default_preset, argv)))


def guarded(action: Callable[[], None]) -> int:
    """Exit code of `action`: 0, or 2 with one line for what a person can mend.

    An error of our own keeps its traceback.
    """
    try:
        action()
    except _mistakes() as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return USER_ERROR
    except KeyboardInterrupt:
        print("stopped at once; what was written is whole", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno != 28:
            raise
        print(
            f"error: the disk is full ({error.filename}): free some space, then --resume; "
            "the last checkpoint is whole",
            file=sys.stderr,
        )
        return USER_ERROR
    return 0


def _mistakes() -> tuple[type[Exception], ...]:
    """Errors that say what to do; those of heavy modules only if these are loaded."""
    named = {
        "rl.optimizer": ("NonFiniteGradientError",),
        "rollouts.engine": ("EngineError",),
        "rollouts.proof": ("WeightProofError",),
        "rollouts.collect": ("GraderFailureError",),
    }
    loaded = [(sys.modules[m], names) for m, names in named.items() if m in sys.modules]
    return (ValueError, *(getattr(module, n) for module, names in loaded for n in names))


def split_command(
    argv: Sequence[str], name: str, default_preset: str, known: Sequence[str]
) -> Command:
    """Take preset, --config, --resume and --run-folder off the arguments; tyro reads the rest.

    Raises ValueError for an unknown preset (with the nearest), or --config beside --resume.
    """
    rest = list(argv)
    taken = {flag: _take(rest, flag) for flag in ("--config", "--resume", "--run-folder")}
    preset = default_preset
    if rest and not rest[0].startswith("-") and ":" not in rest[0]:
        preset = rest.pop(0)
    if preset not in known:
        near = get_close_matches(preset, known, n=1) or [default_preset]
        raise ValueError(
            f"unknown preset {preset!r}: one of {', '.join(known)} is meant, perhaps {near[0]}"
        )
    if taken["--config"] and taken["--resume"]:
        raise ValueError("give --config or --resume, not both: a resumed run has its own config")
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Command(
        preset=preset,
        config=Path(taken["--config"]) if taken["--config"] else None,
        resume=Path(taken["--resume"]) if taken["--resume"] else None,
        run_folder=Path(taken["--run-folder"] or f"runs/{preset}-{stamp}"),
        fields=rest,
    )


def _take(argv: list[str], flag: str) -> str | None:
    for index, word in enumerate(argv):
        if word.startswith(f"{flag}="):
            return argv.pop(index).partition("=")[2]
        if word == flag:
            if index + 1 >= len(argv):
                raise ValueError(f"{flag} needs a value")
            argv.pop(index)
            return argv.pop(index)
    return None


def _train(name: str, default_preset: str, argv: Sequence[str]) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}: this version trains in one process; "
            "start it without torchrun"
        )
    from recipes.presets import PRESETS

    command = split_command(argv, name, default_preset, list(PRESETS))
    config = read_config(command)
    from recipes.launch import launch

    launch(config, command.resume or command.run_folder, resume=command.resume is not None)


def read_config(command: Command):
    """The whole config: preset, file or resumed run, then the fields of the command line.

    Raises ValueError if a resumed run's config would differ, naming the fields.
    """
    import tyro

    from recipes.config import RunConfig, differences, from_yaml
    from recipes.presets import PRESETS

    default = PRESETS[command.preset]()
    if command.config:
        default = from_yaml(_text(command.config), str(command.config))
    if command.resume:
        file = command.resume / "config.yaml"
        default = from_yaml(_text(file), str(file))
    config = tyro.cli(
        RunConfig,
        args=command.fields,
        default=default,
        prog="python -m recipes.r1_zero",
        config=(tyro.conf.CascadeSubcommandArgs,),
    )
    if command.resume and (changed := differences(default, config)):
        raise ValueError(
            f"a resumed run keeps its config; these fields differ (run, asked): {'; '.join(changed)}. "
            "Leave them out, or start a new run"
        )
    return config


def _text(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path} does not exist: name a config.yaml, or the folder of a run")
    return path.read_text()
