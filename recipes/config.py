"""Everything a run is told, as one frozen dataclass, and its way to YAML and back."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import dacite
import yaml

from eval.evaluate import EvalConfig
from rl.optimizer import OptimizerConfig
from rl.packing import PackingConfig
from rl.policy import PolicyConfig
from rl.train import TrainConfig
from rl.update import LossConfig
from rollouts.models import DEFAULT_MODEL
from rollouts.prompts import PromptConfig
from rollouts.sampler import EngineConfig
from rollouts.tasks.arithmetic import Arithmetic
from rollouts.tasks.countdown import Countdown
from rollouts.tasks.jsonl import Jsonl
from rollouts.tasks.mixture import Mixture

TaskConfig = Arithmetic | Countdown | Jsonl | Mixture
TASKS = {"arithmetic": Arithmetic, "countdown": Countdown, "jsonl": Jsonl, "mixture": Mixture}

FREE_FIELDS = ("stop_after", "train.keep_last")
"""May differ when a run is resumed: they change no number."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole run. Presets give complete ones; the command line changes fields."""

    model: str = DEFAULT_MODEL
    """A folder, a .gguf file, a Hugging Face id, or the default that needs no hub."""
    task: TaskConfig = field(default_factory=Arithmetic)
    """What is trained on, with its reward."""
    reward: Literal["accuracy", "r1_zero"] = "accuracy"
    """accuracy: the task's own; r1_zero: the sum of accuracy and format (DeepSeek-R1, Eq. 4)."""
    control: Literal["none", "shuffled_rewards"] = "none"
    """shuffled_rewards: a group's scores change places at random, so that nothing can be learnt."""
    prompts: PromptConfig = field(default_factory=PromptConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    test: EvalConfig = field(default_factory=lambda: EvalConfig(split="test"))
    """The evaluation before and after, read once."""
    validation: EvalConfig = field(default_factory=EvalConfig)
    """The evaluation every `train.evaluate_every` rounds; the best checkpoint is chosen by it."""
    best_prompt: bool = True
    """Also evaluate the base under the best of a few prompts, chosen on the validation split."""
    stop_after: str | None = None
    """Stop cleanly after this long, such as 3h50m, for batch queues; --resume continues."""


def to_yaml(config: RunConfig) -> str:
    """The resolved config; a task is written with its kind, so that it reads back as itself."""
    values = json.loads(json.dumps(asdict(config), default=str))
    values["task"] = _task_values(config.task)
    return yaml.safe_dump(values, sort_keys=False)


def from_yaml(text: str, name: str) -> RunConfig:
    """The inverse of `to_yaml`; fields left out have their defaults.

    Raises ValueError naming an unknown field and the nearest one, or the field of a wrong type.
    """
    values = yaml.safe_load(text)
    if not isinstance(values, dict):
        raise ValueError(f"{name} holds no fields; write it as the config.yaml of a run folder")
    if "task" in values:
        values["task"] = _task_of(values["task"], name)
    _refuse_unknown(RunConfig, values, name)
    try:
        return dacite.from_dict(RunConfig, values, config=dacite.Config(cast=[tuple], strict=True))
    except (dacite.DaciteError, TypeError) as error:
        raise ValueError(f"{name}: {error}") from error


def differences(left: RunConfig, right: RunConfig) -> list[str]:
    """Fields with other values, as "path: left, right"; `FREE_FIELDS` are left out."""
    a, b = _flat(_plain(left)), _flat(_plain(right))
    paths = sorted(set(a) | set(b))
    return [
        f"{path}: {a.get(path)!r}, {b.get(path)!r}"
        for path in paths
        if a.get(path) != b.get(path) and path not in FREE_FIELDS
    ]


def _plain(config: RunConfig) -> dict[str, Any]:
    return yaml.safe_load(to_yaml(config))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def _task_values(task: TaskConfig) -> dict[str, Any]:
    kind = next(name for name, cls in TASKS.items() if type(task) is cls)
    values = json.loads(json.dumps(asdict(task), default=str))
    if isinstance(task, Mixture):
        values["tasks"] = [_task_values(part) for part in task.tasks]
    return {"kind": kind, **values}


def _task_of(values: Any, name: str) -> TaskConfig:
    kind = values.get("kind") if isinstance(values, dict) else None
    if kind not in TASKS:
        near = get_close_matches(str(kind), TASKS, n=1) or ["arithmetic"]
        raise ValueError(
            f"{name}: task.kind is {kind!r}; one of {', '.join(TASKS)} is meant, perhaps {near[0]}"
        )
    values = {key: value for key, value in values.items() if key != "kind"}
    if kind == "mixture":
        values["tasks"] = tuple(_task_of(part, name) for part in values.get("tasks", ()))
    _refuse_unknown(TASKS[kind], values, f"{name}: task")
    return dacite.from_dict(
        TASKS[kind], values, config=dacite.Config(cast=[tuple, Path], strict=True)
    )


def _refuse_unknown(cls: type, values: Mapping[str, Any], name: str) -> None:
    known = {f.name: f.type for f in fields(cls)}
    for key, value in values.items():
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(known)}"
            raise ValueError(f"{name}: unknown field {key!r}{hint}")
        if isinstance(known[key], type) and is_dataclass(known[key]) and isinstance(value, dict):
            _refuse_unknown(known[key], value, f"{name}: {key}")
