"""Words of a command line: flags taken off, fields read by tyro, and what is wrong with the rest."""

import io
from collections.abc import Sequence
from contextlib import redirect_stderr
from itertools import takewhile
from pathlib import Path
from typing import Any


def take(argv: list[str], flag: str) -> str | None:
    """Take `flag` with its value off the arguments; None if it is not there."""
    for index, word in enumerate(argv):
        if word.startswith(f"{flag}="):
            return argv.pop(index).partition("=")[2]
        if word == flag:
            if index + 1 >= len(argv):
                raise ValueError(f"{flag} needs a value")
            argv.pop(index)
            return argv.pop(index)
    return None


def read_fields(
    cls: type, words: Sequence[str], *, default: Any, program: str, description: str
) -> tuple[Any, list[str]]:
    """A config of `cls` as the words change `default`, and the words that no field takes.

    tyro reads them, and answers --help. Raises ValueError for a value of another type.
    """
    import tyro

    told = io.StringIO()
    try:
        with redirect_stderr(told):
            return tyro.cli(
                cls,
                args=words,
                default=default,
                prog=program,
                description=description,
                config=(tyro.conf.CascadeSubcommandArgs,),
                return_unknown_args=True,
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise ValueError(f"{_told(told.getvalue())}; see {program} --help") from stop


def _told(box: str) -> str:
    """The first part of one of tyro's boxes, as one line."""
    lines = [line.strip(" \u2502") for line in box.splitlines()[1:]]
    first = takewhile(lambda line: line and line[0] not in "\u2500\u2570", lines)
    return " ".join(" ".join(first).split())


def unknown_field(words: Sequence[str], config: Any, folders: Sequence[str]) -> str:
    """What is wrong with the first of the words that no field takes, and the nearest name.

    `folders` are flags that were taken off before.
    """
    from recipes.config import flags, nearest

    word = next((w for w in words if w.startswith("--")), words[0])
    if not word.startswith("--"):
        return f"{word!r} belongs to no field; fields are given as --name value, switches as --name or --no-name"
    name = word.partition("=")[0].replace("_", "-")
    known = flags(config)
    if name in known:
        return f"{name} cannot be given here: write it into a file for --config"
    if name in folders:
        return f"{name} is given twice"
    known += folders
    near = nearest(name, known)
    return f"unknown field {name}; " + (f"did you mean {near}?" if near else "--help lists all")


def text_of(path: Path) -> str:
    """What a config file holds. Raises ValueError if it is not there."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist: name a config.yaml, or the folder of a run")
    return path.read_text()
