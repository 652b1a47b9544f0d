"""Memory of a run by phase and part, before anything is loaded: plain arithmetic in bytes.

On a CPU all parts live in one process, so the peak is that of the largest phase. On a GPU the
engine holds its share while it samples and sleeps while the trainer loads, compares and updates.
Of several GPUs it is what each holds: an engine with the whole model, or its part of one that it
shares, and with FSDP a share of the trainer's states. The peak is that of full micro-batches; the constants at the top are measured on
CPUs (LOG.md), those of GPUs are not.

Names: N parameters, V vocabulary, H hidden size.
"""

from rl.activations import activation_bytes, head_bytes, probability_bytes
from rl.engine_memory import ENGINE_BUFFERS, Parts, engine_parts, weight_bytes
from rl.sharing import NUM_COMPLETIONS
from rl.workload import Demand

MB = 10**6
LIBRARIES = 800 * MB
"""Of a process on a CPU with torch, transformers and vLLM loaded."""
ADAPTER_LIBRARIES = 70 * MB
"""What peft and vLLM's LoRA add."""
COMPILING = 300 * MB
"""Of a C++ compiler at work beside the first update, where layers are fused on a CPU."""
SCORER = 30 * MB
"""Of one scoring process."""
SLACK = 0.05
"""What the allocator holds beyond what lives, as a share of it."""
CUDA_CONTEXT = 600 * MB
ENGINE_ASLEEP = 1000 * MB
"""What vLLM keeps on a GPU while it sleeps: its own buffers and captured graphs."""
BATCH_TOKENS = 4096
"""Prompt tokens that the engine computes at once."""
GATE_TOKENS = 64
"""Most of a completion of the gate."""


def phases(demand: Demand) -> dict[str, Parts]:
    """What each phase of a run holds, part by part: load, gate, sample, update, publish."""
    shared = engine_parts(demand) if demand.gpu_bytes is None else {}
    held = {**shared, **trainer_parts(demand)}
    loading = {n: size for n, size in held.items() if n not in ("gradients", "moments")}
    added = {
        "load": {"weights as read": _read_bytes(demand)},
        "gate": {"float32 copies": _gate_bytes(demand)},
        "sample": {"sampling": _sampling_bytes(demand)},
        "update": update_parts(demand),
        "publish": {"proof": 3 * demand.arch.embedding * demand.itemsize},
    }
    found = {}
    for phase, extra in added.items():
        parts = {**(loading if phase in ("load", "gate") else held), **extra}
        parts = parts if demand.gpu_bytes is None else {**_on_gpu(demand, phase), **parts}
        found[phase] = {**_surrounding(demand, parts), **parts}
    return found


def peak(found: dict[str, Parts]) -> tuple[str, int]:
    """The phase that takes most, and its bytes."""
    totals = {phase: sum(parts.values()) for phase, parts in found.items()}
    phase = max(totals, key=lambda name: totals[name])
    return phase, totals[phase]


def trainer_parts(demand: Demand) -> Parts:
    """What the trainer holds between updates, on the device that it computes on.

    Example: 16 bytes a parameter of masters, gradients and moments beside 2 of the model in
    bfloat16; with LoRA the 16 are those of the adapters' parameters alone.
    """
    whole, itemsize = demand.arch.parameters, demand.itemsize
    count = demand.adapter_parameters or whole
    full = demand.full_states
    away = full and demand.optimizer.offload and demand.gpu_bytes is not None
    wide = 0 if away else 4 if full else itemsize
    moment = 1.02 if demand.optimizer.states == "8bit" and not away else wide  # with its scales
    parts = {
        "model": (whole + demand.adapter_parameters) * itemsize,
        "masters": count * wide if full else 0,
        "gradients": count * wide,
        "moments": int(2 * count * moment),
        "reference": count * itemsize if demand.reference else 0,
    }
    if demand.shards > 1:  # the masters are the model
        away = demand.optimizer.offload and demand.gpu_bytes is not None
        share = demand.shards if not away else demand.shards * whole  # all of it in the host
        return {n: size // share for n, size in parts.items() if n != "model"}
    return parts


def host_bytes(demand: Demand) -> int:
    """What a GPU's process holds in its machine's memory: weights as read, or what it put away."""
    if demand.gpu_bytes is None:
        return 0
    whole = demand.arch.parameters
    trained = demand.adapter_parameters or whole
    states = 16 * trained // demand.shards if demand.optimizer.offload else 0
    return LIBRARIES + max(4 * whole, weight_bytes(demand) + states)


def update_parts(demand: Demand) -> Parts:
    """What a micro-batch of the update adds."""
    arch, itemsize = demand.arch, demand.itemsize
    kept = 4 * arch.num_attention_heads
    if demand.gpu_bytes is None:
        kept = probability_bytes(arch, itemsize, demand.lengths, native=demand.native)
    kept += _per_layer(demand) * demand.policy.lora.rank * itemsize
    trained = not demand.adapted
    activations = activation_bytes(
        arch,
        itemsize,
        demand.places,
        compiled=demand.compiled,
        checkpointing=demand.policy.gradient_checkpointing,
        beside=kept,
        trained=trained,
    )
    head = head_bytes(
        arch,
        itemsize,
        demand.places,
        float32_head=demand.policy.float32_head,
        trained=trained,
    )
    compiling = demand.compiled and demand.gpu_bytes is None
    parts = {"activations": activations, "head": head, "compiler": compiling * COMPILING}
    return {**parts, "gathered": gathered_bytes(demand)} if demand.shards > 1 else parts


def gathered_bytes(demand: Demand) -> int:
    """What FSDP makes whole: embedding and head, a layer that computes, the next, their gradients."""
    arch = demand.arch
    roots = arch.embedding * (1 if arch.tied else 2)
    summed = 4 * (roots + arch.largest_layer)  # in float32, before they are scattered
    return demand.itemsize * (roots + 2 * arch.largest_layer) + summed


def _on_gpu(demand: Demand, phase: str) -> Parts:
    """What the engine holds: its whole share, its weights, or what is left while it sleeps."""
    assert demand.gpu_bytes is not None
    if phase == "load":  # the trainer comes first
        return {}
    if phase in ("gate", "update"):
        return {"engine asleep": ENGINE_ASLEEP}
    if phase == "publish":
        return {"engine weights": weight_bytes(demand) + ENGINE_BUFFERS}
    return {"engine": int(demand.engine.gpu_memory_frac * demand.gpu_bytes)}


def _surrounding(demand: Demand, parts: Parts) -> Parts:
    """What is there before anything is loaded, and what the allocator holds beyond `parts`."""
    ours = sum(size for name, size in parts.items() if name != "engine")
    libraries = LIBRARIES + demand.scorers * SCORER + bool(demand.adapted) * ADAPTER_LIBRARIES
    return {
        "libraries": libraries if demand.gpu_bytes is None else CUDA_CONTEXT,
        "allocator": int(SLACK * ours),
    }


def _per_layer(demand: Demand) -> int:
    """Adapted matrices of one layer, rounded up."""
    return -(-len(demand.adapted) // demand.arch.num_hidden_layers)


def _read_bytes(demand: Demand) -> int:
    """Weights are read as float32, which the masters then are; where there are none, they go."""
    if demand.gpu_bytes is not None:  # read in the host's memory
        return _moved_bytes(demand)
    kept = demand.full_states and not demand.adapted
    return 0 if kept else 4 * demand.arch.parameters


def _moved_bytes(demand: Demand) -> int:
    """What comes to a GPU in float32 and does not stay: with FSDP layer by layer."""
    arch = demand.arch
    if demand.shards > 1:
        return 4 * max(arch.embedding * (1 if arch.tied else 2), arch.largest_layer)
    stays = demand.full_states and not demand.optimizer.offload
    return 0 if stays or demand.adapted else (4 - demand.itemsize) * arch.parameters


def _gate_bytes(demand: Demand) -> int:
    """A float32 copy, sharded as the model is; a few of its layers with two sets of gradients; their logits."""
    arch = demand.arch
    if demand.shards == 1:  # a copy of a copy
        copies = (4 + demand.itemsize) * arch.parameters
    else:  # shards, and what is gathered of them: embedding and head, a layer, and the next
        roots = arch.embedding * (1 if arch.tied else 2)
        copies = 4 * (arch.parameters // demand.shards + roots + 2 * arch.largest_layer)
    kinds = 2 if arch.sparse_layers else 1
    few = arch.embedding * (1 if arch.tied else 2) + kinds * arch.largest_layer
    tokens = min(GATE_TOKENS, demand.lengths.mean)
    logits = 2 * 2 * NUM_COMPLETIONS * tokens * arch.vocab_size * 4
    return copies + 3 * 4 * few + logits


def _sampling_bytes(demand: Demand) -> int:
    """Logits of a step thrice in float32, and a batch of prompts inside one layer, on a CPU."""
    if demand.gpu_bytes is not None:  # inside the engine's share
        return 0
    arch = demand.arch
    logits = 3 * 4 * demand.concurrent * arch.vocab_size
    width = 3 * arch.intermediate_size + 4 * arch.hidden_size
    return logits + BATCH_TOKENS * width * demand.itemsize
