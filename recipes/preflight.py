"""What can be refused before anything heavy is loaded, and what the disk and context allow.

In the order of a start: the folder, the settings, the problems (none needs a model), then what
needs the model's folder.
"""

import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import safe_open

from eval.evaluate import EvalConfig
from recipes.apart import gpus_fault
from recipes.config import RunConfig
from recipes.demand import engine_tokens, longest_sequence
from recipes.general import late_start_fault, preference_fault
from recipes.scoring import reward_of
from recipes.tracking import tracking_fault
from rewards.problem import Problem
from rl.checkpoint import checkpoint_bytes
from rl.eight_bit import eight_bit_fault
from rl.lora import adapter_size, settings_fault
from rl.objective import loss_fault
from rollouts.device_memory import ITEM_BYTES
from rollouts.model_config import read_model_config
from rollouts.models import resolve_model
from rollouts.sampler import Split
from rollouts.tasks.countdown import Countdown
from rollouts.tasks.mixture import Mixture, SingleTask, TaskConfig
from rollouts.tasks.programs import Programs

logger = logging.getLogger(__name__)

MIN_GROUP_SIZE = 2
ROLLOUT_BYTES_PER_TOKEN = 14
"""Of a round file, for each sampled token, prompts included: measured 13.5 at 9 tokens a sample."""
SAME_IN_REFERENCE = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
)
"""Fields of config.json in which a reference model equals the policy's."""
COUNTS = {
    "train": ("num_rounds", "problems_per_round", "updates_per_round", "save_every", "keep_last"),
    "engine": ("max_concurrent", "proof_parts", "tensor_parallel"),
    "policy": ("micro_batch_tokens",),
    "prompts": ("max_prompt_tokens",),
    "test": ("num_problems", "num_samples", "max_tokens"),
    "validation": ("num_problems", "num_samples", "max_tokens"),
}
"""Whole numbers that must be 1 or more."""


def check_folder(path: Path, *, resume: bool) -> None:
    """Raise ValueError if a new run's folder exists, or a resumed one's is no run."""
    if resume and not (path / "config.yaml").is_file():
        raise ValueError(f"{path} is not a run folder: it holds no config.yaml")
    if not resume and path.exists():
        raise ValueError(
            f"the run folder {path} exists: continue it with --resume {path}, "
            "or choose another with --run-folder"
        )


def check_config(config: RunConfig) -> None:
    """Raise ValueError for settings that cannot work together, a reward that is none, a task without problems."""
    for section, names in COUNTS.items():
        for name in names:
            value = getattr(getattr(config, section), name)
            if value < 1:
                raise ValueError(f"{section}.{name} is {value}: use 1 or more")
    _check_rounds(config)
    for fault in (
        settings_fault(config.policy.lora),
        loss_fault(config.loss, config.packing),
        tracking_fault(config.track),
        preference_fault(config),
        late_start_fault(config),
        gpus_fault(config),
    ):
        if fault:
            raise ValueError(fault)
    _check_sharding(config)
    if config.optimizer.states == "8bit" and (fault := eight_bit_fault()):
        raise ValueError(fault)
    reward_of(config)
    if config.engine.dtype != config.policy.dtype:
        raise ValueError(
            f"engine.dtype is {config.engine.dtype} and policy.dtype {config.policy.dtype}: both "
            "compute with the same weights; set both to bfloat16 or both to float32"
        )
    for name in ("test", "validation"):
        evaluation: EvalConfig = getattr(config, name)
        if evaluation.k is not None and not 1 <= evaluation.k <= evaluation.num_samples:
            raise ValueError(
                f"{name}.k is {evaluation.k}: pass@k needs k from 1 to {name}.num_samples, "
                f"{evaluation.num_samples}"
            )
    check_deadlines(config)
    for task in _tasks(config.task):
        # 100,000 Countdown problems take most of a minute; `check_splits` sees them later.
        if not isinstance(task, Countdown):
            splits: tuple[Split, ...] = ("train", "validation", "test")
            check_splits(config, {split: task.problems(split) for split in splits}, task.name)


def _tasks(task: TaskConfig) -> tuple[SingleTask, ...]:
    return task.tasks if isinstance(task, Mixture) else (task,)


def check_deadlines(config: RunConfig) -> None:
    """A scoring process must outlive the program that it runs, or slow programs would break it."""
    deadline = config.scoring.deadline_s
    for task in _tasks(config.task):
        if (
            isinstance(task, Programs)
            and config.scoring.workers != 0
            and deadline < 2 * task.timeout_s
        ):
            raise ValueError(
                f"scoring.deadline_s is {deadline:g}, but a program of {task.name} may take "
                f"{task.timeout_s:g} s: set it to {2 * task.timeout_s:g} or more"
            )


def _check_sharding(config: RunConfig) -> None:
    """What FSDP cannot do here yet, or has no use for."""
    if not config.policy.fsdp:
        return
    if config.policy.lora.rank:
        raise ValueError(
            f"policy.fsdp with policy.lora.rank {config.policy.lora.rank}: adapters have next to no "
            "optimizer states to shard; leave policy.fsdp out"
        )
    if config.optimizer.states != "float32":
        raise ValueError(
            f"policy.fsdp with optimizer.states {config.optimizer.states}: the float32 shards are "
            "the masters; use float32"
        )


def _check_rounds(config: RunConfig) -> None:
    train = config.train
    if train.group_size < MIN_GROUP_SIZE:
        raise ValueError(
            f"train.group_size is {train.group_size}: advantages compare a group's completions; "
            "use 2 or more"
        )
    if train.refills < 0 or (train.refills and config.loss.keeps_no_signal):
        raise ValueError(
            f"train.refills is {train.refills}: groups without signal can be replaced 0 or more "
            "times, and only where they move nothing (no KL or entropy in the loss)"
        )
    if train.updates_per_round > train.problems_per_round:
        raise ValueError(
            f"train.updates_per_round is {train.updates_per_round}, but a round has only "
            f"{train.problems_per_round} groups; each update needs a whole group"
        )
    if train.final == "best" and not train.evaluate_every:
        raise ValueError(
            "train.final is best, but nothing is evaluated on the way: give train.evaluate_every"
        )
    if not 0.0 < train.temperature < math.inf:
        raise ValueError(
            f"train.temperature is {train.temperature}: a group is drawn, so use more than 0"
        )
    starts = [start for start, _ in train.max_tokens]
    rising = starts == sorted(set(starts)) and all(limit > 0 for _, limit in train.max_tokens)
    if not starts or starts[0] != 0 or not rising:
        raise ValueError(
            f"train.max_tokens is {train.max_tokens}: pairs of (from update, limit), rising, the "
            "first from update 0"
        )


def check_splits(config: RunConfig, problems: Mapping[Split, Sequence[Problem]], name: str) -> None:
    """Raise ValueError if a split that the run needs has no problems; `name` is the task's."""
    needed: set[Split] = {"train", config.test.split}
    if config.best_prompt or config.train.evaluate_every:
        needed.add(config.validation.split)
    counts = ", ".join(f"{split} {len(rows)}" for split, rows in problems.items())
    for split, rows in problems.items():
        if split in needed and not rows:
            raise ValueError(
                f"no problems in the {split} split of {name} ({counts}): give it more problems, "
                "widen its ranges, or raise prompts.max_prompt_tokens"
            )


def check_lengths(config: RunConfig, model: Path, longest_prompt: int) -> int:
    """The longest sequence in tokens that the engine must hold, prompt and completion together.

    Raises ValueError if the model's context or a micro-batch is smaller than a sequence.
    """
    longest = longest_sequence(config, longest_prompt)
    context = _text_config(model).get("max_position_embeddings")
    if context and longest > context:
        raise ValueError(
            f"the longest prompt has {longest_prompt} tokens and with its completion {longest}, "
            f"more than the model's context of {context}: lower prompts.max_prompt_tokens or "
            "the max_tokens of train, test and validation"
        )
    trained = longest_prompt + max(limit for _, limit in config.train.max_tokens)
    if config.policy.micro_batch_tokens < trained:
        raise ValueError(
            f"policy.micro_batch_tokens is {config.policy.micro_batch_tokens}, less than one "
            f"sequence of {trained} tokens: raise it to {trained}"
        )
    return engine_tokens(config, longest_prompt, context)


def check_reference(config: RunConfig, model: Path) -> None:
    """Raise ValueError if the KL term's own reference model is no relative of the policy's."""
    name = config.loss.reference_model
    if name is None:
        return
    if config.policy.lora.rank:
        raise ValueError(
            f"loss.reference_model is {name!r} with policy.lora.rank {config.policy.lora.rank}: "
            "adapters are held to their own base; leave one of them out"
        )
    if config.loss.kl_coefficient <= 0:
        raise ValueError(
            f"loss.reference_model is {name!r}, but loss.kl_coefficient is "
            f"{config.loss.kl_coefficient:g}: without a KL term nothing is held to it"
        )
    theirs, ours = (read_model_config(str(path)) for path in (resolve_model(name), model))
    for field in SAME_IN_REFERENCE:
        if theirs.get(field) != ours.get(field):
            raise ValueError(
                f"loss.reference_model {name!r} has {field} {theirs.get(field)}, the model "
                f"{ours.get(field)}: choose a checkpoint of the same model, such as the one that "
                "this training started from"
            )


def check_room(config: RunConfig, model: Path, path: Path) -> None:
    """Raise ValueError if the run's checkpoints do not fit on the disk; warn of its rollouts.

    The size of a checkpoint is known to the byte, so it is refused. That of the rollouts is not:
    completions are mostly far shorter than their limit (the limits of the paper's recipe come to
    3 TB), so a refusal would stop runs that fit. A disk that does fill loses nothing: the run ends
    with one line and resumes once there is room.
    """
    lora = config.policy.lora
    one = checkpoint_bytes(
        adapter_size(model, lora) if lora.rank else num_parameters(model),
        reference=config.loss.kl_coefficient > 0,
        itemsize=ITEM_BYTES[config.policy.dtype],
    )
    # While one is written: those kept, the best, and itself. The final folder is smaller.
    count = config.train.keep_last + 2
    held = sum(f.stat().st_size for f in path.glob("checkpoints/**/*") if f.is_file())
    parent = next(p for p in (path, *path.absolute().parents) if p.exists())
    free = shutil.disk_usage(parent).free
    needed = one * count - held
    if needed > free:
        raise ValueError(
            f"the run needs {needed / 2**30:.2f} GiB for {count} checkpoints of "
            f"{one / 2**30:.2f} GiB, but {parent} has {free / 2**30:.2f} GiB free: lower "
            "train.keep_last or choose another --run-folder"
        )
    rollouts = most_sampled_tokens(config) * ROLLOUT_BYTES_PER_TOKEN
    if needed + rollouts > free:
        logger.warning(
            "if every completion were as long as its limit, the rollouts would take %.1f GiB and "
            "fill the disk (%.1f GiB free); the run would then stop, and resume once there is room",
            rollouts / 2**30,
            free / 2**30,
        )


def num_parameters(model: Path) -> int:
    """Of a checkpoint folder, from the heads of its safetensors files."""
    total = 0
    for path in model.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total


def most_sampled_tokens(config: RunConfig) -> int:
    """Of a whole run, every completion at the limit that is in force."""
    train, total = config.train, 0
    for index in range(train.num_rounds):
        updates = index * train.updates_per_round
        limit = [tokens for start, tokens in train.max_tokens if start <= updates][-1]
        total += train.problems_per_round * train.group_size * limit
    return total


def _text_config(model: Path) -> dict:
    values = json.loads((model / "config.json").read_text())
    return values.get("text_config", values)
