"""The command line of every training recipe: preset, --config, --resume and fields.

`python -m recipes.NAME [PRESET] [--config FILE | --resume FOLDER] [--run-folder FOLDER]
[task:KIND] [--field.sub value]`. A user's mistake ends with one line and exit code 2. A mixture
of tasks is given in a file only.
"""

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, fields
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from recipes.arguments import read_fields, take, text_of, unknown_field

USER_ERROR = 2
FOLDERS = ("--config", "--resume", "--run-folder")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NO_PLACE = (errno.EACCES, errno.EROFS, errno.ENOTDIR)
FIRST_SPEAKS_S = 10.0
"""Processes that do not know each other yet leave so long to the first, which finds the same mistake."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """What the command line asked for, before any field was read."""

    program: str
    """What a person types before the arguments: python -m recipes.NAME."""
    preset: str
    config: Path | None
    resume: Path | None
    run_folder: Path
    fields: list[str]


def main(name: str, about: str, default_preset: str) -> None:
    """Run a training recipe; `about` is the first line that a person sees."""
    from rollouts.process import prepare_process

    prepare_process()
    with open(os.devnull, "w") as none, redirect_stdout(sys.stdout if is_first() else none):
        print(about, flush=True)
        end(guarded(lambda: start(name, default_preset, sys.argv[1:])))


def end(code: int) -> NoReturn:
    """End this process; if all went well it parts from those that torchrun started beside it."""
    if not code and _met():
        sys.modules["rl.ranks"].leave()
    sys.exit(code)


def guarded(action: Callable[[], None]) -> int:
    """Exit code of `action`: 0, or 2 with one line for what a person can mend.

    An error of our own keeps its traceback.
    """
    try:
        action()
    except KeyboardInterrupt:
        print("stopped at once; what was written is whole", file=sys.stderr)
        return 130
    except Exception as error:
        line = _remedy(error)
        if line is None:
            raise
        if not (is_first() or _met()):
            time.sleep(FIRST_SPEAKS_S)  # who ends before it has spoken silences it, by the launcher
        rank = "" if is_first() else f"process {os.environ['RANK']}: "
        print(f"error: {rank}{_harmless(line)}", file=sys.stderr, flush=True)
        return USER_ERROR
    return 0


def _harmless(text: str) -> str:
    """One line without control characters: a name or a model's text may be in it."""
    line = " ".join(text.split())
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def is_first() -> bool:
    """Whether this process speaks for all that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _met() -> bool:
    """Whether the processes know each other: before that, most mistakes are found by all."""
    return "rl.ranks" in sys.modules and sys.modules["rl.ranks"].met()


def _remedy(error: Exception) -> str | None:
    """What to tell a person about an error that a person can mend; None for any other."""
    if isinstance(error, _mistakes()):
        return str(error)
    named = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
    number = _system_error(error)
    if number in NO_ROOM:
        return (
            f"the disk is full{named}: free some space, then --resume; the last checkpoint is whole"
        )
    if number in NO_PLACE:
        return f"{os.strerror(number)}{named}: choose another --run-folder"
    return None


def _system_error(error: Exception) -> int | None:
    """The errno of an error; safetensors, written in Rust, tells it in words only."""
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told and type(error).__name__ == "SafetensorError" else None


def _mistakes() -> tuple[type[Exception], ...]:
    """Errors that say what to do; those of heavy modules only if these are loaded."""
    named = {
        "rl.optimizer": ("NonFiniteGradientError",),
        "rollouts.exchange": ("EngineError",),
        "rollouts.proof": ("WeightProofError",),
        "rollouts.collect": ("GraderFailureError",),
        "rollouts.endpoint": ("EndpointError",),
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
    taken = {flag: take(rest, flag) for flag in FOLDERS}
    preset = default_preset
    if rest and not rest[0].startswith("-") and ":" not in rest[0]:
        preset = rest.pop(0)
    if preset not in known:
        near = (get_close_matches(preset, known, n=1) or [default_preset])[0]
        raise ValueError(
            f"unknown preset {preset!r}; did you mean {near!r}? Presets are {', '.join(known)}"
        )
    if taken["--config"] and taken["--resume"]:
        raise ValueError("give --config or --resume, not both: a resumed run has its own config")
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Command(
        program=f"python -m recipes.{name}",
        preset=preset,
        config=Path(taken["--config"]) if taken["--config"] else None,
        resume=Path(taken["--resume"]) if taken["--resume"] else None,
        run_folder=Path(taken["--run-folder"] or f"runs/{preset}-{stamp}"),
        fields=rest,
    )


def start(name: str, default_preset: str, argv: Sequence[str]) -> None:
    """What `main` guards: from the arguments to a finished run. Raises what says what to do."""
    from recipes.presets import RECIPES

    presets = RECIPES[name]
    command = split_command(argv, name, default_preset, list(presets))
    config = read_config(command, presets)
    from recipes.preflight import check_folder

    resume = command.resume is not None
    folder = command.resume or command.run_folder
    if is_first():  # which makes the folder, perhaps before another process looks
        check_folder(folder, resume=resume)
    from recipes.launch import launch

    launch(config, folder, resume=resume, recipe=name)


def read_config(command: Command, presets: Mapping[str, Callable[[], Any]] | None = None) -> Any:
    """The whole config: preset, file or resumed run, then the fields of the command line.

    `presets` are the recipe's; all if left out.

    Raises ValueError for a field that is not there, naming the nearest, for a value of another
    type, and if a resumed run's config would differ, naming the fields.
    """
    from recipes.config import OneTaskConfig, differences, from_yaml
    from recipes.presets import PRESETS

    default = (presets or PRESETS)[command.preset]()
    if command.config:
        default = from_yaml(text_of(command.config), str(command.config))
    if command.resume:
        file = command.resume / "config.yaml"
        default = from_yaml(text_of(file), str(file))
    config = with_fields(
        default,
        command.fields,
        OneTaskConfig,
        program=command.program,
        description=_described(command),
    )
    if command.resume and (changed := differences(default, config)):
        raise ValueError(
            f"a resumed run keeps its config; these fields differ (run, asked): {'; '.join(changed)}. "
            "Leave them out, or start a new run"
        )
    return config


def with_fields(
    default: Any, words: Sequence[str], one_task: type, *, program: str, description: str
) -> Any:
    """`default` changed by the fields of the command line; tyro reads these, and answers --help.

    tyro cannot build a mixture: it sees `one_task`, a class of the same fields with one task, and
    the mixture is put back if none was named. The kinds of task and rollouts come first, so that their
    fields are known wherever they stand.
    """
    from recipes.config import Arithmetic, Mixture

    words = sorted(words, key=lambda word: not word.startswith(("task:", "rollouts:")))
    shown, kept = default.task, None
    if isinstance(default.task, Mixture):
        shown = Arithmetic()
        kept = None if any(word.startswith("task:") for word in words) else default.task
    if kept and (word := next((w for w in words if w.startswith("--task.")), None)):
        raise ValueError(f"{word}: the tasks of a mixture are set in the file that names them")
    config, unknown = read_fields(
        one_task,
        words,
        default=_as(one_task, default, shown),
        program=program,
        description=description,
    )
    if unknown:
        raise ValueError(_unknown(unknown, config))
    return _as(type(default), config, kept or config.task)


def _described(command: Command) -> str:
    """The head of --help: what comes before the fields, and what is known of the preset."""
    from recipes.presets import PRESETS, RECIPES, facts_of

    known = RECIPES.get(command.program.rpartition(".")[2], PRESETS)
    facts = facts_of(known, command.preset)
    words = (
        f"Defaults are those of the preset {command.preset}. Before the fields: "
        "[PRESET] [--config FILE | --resume FOLDER] [--run-folder FOLDER]."
    )
    return "\n\n".join([words, *facts.told().splitlines()]) if facts else words


def _as(cls: type, config: Any, task: Any) -> Any:
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return cls(**values | {"task": task})


def _unknown(words: Sequence[str], config: Any) -> str:
    """What is wrong with arguments that no field takes, and the nearest name."""
    from recipes.config import TASKS, nearest

    word = next((w for w in words if w.startswith("--")), words[0])
    if word.startswith("task:"):
        if word == "task:mixture":
            return "a mixture is given in a file only: --config FILE, as in a run's config.yaml"
        if word[5:] in TASKS:
            return f"{word}: a run has one task, and another was named before"
        near = nearest(word[5:], TASKS) or "arithmetic"
        return f"unknown task {word!r}; did you mean 'task:{near}'? Tasks are {', '.join(TASKS)}"
    return unknown_field(words, config, FOLDERS)
