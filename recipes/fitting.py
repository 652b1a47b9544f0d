"""Does a run fit into its device, and if not, what would.

The estimate is right within a fifth or so: a run is refused only when it is more than a tenth too
large, and warned of from nine tenths on.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import psutil

from recipes.apart import Apart, phases_of
from recipes.config import RunConfig
from recipes.demand import assumed_lengths, demand_of, engine_tokens
from recipes.devices import GIB, GPUS, Device, cpu_speed
from recipes.host_memory import free_memory
from rl.engine_memory import least_engine_bytes, weight_bytes
from rl.memory import peak
from rl.workload import Demand
from rollouts.model_config import read_model_config
from rollouts.process import uses_gpu

logger = logging.getLogger(__name__)

REFUSED = 1.1
WARNED = 0.9
NUM_WAYS = 2
"""So many ways to make it fit are named."""
TOKENS_MULTIPLE = 64

Verdict = Literal["fits", "tight", "too large"]


def verdict(demand: Demand, memory: int) -> Verdict:
    """What the estimate says of so many bytes."""
    share = 0.0
    if demand.gpu_bytes is not None:
        share = least_engine_bytes(demand) / (demand.engine.gpu_memory_frac * demand.gpu_bytes)
    need = max(peak(phases_of(demand))[1] / memory, share)
    return "too large" if need > REFUSED else "tight" if need > WARNED else "fits"


def fault(demand: Demand, device: Device) -> str:
    """In one line: what is too large or tight, and what would fit."""
    phase, need = peak(phases_of(demand))
    told = f"needs about {need / GIB:.1f} GiB (phase: {phase}), {device.told}"
    found = list(_ways(demand, device.memory))[:NUM_WAYS]
    wanted = demand.gpus_wanted if isinstance(demand, Apart) else device.count
    several = f" {wanted} times" if wanted > 1 else ""
    if larger := _smallest_gpu(demand):
        found += [f"as it is on {larger.name}{several} ({larger.memory / GIB:.0f} GiB)"]
    if not found:
        return f"{told}: {_lacking(demand) if device.is_gpu else 'no setting makes it fit'}"
    least = least_engine_bytes(demand)
    if demand.gpu_bytes is not None and least > demand.engine.gpu_memory_frac * demand.gpu_bytes:
        told += (
            f", of which the engine needs at least {least / GIB:.1f} GiB and is given "
            f"engine.gpu_memory_frac {demand.engine.gpu_memory_frac}"
        )
    return f"{told}: it fits {', or '.join(found)}"


def _lacking(demand: Demand) -> str:
    """What this version would need to spread a model over GPUs that no setting brings onto them."""
    largest = max(device.memory for device in GPUS.values())
    if least_engine_bytes(demand) > largest:
        return (
            f"the engine needs {weight_bytes(demand) / GIB:,.0f} GiB of weights on each GPU, with "
            f"engine.tensor_parallel {demand.engine.tensor_parallel} (the GPUs of one machine at "
            "most): no setting makes it fit"
        )
    return "no setting makes it fit"


def check_memory(config: RunConfig, model: Path, *, longest_prompt: int) -> None:
    """Raise ValueError if a run surely does not fit into this machine's memory; warn if it may not.

    On a CPU, before anything is loaded. Surely means with completions of a single token: how long
    they get is not known. Models of unknown architecture pass.

    Args:
        longest_prompt: In tokens, of the run's own problems.
    """
    if uses_gpu(os.environ):
        return
    lengths, values = assumed_lengths(config, longest_prompt, None), read_model_config(str(model))
    context = values.get("max_position_embeddings")
    tokens = engine_tokens(config, longest_prompt, context)
    world = int(os.environ.get("WORLD_SIZE") or 1)
    try:
        demand = demand_of(
            config, values, lengths, engine_tokens=tokens, gpu_bytes=None, processes=world
        )
    except ValueError:
        return
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    memory = free_memory() // sharing + psutil.Process().memory_info().rss
    if verdict(demand, memory) == "fits":
        return
    device = Device(name="cpu", is_gpu=False, memory=memory, speed=cpu_speed())
    least = replace(demand, lengths=replace(lengths, longest=1, mean=1))
    if verdict(least, memory) == "too large":
        raise ValueError(f"the run {fault(demand, device)}")
    logger.warning("if its completions get as long as they may, the run %s", fault(demand, device))


def largest_micro_batch(demand: Demand, memory: int) -> int | None:
    """The largest `policy.micro_batch_tokens` that fits, at most today's; None if none does.

    A micro-batch holds at least one longest sequence.
    """
    low = -(-demand.lengths.sequence // TOKENS_MULTIPLE)
    high = demand.policy.micro_batch_tokens // TOKENS_MULTIPLE
    best = None
    while low <= high:
        middle = (low + high) // 2
        if verdict(_changed(demand, micro_batch_tokens=middle * TOKENS_MULTIPLE), memory) == "fits":
            best, low = middle * TOKENS_MULTIPLE, middle + 1
        else:
            high = middle - 1
    return best


def most_workers(demand: Demand, memory: int) -> int:
    """The most workers that fit beside the trainer on this machine's CPU; 0 if not even one does."""
    if not isinstance(demand, Apart) or demand.gpu_bytes is not None or not demand.here:
        return 0
    requests = demand.requests * demand.num_workers
    fewer = (
        replace(demand, num_workers=count, requests=-(-requests // count))
        for count in range(demand.num_workers - 1, 0, -1)
    )
    return next((each.num_workers for each in fewer if verdict(each, memory) == "fits"), 0)


def _ways(demand: Demand, memory: int) -> Iterator[str]:
    """Settings that make it fit, the mildest first, each with a smaller micro-batch if it must be."""
    if count := most_workers(demand, memory):
        yield f"with --rollouts.num-workers {count}"
    for flags, changed in _changes(demand):
        tokens = demand.policy.micro_batch_tokens
        if not flags or verdict(changed, memory) != "fits":
            best = largest_micro_batch(changed, memory)
            if best is None:
                continue
            tokens = best
        if tokens < demand.policy.micro_batch_tokens:
            flags = [*flags, f"--policy.micro-batch-tokens {tokens}"]
        if flags:
            yield f"with {' '.join(flags)}"


def _changes(demand: Demand) -> Iterator[tuple[list[str], Demand]]:
    flags: list[str] = []
    yield flags, demand
    if not demand.policy.gradient_checkpointing:
        flags = [*flags, "--policy.gradient-checkpointing"]
        demand = _changed(demand, gradient_checkpointing=True)
        yield flags, demand
    if demand.policy.fsdp:  # whose shards are float32 masters, where the gradients are
        return
    if demand.gpu_bytes is not None and not demand.optimizer.offload:
        away = replace(demand, optimizer=replace(demand.optimizer, offload=True))
        yield [*flags, "--optimizer.offload"], away
    if demand.gpu_bytes is not None and demand.optimizer.states == "float32":
        eight = replace(demand, optimizer=replace(demand.optimizer, states="8bit"))
        yield [*flags, "--optimizer.states 8bit"], eight
    if demand.optimizer.states == "float32":
        narrow = replace(demand, optimizer=replace(demand.optimizer, states="bfloat16"))
        yield [*flags, "--optimizer.states bfloat16"], narrow


def _smallest_gpu(demand: Demand) -> Device | None:
    """The first of the list that holds the run as it is, if this is not it already."""
    for device in GPUS.values():
        if demand.policy.dtype == "bfloat16" and not device.has_bfloat16:
            continue
        there = replace(demand, gpu_bytes=device.memory)
        if device.memory != demand.gpu_bytes and verdict(there, device.memory) == "fits":
            return device
    return None


def _changed(demand: Demand, **values: Any) -> Demand:
    return replace(demand, policy=replace(demand.policy, **values))
