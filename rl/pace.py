"""Seconds of a round by phase, estimated from a device's speed: right within a factor of two or so.

Counted are the products of the layers' matrices at unique tokens (a prompt once a group), those of
attention and of the head, and the bytes that move in decoding, in the optimizer's step and in a
publish. Of several GPUs it is one's share, also of an engine that they share; their traffic, scoring
and evaluation are left out.

Names: N parameters.
"""

from dataclasses import dataclass

from rl.architecture import Architecture
from rl.engine_memory import cached_tokens
from rl.workload import Demand
from rollouts.device_memory import kv_pool_bytes

UPDATE_EFFICIENCY = 0.45
"""Of the speed of large products that an update gets, all else included: 0.41 is measured on two
cores, 0.3 to 0.5 is usual on GPUs."""
SAMPLE_EFFICIENCY = 0.45
"""Of both speeds, in decoding."""
STEP_S = 0.008
"""Of a decoding step beside its arithmetic: scheduling and drawing."""
LAYER_S = 0.001
"""Of a layer in one micro-batch beside its arithmetic, forward and backward: starting kernels."""
PUBLISH_PASSES = 20
"""Times that a publish reads or writes the weights: cast, loaded, packed, proved."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Of a device: products of large bfloat16 matrices, and memory."""

    flops: float
    """Floating-point operations a second."""
    bandwidth: float
    """Bytes a second."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """What a round computes.

    Attributes:
        updates: Optimizer steps, over which its groups are spread.
        frozen_passes: Forward passes without gradient over all of it, for pi_old and the reference.
    """

    groups: int
    updates: int
    frozen_passes: int


def seconds(demand: Demand, work: Round, speed: Speed) -> dict[str, float]:
    """Estimated seconds of a round: sample, update, publish."""
    return {
        "sample": _sample_s(demand, work, speed),
        "update": _update_s(demand, work, speed),
        "publish": PUBLISH_PASSES * _trained(demand) * demand.itemsize / speed.bandwidth,
    }


def sampled_tokens(demand: Demand, work: Round) -> int:
    """Of a round, at the mean length."""
    return work.groups * demand.group_size * demand.lengths.mean


def update_flops(demand: Demand, work: Round) -> dict[str, float]:
    """Of a round's updates: layers' matrices, attention, head.

    A forward pass counts 2 a parameter and token, backward 4, or 2 where the weights are frozen;
    gradient checkpointing computes the layers' forward twice, attention and head always do.
    """
    arch, sampled = demand.arch, sampled_tokens(demand, work)
    unique = work.groups * demand.lengths.prompt + sampled
    passes = 3 + demand.policy.gradient_checkpointing + work.frozen_passes
    frozen = bool(demand.adapted)
    computed = arch.computed * (passes - frozen) + demand.adapter_parameters * passes
    return {
        "layers": 2.0 * computed * unique,
        "attention": _pairs(demand, work) * _pair_flops(arch) * (passes + 0.5),
        "head": 2.0 * sampled * arch.embedding * (4 - frozen + work.frozen_passes),
    }


def _update_s(demand: Demand, work: Round, speed: Speed) -> float:
    computing = sum(update_flops(demand, work).values()) / (speed.flops * UPDATE_EFFICIENCY)
    # Gradients are read for their norm, then all is read and written once, and the model written.
    item = 4 if demand.full_states else demand.itemsize
    moved = _trained(demand) * (9 * item + demand.itemsize)
    unique = work.groups * demand.lengths.prompt + sampled_tokens(demand, work)
    layers = -(-unique // demand.policy.micro_batch_tokens) * demand.arch.num_hidden_layers
    moved /= demand.shards
    return computing + layers * LAYER_S + work.updates * moved / speed.bandwidth


def _sample_s(demand: Demand, work: Round, speed: Speed) -> float:
    """Steps read the weights and the caches; every token is multiplied with all that it meets."""
    arch, lengths = demand.arch, demand.lengths
    several = demand.engine.tensor_parallel  # which sample their shares together
    sequences = several * work.groups * demand.group_size
    concurrent = min(demand.concurrent, sequences)
    if demand.gpu_bytes is not None:  # as many as find room at their mean length
        fit = cached_tokens(demand) // (lengths.prompt + lengths.mean)
        concurrent = max(1, min(concurrent, fit))
    sampled = sampled_tokens(demand, work)
    steps = max(lengths.longest, several * sampled / concurrent)
    met = arch.computed + arch.embedding
    read = min(arch.parameters, met * concurrent) * demand.itemsize / several
    cached = kv_pool_bytes(arch, demand.itemsize, max_tokens=1, concurrent=0) / 128
    moved = steps * read + sampled * (lengths.prompt + lengths.mean / 2) * cached
    flops = 2.0 * met * sampled + 2.0 * arch.computed * work.groups * lengths.prompt
    flops += _pairs(demand, work) * _pair_flops(arch)
    computing = flops / (speed.flops * SAMPLE_EFFICIENCY)
    return computing + moved / (speed.bandwidth * SAMPLE_EFFICIENCY) + steps * STEP_S


def _trained(demand: Demand) -> int:
    """Parameters that are trained and published."""
    return demand.adapter_parameters or demand.arch.parameters


def _pairs(demand: Demand, work: Round) -> float:
    """Queries times the keys that they see, over a round."""
    prompt, mean = demand.lengths.prompt, demand.lengths.mean
    own = prompt * prompt / 2
    return work.groups * (own + demand.group_size * mean * (prompt + mean / 2))


def _pair_flops(arch: Architecture) -> float:
    """Of a query with one key, forward, over all heads and layers."""
    return 2.0 * arch.num_hidden_layers * (arch.widths[0] + arch.out_width)
