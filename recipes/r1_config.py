"""DeepSeek-R1's pipeline as settings; `recipes.r1_stages` has the stages that they come to."""

from dataclasses import dataclass, fields
from typing import Any

import yaml

from recipes.config import RunConfig, from_yaml, nearest, to_yaml
from recipes.evaluation import EvaluateConfig
from recipes.rejection_config import RejectionConfig
from recipes.supervised import SftConfig
from rollouts.models import DEFAULT_MODEL

SECTIONS = {
    "r1_zero": RunConfig,
    "cold_start": RejectionConfig,
    "dev1": SftConfig,
    "dev2": RunConfig,
    "rejection": RejectionConfig,
    "general": RejectionConfig,
    "dev3": SftConfig,
    "r1": RunConfig,
    "distill_data": RejectionConfig,
    "distill": SftConfig,
    "measure": EvaluateConfig,
    "instructions": EvaluateConfig,
}
"""The class of each section's settings."""


@dataclass(frozen=True, kw_only=True)
class R1Config:
    """Every stage of the pipeline. A stage's model and data are filled in from those before it.

    Nature 645 (2025), Methods: R1-Zero, cold start, Dev1, RL to Dev2, rejection sampling, Dev3 again
    from the base, RL over all scenarios to R1; then a student learns from R1's samples.
    """

    model: str = DEFAULT_MODEL
    """The base, from which R1-Zero, Dev1, Dev3 and the student start."""
    r1_zero: RunConfig
    """RL straight from the base under its own template."""
    cold_start: RejectionConfig
    """R1-Zero's correct and readable samples in R1's form, and worked solutions where too few."""
    dev1: SftConfig
    dev2: RunConfig
    """Reasoning RL from Dev1: accuracy, format and language."""
    rejection: RejectionConfig
    """Of Dev2, on reasoning problems."""
    general: RejectionConfig | None = None
    """General prompts with answers, beside Dev2's samples in Dev3's data."""
    dev3: SftConfig
    r1: RunConfig
    """RL over all scenarios, from Dev3."""
    distill_data: RejectionConfig
    """Of R1, for the student."""
    distill: SftConfig
    measure: EvaluateConfig
    """Of every model, under the template that it was trained with."""
    instructions: EvaluateConfig | None = None
    """Of Dev3 and R1 on general prompts."""
    control: bool = True
    """Also RL from Dev1 by R1-Zero's rewards alone, with Dev2's settings else: what worked solutions
    brought is not to be taken for what a stage brought."""
    cut_off: bool = True
    """Also measure Dev2 with its thinking cut off at once."""
    num_processes: int = 1
    """Of every stage that trains, as torchrun starts them."""


def write_config(config: R1Config) -> str:
    """Every field as YAML, a section a stage."""
    values: dict[str, Any] = {}
    for each in fields(config):
        value = getattr(config, each.name)
        is_section = each.name in SECTIONS and value is not None
        values[each.name] = yaml.safe_load(to_yaml(value)) if is_section else value
    return yaml.safe_dump(values, sort_keys=False)


def read_config(text: str, name: str) -> R1Config:
    """The inverse of `write_config`. Raises ValueError naming what is wrong, and where."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{name}: no YAML ({getattr(error, 'problem', error)})") from error
    known = [each.name for each in fields(R1Config)]
    unknown = [key for key in values if key not in known] if isinstance(values, dict) else [name]
    if unknown:
        near = nearest(str(unknown[0]), known) or known[0]
        raise ValueError(f"{name}: unknown section {unknown[0]!r}; did you mean {near!r}?")
    for key, cls in SECTIONS.items():
        if values.get(key) is not None:
            values[key] = from_yaml(yaml.safe_dump(values[key]), f"{name}: {key}", cls)
    try:
        return R1Config(**values)
    except TypeError as error:
        raise ValueError(f"{name}: {str(error).partition(') ')[2]}") from error
