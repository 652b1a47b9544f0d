"""The command line of a pipeline: a preset or a file, a folder, and which stages.

`python -m recipes.NAME [PRESET | --config FILE] [--run-folder FOLDER] [--stages NAME ...]`, `--list`
for the names of the stages, `--show` for the settings as a file, and flags of each pipeline's own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from recipes.arguments import take, text_of

SHARED = ("--config", "--run-folder")


@dataclass(frozen=True, kw_only=True)
class Command:
    """What the command line asked for.

    Attributes:
        flags: The values of the pipeline's own flags that were given, by name.
        shows: "--list" or "--show", in place of a run.
    """

    config: Any
    folder: Path
    stages: tuple[str, ...]
    flags: dict[str, str]
    shows: str | None


def read_command(
    argv: Sequence[str],
    *,
    recipe: str,
    cls: type,
    presets: Mapping[str, Callable[[], Any]],
    own_flags: Sequence[str],
    fields: Mapping[str, str],
) -> Command:
    """The settings and what of them is run.

    Args:
        recipe: The module of `recipes`.
        cls: Of its settings; `presets` give them, the first one where none is named.
        own_flags: Flags with a value beside the shared ones.
        fields: Flags that set a field of the settings, and its name.

    Raises:
        ValueError: An unknown preset or flag, with the nearest.
    """
    from recipes.sections import read_sections

    words = list(argv)
    file, folder = (take(words, flag) for flag in SHARED)
    given = {flag: take(words, flag) for flag in (*own_flags, *fields)}
    shows = next((flag for flag in ("--list", "--show") if flag in words), None)
    words = [word for word in words if word != shows]
    names = _stages(words)
    named = words.pop(0) if words and not words[0].startswith("-") else None
    preset = named or next(iter(presets))
    if words:
        known = (*SHARED, *own_flags, *fields, "--stages", "--list", "--show")
        near = (get_close_matches(words[0], known, n=1) or ["--config"])[0]
        raise ValueError(
            f"unknown argument {words[0]!r}; did you mean {near}? A stage's settings are changed in a "
            f"file: python -m recipes.{recipe} {preset} --show > mine.yaml, then --config mine.yaml"
        )
    if file and named:
        raise ValueError(f"give the preset {named} or --config, not both")
    if preset not in presets:
        near = (get_close_matches(preset, presets, n=1) or [next(iter(presets))])[0]
        raise ValueError(
            f"unknown preset {preset!r}; did you mean {near!r}? Presets are {', '.join(presets)}"
        )
    config = read_sections(text_of(Path(file)), file, cls) if file else presets[preset]()
    changed = {name: given[flag] for flag, name in fields.items() if given[flag] is not None}
    place = folder or f"runs/{recipe}-{Path(file).stem if file else preset}"
    return Command(
        config=replace(config, **changed),
        folder=Path(place).resolve(),
        stages=names,
        flags={flag: value for flag, value in given.items() if value is not None},
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


def start_pipeline(command: Command, make: Callable[[Command], Any]) -> None:
    """Show or run the pipeline that `make` gives."""
    from recipes.pipeline import run_pipeline
    from recipes.sections import write_sections

    if command.shows == "--show":
        print(write_sections(command.config), end="")
        return
    pipeline = make(command)
    if command.shows == "--list":
        print("\n".join(stage.name for stage in pipeline.named(command.stages)))
    else:
        run_pipeline(pipeline, command.stages)
