"""How much memory an engine takes: on a CPU a KV pool of what its requests fill, on a GPU a share."""

from pathlib import Path
from typing import Any

import torch

from rollouts.sampler import EngineConfig

_CPU_BLOCK_TOKENS = 128
_CPU_BATCH_TOKENS = 4096


def device_settings(
    model: Path, config: EngineConfig, max_tokens: int, concurrent: int
) -> dict[str, Any]:
    """Memory: on CPU a KV pool of exactly what the requests can fill; on a GPU a share of it."""
    if torch.cuda.is_available():
        return {"gpu_memory_utilization": config.gpu_memory_frac, "enable_sleep_mode": True}
    from transformers import AutoConfig

    settings = AutoConfig.from_pretrained(model).get_text_config()
    itemsize = getattr(torch, config.dtype).itemsize
    wanted = kv_pool_bytes(settings, itemsize, max_tokens=max_tokens, concurrent=concurrent)
    least = kv_pool_bytes(settings, itemsize, max_tokens=max_tokens, concurrent=1)
    return {
        "kv_cache_memory_bytes": max(least, min(wanted, int(config.max_kv_gib * 2**30))),
        # vLLM 0.32 rewinds the generator of a prompt that it splits, which CPU generators refuse
        # ("CPU Generator does not use offset"): with seeds, no prompt may be split.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(_CPU_BATCH_TOKENS, max_tokens),
    }


def kv_pool_bytes(settings: Any, itemsize: int, *, max_tokens: int, concurrent: int) -> int:
    """Bytes of the KV cache that `concurrent` sequences of `max_tokens` fill, in whole blocks.

    `settings` is a transformers text config. Example: SmolLM2-135M in bf16 (30 layers, 3 heads
    of 64): 23,040 bytes a token, so 64 sequences of at most 128 tokens take 189 MB and one
    block more.
    """
    if getattr(settings, "kv_lora_rank", None):
        width = settings.kv_lora_rank + settings.qk_rope_head_dim
    else:
        heads = getattr(settings, "num_key_value_heads", None) or settings.num_attention_heads
        head_dim = getattr(settings, "head_dim", None)
        width = 2 * heads * (head_dim or settings.hidden_size // settings.num_attention_heads)
    blocks = concurrent * -(-max_tokens // _CPU_BLOCK_TOKENS) + 1
    return settings.num_hidden_layers * width * itemsize * blocks * _CPU_BLOCK_TOKENS
