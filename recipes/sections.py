"""A pipeline's settings as one file: a section a stage, each as that stage's own command reads it."""

import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args, get_type_hints

import yaml

from recipes.config import from_yaml, nearest, to_yaml


def sections_of(cls: type) -> dict[str, type]:
    """The fields of a pipeline's settings that are a stage's, and the class of each."""
    found = {}
    for name, hint in get_type_hints(cls).items():
        kinds = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        found.update((name, kind) for kind in kinds if is_dataclass(kind))
    return found


def write_sections(config: Any) -> str:
    """Every field as YAML."""
    values: dict[str, Any] = {}
    for each in fields(config):
        value = getattr(config, each.name)
        values[each.name] = yaml.safe_load(to_yaml(value)) if is_dataclass(value) else value
    return yaml.safe_dump(values, sort_keys=False)


def read_sections(text: str, name: str, cls: type) -> Any:
    """The inverse of `write_sections`, a `cls`.

    Raises:
        ValueError: What is wrong, and where: an unknown section or field with the nearest, one that is
            missing, a value of another type.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: no YAML ({getattr(error, 'problem', error)})") from error
    known = {each.name: each for each in fields(cls)}
    if not isinstance(values, dict):
        raise ValueError(f"{name} holds no sections; --show prints them")
    for key in values:
        if key not in known:
            near = nearest(str(key), known) or next(iter(known))
            raise ValueError(f"{name}: unknown section {key!r}; did you mean {near!r}?")
    hints = get_type_hints(cls)
    sections = sections_of(cls)
    for key, field in known.items():
        if key not in values:
            if field.default is MISSING:
                raise ValueError(f"{name}: section {key!r} is missing; --show prints all")
        elif values[key] is None and hints[key] in sections.values():
            raise ValueError(f"{name}: section {key!r} is empty; --show prints all")
        elif key in sections and values[key] is not None:
            values[key] = from_yaml(yaml.safe_dump(values[key]), f"{name}: {key}", sections[key])
        elif key not in sections and type(values[key]) is not hints[key]:
            raise ValueError(f"{name}: {key} is {values[key]!r}; {hints[key].__name__} is needed")
    return cls(**values)
