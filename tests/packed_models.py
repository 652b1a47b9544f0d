"""Tiny random models of the families that are trained, and batches of prompts with completions."""

import torch
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rl.forward import plain_attention
from rl.packing import Batch

HIDDEN = 16
SIZES = {
    "vocab_size": 32,
    "hidden_size": HIDDEN,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 640,
}
HEADS = {"head_dim": 8}
WINDOW = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
LATENT = {
    "num_key_value_heads": 4,
    "moe_intermediate_size": 8,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
}


def llama():
    return seeded(LlamaForCausalLM, LlamaConfig(**SIZES, **HEADS))


def qwen2():
    return seeded(Qwen2ForCausalLM, Qwen2Config(**SIZES))


def qwen3():
    return seeded(Qwen3ForCausalLM, Qwen3Config(**SIZES, **HEADS))


def gemma2():
    """Sliding windows and soft-caps that bend."""
    config = Gemma2Config(**SIZES, **HEADS, **WINDOW, attn_logit_softcapping=2.0)
    return seeded(Gemma2ForCausalLM, config)


def gemma3():
    return seeded(Gemma3ForCausalLM, Gemma3TextConfig(**SIZES, **HEADS, **WINDOW))


def deepseek_v3():
    """Latent attention, whose values are smaller than its keys, and one layer of experts."""
    return seeded(DeepseekV3ForCausalLM, DeepseekV3Config(**SIZES | LATENT))


FAMILIES = [llama, qwen2, qwen3, gemma2, gemma3, deepseek_v3]


def seeded(kind, config):
    """A random model whose matrices are large enough for attention to be far from uniform."""
    torch.manual_seed(0)
    model = kind(config).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
        for name, buffer in model.named_buffers():
            if "e_score_correction_bias" in name:  # decides which experts a token visits
                buffer.copy_(torch.randn_like(buffer) * 0.3)
    model.set_attn_implementation(plain_attention(model))
    return model


def batch_of(families, seed=1):
    """Random tokens: `families` are (prompt length, completion lengths)."""
    draw = torch.Generator().manual_seed(seed)
    ids, positions, segments, sampled = [], [], [], []
    for group, (prompt, completions) in enumerate(families):
        shared = torch.randint(32, (prompt,), generator=draw).tolist()
        for sample, length in enumerate(completions):
            ids += shared + torch.randint(32, (length,), generator=draw).tolist()
            positions += range(prompt + length)
            segments += [(group, sample)] * (prompt + length)
            sampled += [False] * prompt + [True] * length
    zeros = torch.zeros(len(ids))
    return Batch(
        token_ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        segments=torch.tensor(segments),
        sampled=torch.tensor(sampled),
        behaviour_logprobs=zeros,
        advantages=zeros,
        token_weights=zeros,
    )
