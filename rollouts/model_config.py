"""A model's config.json, found without fetching, converting or importing anything heavy.

And what in it keeps a model from being a policy: told before its weights are read.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rollouts.known_models import KNOWN_MODELS
from rollouts.models import DEFAULT_KEY, DEFAULT_MODEL, ModelError, cache_folder

DEFAULT_CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1_536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8_192,
    "tie_word_embeddings": True,
}
"""Of the default model, which may not have been fetched yet."""

AGREED: dict[str, Any] = {
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "moe_layer_freq": 1,
    "rope_interleave": True,
}
"""Of DeepSeek-V3: what transformers computes whatever its config.json says and vLLM reads there, or
the other way round. The first two may not be left out, since vLLM then takes others."""
CPU_LATENT = (512, 64)
"""kv_lora_rank and qk_rope_head_dim that vLLM's kernel for CPUs computes."""


def policy_fault(fields: Mapping[str, Any], *, lora: bool, cuda: bool) -> str | None:
    """Why the model of a config.json cannot be trained on this device, in words; None if it can."""
    if quantisation := fields.get("quantization_config"):
        method = quantisation.get("quant_method", "some method")
        return (
            f"its weights are quantised ({method}), which cannot be trained: convert the checkpoint "
            "to bfloat16 first, and its config.json must then hold no quantization_config"
        )
    if fields.get("model_type") == "deepseek_v3":
        for name, agreed in AGREED.items():
            if (given := fields.get(name, None if isinstance(agreed, str) else agreed)) != agreed:
                return (
                    f"its config.json has {name} {given!r}, by which trainer and engine would "
                    f"compute differently: only {agreed!r} can be trained"
                )
    if cuda:
        return None
    if lora and any(fields.get(name) for name in ("n_routed_experts", "num_experts")):
        return (
            "policy.lora.rank cannot be used with experts on a CPU, where vLLM applies no adapters "
            "to such a model: train its full weights"
        )
    latent = (fields.get("kv_lora_rank"), fields.get("qk_rope_head_dim"))
    if latent[0] and latent != CPU_LATENT:
        return (
            f"its latent attention has kv_lora_rank {latent[0]} and qk_rope_head_dim {latent[1]}: "
            "vLLM computes only 512 and 64 on a CPU"
        )
    return None


def sharing_fault(fields: Mapping[str, Any], size: int) -> str | None:
    """Why an engine that `size` processes share cannot hold a model, in words; None if it can.

    Each holds as many attention heads and as much of every MLP; key and value heads that are fewer
    than the processes are held by several, as many times each.
    """
    text = fields.get("text_config", fields)
    for name in ("num_attention_heads", "intermediate_size", "moe_intermediate_size"):
        if (count := text.get(name) or size) % size:
            return f"its {name} is {count}, which engine.tensor_parallel {size} does not divide"
    keys = text.get("num_key_value_heads") or size
    if not text.get("kv_lora_rank") and keys % size and size % keys:
        return (
            f"its num_key_value_heads is {keys}, which engine.tensor_parallel {size} neither divides "
            "nor is a multiple of"
        )
    return None


def read_model_config(name: str) -> dict[str, Any]:
    """The config.json of a model as a recipe names it: a folder, the default, a cached hub id.

    Of a model that a preset names, and that is not in the cache, what a plan needs of it.

    Raises:
        ModelError: There is none on this machine, or it is no JSON object.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        file = path / "config.json"
    elif name == DEFAULT_MODEL:
        file = cache_folder() / DEFAULT_KEY / "config.json"
        if not file.is_file():
            return DEFAULT_CONFIG
    elif path.suffix.lower() == ".gguf":
        raise ModelError(
            f"model {name!r}: only a config.json can be planned with: give the folder of the model "
            "that the .gguf file was made from"
        )
    else:
        found = _in_hub_cache(name)
        if found is None:
            return dict(KNOWN_MODELS[name].config)
        file = found
    try:
        config = json.loads(file.read_text())
    except OSError as error:
        raise ModelError(f"model {name!r}: the folder holds no config.json") from error
    except ValueError as error:
        raise ModelError(f"model {name!r}: {file} is no JSON ({error})") from error
    if not isinstance(config, dict):
        raise ModelError(f"model {name!r}: {file} holds no fields")
    return config


def _in_hub_cache(name: str) -> Path | None:
    """Where the hub's own cache keeps it; None if a known model is not there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError as error:
        raise ModelError(f"model {name!r}: no such folder, and no hub id") from error
    if isinstance(found, str):
        return Path(found)
    if name in KNOWN_MODELS:
        return None
    raise ModelError(
        f"model {name!r}: no such folder, and not in the local cache of the Hugging Face hub; "
        f"`hf download {name} config.json` is enough to plan with, or a folder with config.json"
    )
