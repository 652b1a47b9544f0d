"""Bytes that the engine takes: its weights, its adapters, its KV cache; a part of rl/memory.py.

Of an engine that several processes share it is what each of them holds.
"""

from rl.workload import Demand
from rollouts.adapters import AdapterShape
from rollouts.device_memory import ITEM_BYTES, cpu_pool_bytes, kv_pool_bytes

ENGINE_BUFFERS = 1500 * 10**6
"""What vLLM needs on a GPU beside weights and KV cache."""
BLOCK_TOKENS = 32
"""Of a block of the KV cache, as rollouts/device_memory.py counts it."""

Parts = dict[str, int]
"""Bytes by name."""


def weight_bytes(demand: Demand) -> int:
    """The engine's weights, or one process's part of them: norms, which are not divided, are small."""
    itemsize = ITEM_BYTES[demand.engine.dtype]
    return demand.arch.parameters * itemsize // demand.engine.tensor_parallel


def engine_parts(demand: Demand) -> Parts:
    """vLLM's weights, slots of adapters and KV pool on a CPU: a tied head is packed as a copy."""
    arch, config = demand.arch, demand.engine
    itemsize = ITEM_BYTES[config.dtype]
    packed = arch.embedding if arch.tied else 0
    return {
        "engine weights": weight_bytes(demand) + packed * itemsize // config.tensor_parallel,
        "engine adapters": slot_bytes(demand),
        "engine KV pool": cpu_pool_bytes(arch, config, demand.engine_tokens, demand.concurrent),
    }


def slot_bytes(demand: Demand) -> int:
    """vLLM's one slot for adapters, of the next rank that it knows, and its copy beside it."""
    if not demand.adapted:
        return 0
    rank = AdapterShape(rank=demand.policy.lora.rank, layers=()).slot_rank
    return 2 * rank * sum(map(sum, demand.adapted)) * ITEM_BYTES[demand.engine.dtype]


def cached_tokens(demand: Demand) -> int:
    """Tokens that the engine's share of a GPU has room for beside weights and buffers."""
    assert demand.gpu_bytes is not None
    itemsize = ITEM_BYTES[demand.engine.dtype]
    held = weight_bytes(demand) + slot_bytes(demand) + ENGINE_BUFFERS
    room = demand.engine.gpu_memory_frac * demand.gpu_bytes - held
    several = demand.engine.tensor_parallel
    block = kv_pool_bytes(demand.arch, itemsize, max_tokens=1, concurrent=0, processes=several)
    return max(0, int(room // (block / BLOCK_TOKENS)))


def least_engine_bytes(demand: Demand) -> int:
    """What the engine's share of a GPU must hold: weights, buffers, one longest sequence."""
    itemsize = ITEM_BYTES[demand.engine.dtype]
    pool = kv_pool_bytes(
        demand.arch,
        itemsize,
        max_tokens=demand.engine_tokens,
        concurrent=1,
        processes=demand.engine.tensor_parallel,
    )
    return weight_bytes(demand) + slot_bytes(demand) + ENGINE_BUFFERS + pool
