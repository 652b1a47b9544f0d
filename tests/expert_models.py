"""Tiny random checkpoints with experts, DeepSeek-V3's and Qwen3's, whose logprobs show a fault.

DeepSeek-V3: latent attention of the only size that vLLM computes on a CPU (512 + 64), a dense layer and two of
experts: one shared, eight routed in two groups, of which a token visits two.
"""

from pathlib import Path

import torch
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from tests.conftest import byte_tokenizer

SIZES = {
    "vocab_size": 259,
    "hidden_size": 128,
    "intermediate_size": 192,
    "moe_intermediate_size": 64,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 96,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 32,
    "v_head_dim": 64,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
COMMON = (
    "vocab_size",
    "hidden_size",
    "max_position_embeddings",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
GROUPED = {
    "intermediate_size": 192,
    "moe_intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
}
ROUTER = {"topk_method": "noaux_tc", "scoring_func": "sigmoid"}
STD = 0.05
WIDE_STD = 0.2
BIAS_STD = 0.3


def write_deepseek_v3(folder: Path, **fields) -> Path:
    """The checkpoint in float32; `fields` replace those of its config."""
    config = DeepseekV3Config(**SIZES | ROUTER | fields)
    return _write(folder, DeepseekV3ForCausalLM(config))


def write_qwen3_moe(folder: Path) -> Path:
    """The same for Qwen3 with experts: two layers, routers by softmax without biases."""
    shared = {name: SIZES[name] for name in COMMON}
    return _write(folder, Qwen3MoeForCausalLM(Qwen3MoeConfig(**shared, **GROUPED)))


def _write(folder: Path, model: PreTrainedModel) -> Path:
    draw_weights(model)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=[2, 0], pad_token_id=0)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@torch.no_grad()
def draw_weights(model: PreTrainedModel) -> None:
    """Matrices of std 0.05, norms near 1, router biases of 0.3; embedding and head of 0.2, which
    with a normed hidden state of length sqrt(128) gives logits of std 2.3: far from uniform.
    """
    draw = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        drawn = torch.randn(tensor.shape, generator=draw)
        if "e_score_correction_bias" in name:
            tensor.copy_(BIAS_STD * drawn)
        elif tensor.ndim == 1:
            tensor.copy_(1 + 0.1 * drawn)
        else:
            wide = "embed_tokens" in name or "lm_head" in name
            tensor.copy_((WIDE_STD if wide else STD) * drawn)
