"""Everything a run is told, as one frozen dataclass, and its way to YAML and back."""

import json
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, Literal

import dacite
import yaml

from eval.evaluate import EvalConfig
from recipes.tracking import TrackConfig
from rewards.judge import JudgeConfig
from rewards.pool import ScoringConfig
from rl.objective import LossConfig
from rl.optimizer import OptimizerConfig
from rl.packing import PackingConfig
from rl.policy import PolicyConfig
from rl.reward_model import RewardModelConfig
from rl.trainer import TrainConfig
from rollouts.models import DEFAULT_MODEL
from rollouts.placement import Inline, Placement, Ray
from rollouts.prompts import PromptConfig
from rollouts.sampler import EngineConfig
from rollouts.tasks.arithmetic import Arithmetic
from rollouts.tasks.countdown import Countdown
from rollouts.tasks.dataset import Competition, Dataset, Gsm8k
from rollouts.tasks.general import General
from rollouts.tasks.instructions import Instructions
from rollouts.tasks.mixture import Mixture, SingleTask, TaskConfig
from rollouts.tasks.programs import HumanEval, Mbpp, Programs
from rollouts.tasks.reasoning_gym import ReasoningGym
from rollouts.tasks.steps import Steps
from rollouts.tasks.verifiers import Verifiers

TASKS = {
    "arithmetic": Arithmetic,
    "countdown": Countdown,
    "steps": Steps,
    "gsm8k": Gsm8k,
    "competition": Competition,
    "dataset": Dataset,
    "general": General,
    "instructions": Instructions,
    "human_eval": HumanEval,
    "mbpp": Mbpp,
    "programs": Programs,
    "reasoning_gym": ReasoningGym,
    "verifiers": Verifiers,
    "mixture": Mixture,
}

PLACEMENTS = {"inline": Inline, "ray": Ray}

FREE_FIELDS = (
    "stop_after",
    "train.keep_last",
    "train.keep_logprobs",
    "scoring.workers",
    "rollouts.address",
    "rollouts.num_workers",
    "rollouts.transfer",
    "rollouts.silence_s",
    "rollouts.publish_s",
    "rollouts.start_s",
    "rollouts.max_failures",
    "preference.judge.url_variable",
    "preference.judge.key_variable",
    "preference.judge.concurrency",
    "track.to",
    "track.project",
    "track.online",
)
"""May differ when a run is resumed: they change no number (workers none but last bits)."""

_SCIENTIFIC = re.compile(r"[-+]?[0-9]+e[-+]?[0-9]+", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class PreferenceConfig:
    """What responses to general prompts are worth beside rules (docs/preference.md)."""

    helpfulness: Literal["none", "reward_model", "judge"] = "none"
    """What scores the summary of a response."""
    safety: Literal["none", "reward_model", "judge"] = "none"
    """What scores the whole response, thinking included."""
    helpfulness_model: str = ""
    """The reward model of helpfulness: a folder or a Hugging Face id."""
    safety_model: str = ""
    """The reward model of safety."""
    reward_models: RewardModelConfig = field(default_factory=RewardModelConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole run. Presets give complete ones; the command line changes fields."""

    model: str = DEFAULT_MODEL
    """A folder, a .gguf file, a Hugging Face id, or the default that needs no hub."""
    task: TaskConfig = field(default_factory=Arithmetic)
    """What is trained on, with its reward."""
    reward: str = "accuracy"
    """accuracy: the task's own; r1_zero: accuracy and format (DeepSeek-R1, Eq. 4); r1: these and
    the share of English; dapo: accuracy less the soft overlong penalty; or your own, package.module:function (docs/rewards.md)."""
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    """The processes that compute rewards."""
    preference: PreferenceConfig = field(default_factory=PreferenceConfig)
    """Added to the rewards of general tasks."""
    drop_contaminated: tuple[str, ...] = ()
    """Benchmarks: training problems that share ten words in a row with one of theirs are left out."""
    control: Literal["none", "shuffled_rewards"] = "none"
    """shuffled_rewards: a group's scores change places at random, so that nothing can be learnt."""
    prompts: PromptConfig = field(default_factory=PromptConfig)
    rollouts: Placement = field(default_factory=Inline)
    """Where engines are: rollouts:inline, one in each trainer's process, or rollouts:ray, workers on Ray."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    test: EvalConfig = field(default_factory=lambda: EvalConfig(split="test"))
    """The evaluation before and after, read once."""
    validation: EvalConfig = field(default_factory=EvalConfig)
    """The evaluation every `train.evaluate_every` rounds; `train.best_by` of it chooses the best
    checkpoint."""
    measured: bool = True
    """Evaluate base and result on the test split; without, the run is measured by others."""
    best_prompt: bool = True
    """Also evaluate the base under the best of a few prompts, chosen on the validation split."""
    track: TrackConfig = field(default_factory=TrackConfig)
    """Trackers that are told the metrics, too."""
    end_after: str | None = None
    """End the run after so long in rounds, such as 20m, as if that had been its last round; for
    comparisons at equal time."""
    stop_after: str | None = None
    """Stop cleanly after this long, such as 3h50m, for batch queues; --resume continues."""


@dataclass(frozen=True, kw_only=True)
class OneTaskConfig(RunConfig):
    """What a command line can spell out: everything but a mixture of tasks."""

    task: SingleTask = field(default_factory=Arithmetic)


def to_yaml(config: Any) -> str:
    """The resolved config of a run or another recipe; a task is written with its kind, so that it
    reads back as itself."""
    values = json.loads(json.dumps(asdict(config)))
    if "task" in values:
        values["task"] = _task_values(config.task)
    if "rollouts" in values:
        values["rollouts"] = {"kind": _kind(PLACEMENTS, config.rollouts), **values["rollouts"]}
    return yaml.safe_dump(values, sort_keys=False)


def from_yaml(text: str, name: str, cls: type = RunConfig) -> Any:
    """The inverse of `to_yaml`, a `cls`; fields left out have their defaults.

    Raises ValueError naming an unknown field and the nearest one, or the field of a wrong type.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f", line {place.line + 1}" if place else ""
        raise ValueError(f"{name}{line}: no YAML ({getattr(error, 'problem', error)})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{name} holds no fields; write it as the config.yaml of a run folder")
    if "task" in values:
        values = {**values, "task": _task_of(values["task"], f"{name}: task")}
    if "rollouts" in values:
        kind, given = _chosen(values["rollouts"], PLACEMENTS, f"{name}: rollouts")
        values = {**values, "rollouts": from_values(PLACEMENTS[kind], given, f"{name}: rollouts")}
    return from_values(cls, values, name)


def differences(left: Any, right: Any, free: Container[str] = FREE_FIELDS) -> list[str]:
    """Fields with other values, as "path: left, right"; `free` ones are left out."""
    a, b = flat(_plain(left)), flat(_plain(right))
    paths = sorted(set(a) | set(b))
    return [
        f"{path}: {a.get(path)!r}, {b.get(path)!r}"
        for path in paths
        if a.get(path) != b.get(path) and path not in free
    ]


def flags(config: Any) -> list[str]:
    """Every field as the command line writes it: --train.num-rounds; switches with their --no-."""
    names = []
    for path, value in flat(asdict(config)).items():
        parent, dot, last = path.replace("_", "-").rpartition(".")
        names += [f"--{parent}{dot}{last}"]
        names += [f"--{parent}{dot}no-{last}"] if isinstance(value, bool) else []
    return names


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that was meant, or None if none is near.

    Example: `nearest("--train.num-round", flags(config))` is "--train.num-rounds".
    """
    found = get_close_matches(word, list(known), n=1)
    return found[0] if found else None


def _plain(config: Any) -> dict[str, Any]:
    return yaml.safe_load(to_yaml(config))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their paths: {"a": {"b": 1}} is {"a.b": 1}."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, dict) and value
        found |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found


def _task_values(task: TaskConfig) -> dict[str, Any]:
    kind = _kind(TASKS, task)
    values = json.loads(json.dumps(asdict(task)))
    if isinstance(task, Mixture):
        values["tasks"] = [_task_values(part) for part in task.tasks]
    return {"kind": kind, **values}


def _kind(kinds: Mapping[str, type], chosen: Any) -> str:
    return next(name for name, cls in kinds.items() if type(chosen) is cls)


def _chosen(values: Any, kinds: Iterable[str], place: str) -> tuple[str, dict[str, Any]]:
    """The kind that values name, and the rest of them. Raises ValueError with the nearest kind."""
    kind = values.get("kind") if isinstance(values, dict) else values
    if kind not in kinds or not isinstance(values, dict):
        near = nearest(str(kind), kinds) or next(iter(kinds))
        raise ValueError(
            f"{place}.kind is {kind!r}; one of {', '.join(kinds)} is meant, perhaps {near}: "
            f"write it as {{kind: {near}}}"
        )
    return kind, {key: value for key, value in values.items() if key != "kind"}


def _task_of(values: Any, place: str) -> TaskConfig:
    kind, values = _chosen(values, TASKS, place)
    if kind == "mixture" and isinstance(values.get("tasks"), list):
        parts = enumerate(values["tasks"])
        values["tasks"] = tuple(_task_of(part, f"{place}.tasks[{i}]") for i, part in parts)
    return from_values(TASKS[kind], values, place)


def from_values(cls: type, values: dict[str, Any], place: str) -> Any:
    """An instance of `cls` from plain values; every mistake becomes a ValueError with its place."""
    checked = _checked(cls, values, place)
    try:
        return dacite.from_dict(cls, checked, dacite.Config(type_hooks={float: _number}))
    except dacite.MissingValueError as error:
        raise ValueError(f"{place}: field {error.field_path!r} is missing") from error
    except dacite.WrongTypeError as error:
        kind = error.field_type
        wanted = kind.__name__ if type(kind) is type else str(kind).replace("typing.", "")
        raise ValueError(
            f"{place}: field {error.field_path!r} is {error.value!r}; {wanted} is needed"
        ) from error
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _checked(cls: type, values: Mapping[Any, Any], place: str, prefix: str = "") -> dict[str, Any]:
    """The values with lists as tuples; raises ValueError for a name that `cls` does not have."""
    known = {f.name: f.type for f in fields(cls)}
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            near = nearest(str(key), known)
            hint = f"did you mean {prefix + near!r}?" if near else f"it has {', '.join(known)}"
            raise ValueError(f"{place}: unknown field {prefix + str(key)!r}; {hint}")
        if is_dataclass(known[key]) and isinstance(value, dict):
            checked[key] = _checked(known[key], value, place, f"{prefix}{key}.")
        else:
            checked[key] = _as_tuple(value)
    return checked


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value


def _number(value: Any) -> Any:
    """YAML takes 1e-5 for a text, because it has no decimal point."""
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value
