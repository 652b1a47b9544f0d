"""What can be refused before anything heavy is loaded, and what the disk and context allow."""

import json
import shutil
from pathlib import Path

from recipes.config import RunConfig
from rl.checkpoint import checkpoint_bytes

MIN_GROUP_SIZE = 2
ROLLOUT_BYTES_PER_TOKEN = 12


def check_config(config: RunConfig) -> None:
    """Raise ValueError for settings that cannot work together."""
    train = config.train
    if train.group_size < MIN_GROUP_SIZE:
        raise ValueError(
            f"train.group_size is {train.group_size}: advantages compare a group's completions; "
            "use 2 or more"
        )
    if train.updates_per_round > train.problems_per_round:
        raise ValueError(
            f"train.updates_per_round is {train.updates_per_round}, but a round has only "
            f"{train.problems_per_round} groups; each update needs a whole group"
        )
    starts = [start for start, _ in train.max_tokens]
    if not starts or starts[0] != 0 or starts != sorted(set(starts)):
        raise ValueError(
            f"train.max_tokens is {train.max_tokens}: pairs of (from update, limit), rising, the "
            "first from update 0"
        )
    for name in (
        "num_rounds",
        "problems_per_round",
        "updates_per_round",
        "save_every",
        "keep_last",
    ):
        if getattr(train, name) < 1:
            raise ValueError(f"train.{name} is {getattr(train, name)}: use 1 or more")


def check_lengths(config: RunConfig, model: Path, longest_prompt: int) -> int:
    """The longest sequence in tokens; raises ValueError if the context or a micro-batch is smaller."""
    limits = [limit for _, limit in config.train.max_tokens]
    longest = longest_prompt + max(*limits, config.test.max_tokens, config.validation.max_tokens)
    context = _text_config(model).get("max_position_embeddings", longest)
    if longest > context:
        raise ValueError(
            f"the longest prompt has {longest_prompt} tokens and with its completion {longest}, "
            f"more than the model's context of {context}: lower prompts.max_prompt_tokens or "
            "train.max_tokens"
        )
    trained = longest_prompt + max(limits)
    if config.policy.micro_batch_tokens < trained:
        raise ValueError(
            f"policy.micro_batch_tokens is {config.policy.micro_batch_tokens}, less than one "
            f"sequence of {trained} tokens: raise it to {trained}"
        )
    return longest + 160 * config.best_prompt


def check_room(config: RunConfig, model: Path, path: Path) -> None:
    """Raise ValueError if the run's checkpoints and rollouts do not fit on the disk."""
    weights = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    itemsize = 4 if _text_config(model).get("dtype") == "float32" else 2
    reference = config.loss.kl_coefficient > 0
    one = checkpoint_bytes(weights // itemsize, reference=reference, itemsize=itemsize)
    train = config.train
    tokens = train.num_rounds * train.problems_per_round * train.group_size
    tokens *= max(limit for _, limit in train.max_tokens)
    needed = one * (train.keep_last + 2) + weights + tokens * ROLLOUT_BYTES_PER_TOKEN
    parent = next(p for p in (path, *path.absolute().parents) if p.exists())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise ValueError(
            f"the run needs up to {needed / 2**30:.1f} GiB ({train.keep_last + 2} checkpoints of "
            f"{one / 2**30:.1f} GiB and the rollouts), but {parent} has {free / 2**30:.1f} GiB "
            "free: lower train.keep_last or choose another --run-folder"
        )


def _text_config(model: Path) -> dict:
    values = json.loads((model / "config.json").read_text())
    return values.get("text_config", values)
