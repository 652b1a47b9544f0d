"""Models that presets name: their licences, and the fields of their config.json that a plan needs.

A plan then asks no hub, and a model card knows the licence of its base. Parameters that these
fields come to are those of the checkpoints (tests/test_rollouts_known_models.py).
"""

from dataclasses import dataclass
from typing import Any

from rollouts.models import DEFAULT_MODEL


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A model by the name that a recipe is given, mostly its Hugging Face id.

    Attributes:
        hub_id: Where the name is another.
        licence: As a model card's `license` field writes it; "other" where the hub has no name for
            it, which `licence_name` then gives.
        config: Of its config.json; empty where another place has them.
    """

    hub_id: str = ""
    licence: str
    licence_name: str = ""
    config: dict[str, Any]


def _qwen(hidden: int, inner: int, layers: int, heads: int, keys: int, **other: Any) -> KnownModel:
    sizes = {
        "model_type": "qwen2",
        "vocab_size": 152_064,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "max_position_embeddings": 131_072,
        "tie_word_embeddings": False,
    }
    return KnownModel(licence="apache-2.0", config=sizes | other)


_TIED = {"vocab_size": 151_936, "tie_word_embeddings": True}
_DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "vocab_size": 129_280,
    "hidden_size": 7_168,
    "intermediate_size": 18_432,
    "moe_intermediate_size": 2_048,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "q_lora_rank": 1_536,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "max_position_embeddings": 163_840,
    "tie_word_embeddings": False,
}
_QWEN3_30B_A3B = {
    "model_type": "qwen3_moe",
    "vocab_size": 151_936,
    "hidden_size": 2_048,
    "intermediate_size": 6_144,
    "moe_intermediate_size": 768,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "decoder_sparse_step": 1,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": False,
}

KNOWN_MODELS = {
    DEFAULT_MODEL: KnownModel(
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct", licence="apache-2.0", config={}
    ),
    "Qwen/Qwen2.5-0.5B": _qwen(896, 4_864, 24, 14, 2, **_TIED, max_position_embeddings=32_768),
    "Qwen/Qwen2.5-1.5B": _qwen(1_536, 8_960, 28, 12, 2, **_TIED),
    "Qwen/Qwen2.5-7B": _qwen(3_584, 18_944, 28, 28, 4),
    "Qwen/Qwen2.5-32B": _qwen(5_120, 27_648, 64, 40, 8),
    "Qwen/Qwen2.5-Math-7B": _qwen(3_584, 18_944, 28, 28, 4, max_position_embeddings=4_096),
    "Qwen/Qwen3-30B-A3B-Base": KnownModel(licence="apache-2.0", config=_QWEN3_30B_A3B),
    "deepseek-ai/DeepSeek-V3-Base": KnownModel(
        licence="other", licence_name="deepseek", config=_DEEPSEEK_V3
    ),
}
"""By the name that a recipe is given."""
