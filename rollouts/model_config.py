"""A model's config.json, found without fetching, converting or importing anything heavy."""

import json
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
