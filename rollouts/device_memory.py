"""How much memory an engine takes: on a CPU a KV pool of what its requests fill, on a GPU a share.

Plain arithmetic, so that a plan can be made where no engine is loaded.
"""

import os
from pathlib import Path
from typing import Any

from rollouts.sampler import EngineConfig

ITEM_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
_CPU_BLOCK_TOKENS = 32
"""The smallest that vLLM 0.32 takes on a CPU. A group shares its prompt's whole blocks: with
vLLM's own choice of 128, prompts of fewer tokens would be computed for every completion."""
_CPU_BATCH_TOKENS = 4096


def device_settings(
    model: Path, config: EngineConfig, max_tokens: int, concurrent: int
) -> dict[str, Any]:
    """What vLLM is told of memory on this machine's device."""
    import torch
    from transformers import AutoConfig

    launched = {
        "distributed_executor_backend": "external_launcher",
        "tensor_parallel_size": config.tensor_parallel,
    }
    if torch.cuda.is_available():
        shared = {"gpu_memory_utilization": config.gpu_memory_frac, "enable_sleep_mode": True}
        # Of several processes each has its own GPU, in the group that is there.
        alone = int(os.environ.get("WORLD_SIZE") or 1) == 1
        return shared if alone else {**shared, **launched}
    settings = AutoConfig.from_pretrained(model).get_text_config()
    return {
        **(launched if config.tensor_parallel > 1 else {}),
        "block_size": _CPU_BLOCK_TOKENS,
        "kv_cache_memory_bytes": cpu_pool_bytes(settings, config, max_tokens, concurrent),
        # vLLM 0.32 rewinds the generator of a prompt that it splits, which CPU generators refuse
        # ("CPU Generator does not use offset"): with seeds, no prompt may be split.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(_CPU_BATCH_TOKENS, max_tokens),
    }


def cpu_pool_bytes(settings: Any, config: EngineConfig, max_tokens: int, concurrent: int) -> int:
    """Bytes of a process's KV pool on a CPU: what `concurrent` sequences fill, up to `max_kv_gib`.

    One sequence always fits, whatever the bound.
    """
    shape = {"max_tokens": max_tokens, "processes": config.tensor_parallel}
    itemsize = ITEM_BYTES[config.dtype]
    wanted = kv_pool_bytes(settings, itemsize, concurrent=concurrent, **shape)
    least = kv_pool_bytes(settings, itemsize, concurrent=1, **shape)
    return max(least, min(wanted, int(config.max_kv_gib * 2**30)))


def kv_pool_bytes(
    settings: Any, itemsize: int, *, max_tokens: int, concurrent: int, processes: int = 1
) -> int:
    """Bytes of the KV cache that `concurrent` sequences of `max_tokens` fill, in whole blocks.

    Of `processes` that share an engine each holds some of the heads, at least one; what latent
    attention keeps, each holds. `settings` is a transformers text config, or has its names.
    Example: SmolLM2-135M in bf16 (30
    layers, 3 heads of 64): 23,040 bytes a token, so 64 sequences of at most 128 tokens take 189 MB
    and one block more.
    """
    if getattr(settings, "kv_lora_rank", None):
        width = settings.kv_lora_rank + settings.qk_rope_head_dim
    else:
        heads = getattr(settings, "num_key_value_heads", None) or settings.num_attention_heads
        head_dim = getattr(settings, "head_dim", None)
        width = (
            2
            * max(1, heads // processes)
            * (head_dim or settings.hidden_size // settings.num_attention_heads)
        )
    blocks = concurrent * -(-max_tokens // _CPU_BLOCK_TOKENS) + 1
    return settings.num_hidden_layers * width * itemsize * blocks * _CPU_BLOCK_TOKENS
