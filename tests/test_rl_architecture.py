"""Parameters counted from a config.json against transformers' own models, made without memory."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rl.architecture import read_architecture

SIZES = {
    "vocab_size": 1000,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}
LATENT = {
    "num_key_value_heads": 6,
    "kv_lora_rank": 32,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12,
    "v_head_dim": 20,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "moe_intermediate_size": 40,
    "first_k_dense_replace": 1,
}
ROUTED = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
MODELS: list[dict[str, Any]] = [
    {"model_type": "llama"},
    {"model_type": "llama", "tie_word_embeddings": True, "head_dim": 24},
    {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    {"model_type": "mistral"},
    {"model_type": "qwen2", "tie_word_embeddings": True},
    {"model_type": "qwen3"},
    {"model_type": "qwen3", "tie_word_embeddings": True, "attention_bias": True, "head_dim": 16},
    {"model_type": "qwen3_moe", **ROUTED},
    {"model_type": "qwen3_moe", **ROUTED, "mlp_only_layers": [0], "decoder_sparse_step": 1},
    {"model_type": "qwen3_moe", **ROUTED, "decoder_sparse_step": 2},
    {"model_type": "gemma2", "head_dim": 32},
    {"model_type": "gemma3_text"},
    {"model_type": "gemma3_text", "head_dim": 32, "tie_word_embeddings": False},
    {"model_type": "deepseek_v3", **LATENT},
    {"model_type": "deepseek_v3", **LATENT, "q_lora_rank": None, "tie_word_embeddings": True},
]


def meta_model(fields: dict[str, Any]) -> torch.nn.Module:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields))


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m['model_type']}-{len(m)}")
def test_parameters_are_exact(model: dict[str, Any]):
    fields = {**SIZES, **model}
    count = sum(parameter.numel() for parameter in meta_model(fields).parameters())
    assert read_architecture(fields).parameters == count


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m['model_type']}-{len(m)}")
def test_the_largest_layer_and_what_a_token_meets(model: dict[str, Any]):
    fields = {**SIZES, **model}
    layers = meta_model(fields).model.layers
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in layers]
    arch = read_architecture(fields)
    assert arch.largest_layer == max(sizes)
    matrices = sum(p.numel() for layer in layers for p in layer.parameters() if p.ndim == 2)
    if not arch.experts:
        assert arch.computed == matrices
        return
    # Experts are [count, ...]: a token visits some of them; the router's matrix is among the 2-D.
    routed = sum(p.numel() for layer in layers for p in layer.parameters() if p.ndim == 3)
    visited = routed * arch.experts.per_token // arch.experts.count
    assert arch.computed == matrices + visited


def test_deepseek_v3_as_it_was_published():
    """671B (DeepSeek-V3 report, abstract), without 256 router biases in each of 58 layers."""
    fields = {
        "model_type": "deepseek_v3", "vocab_size": 129_280, "hidden_size": 7168,
        "intermediate_size": 18_432, "moe_intermediate_size": 2048, "num_hidden_layers": 61,
        "first_k_dense_replace": 3, "num_attention_heads": 128, "num_key_value_heads": 128,
        "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
        "v_head_dim": 128, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8,
    }  # fmt: skip
    arch = read_architecture(fields)
    assert arch.parameters == 671_026_419_200 - 58 * 256
    # 37B are activated for a token, the same says: these with the head, and the embedding.
    assert arch.computed + arch.embedding == 36_624_596_992
    assert arch.kv_lora_rank + arch.qk_rope_head_dim == 576


def test_a_small_model_by_hand():
    # embedding 10 x 4, norm 4, and one layer: 4 x (4 + 2 + 2) + 4 x 4, 3 x 4 x 6, two norms.
    fields = {
        "model_type": "llama", "vocab_size": 10, "hidden_size": 4, "intermediate_size": 6,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
        "tie_word_embeddings": True,
    }  # fmt: skip
    arch = read_architecture(fields)
    assert (arch.parameters, arch.largest_layer, arch.computed) == (40 + 4 + 128, 128, 120)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "its architecture (no model_type) cannot be planned"),
        ({"model_type": "mamba"}, "its architecture (mamba) cannot be planned: known are llama,"),
        ({"model_type": "llama", "vocab_size": 9}, "its config.json has no num_attention_heads"),
    ],
)
def test_what_cannot_be_planned_is_told(fields: dict[str, Any], words: str):
    with pytest.raises(ValueError) as caught:
        read_architecture(fields)
    assert str(caught.value).startswith(words)
