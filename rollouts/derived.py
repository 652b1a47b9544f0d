"""What an engine computes with that no checkpoint holds: made from published tensors as it loads.

Latent attention multiplies by two matrices cut out of kv_b_proj; routed experts lie stacked, and on
a CPU packed; a router has the bias of its scores beside its gate. Each is read where it is used.

Works on vLLM's modules by their attributes; leaves out expert parallelism.

Shapes: N heads of this process, P and V sizes of a head's keys and values, L latent size, E experts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rollouts.tensor_slices import own_expert, own_slices

EXPERT_PARTS = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class Held:
    """One tensor of the engine.

    Attributes:
        read: Gives it as the engine computes with it, in all the forms that it does.
        sources: Names of the published tensors that it is made from.
        expect: From those what `read` must give, in parts that follow each other in its rows.
    """

    read: Callable[[], Iterator[Tensor]]
    sources: Sequence[str]
    expect: Callable[[list[Tensor]], list[Tensor]] = list


def derived_tensors(model: nn.Module) -> Iterator[tuple[str, Held]]:
    """All of them by name; a name may be that of a parameter of the engine.

    Raises ValueError for latent attention whose matrices lie where they cannot be read.
    """
    names = {id(module): name.removesuffix(".base_layer") for name, module in model.named_modules()}
    for name, module in model.named_modules():
        if hasattr(module, "kv_b_proj") and hasattr(module, "process_weights_after_loading"):
            yield from _latent(name, module, f"{names[id(module.kv_b_proj)]}.weight")
        if hasattr(module, "w13_weight") and hasattr(module, "w2_weight"):
            yield from _experts(name, module)
        router = getattr(module, "router", None)
        if getattr(router, "e_score_correction_bias", None) is not None:
            yield _bias(f"{name}.router", router, name.removesuffix(".experts"))


def _latent(name: str, attention: Any, source: str) -> Iterator[tuple[str, Held]]:
    """W_UK_T [N, P, L] and W_UV [N, L, V], of kv_b_proj [N (P + V), L]."""
    if getattr(attention, "W_UK_T", None) is None or getattr(attention, "W_UV", None) is None:
        raise ValueError(f"{name}: its latent attention computes with matrices that cannot be read")
    num_heads, size = attention.num_heads, attention.qk_nope_head_dim

    def heads(weights: list[Tensor]) -> Tensor:
        own = own_slices(attention.kv_b_proj, "weight", weights)
        return own[0].unflatten(0, (num_heads, -1))

    def keys(weights: list[Tensor]) -> list[Tensor]:
        return [heads(weights)[:, :size]]

    def values(weights: list[Tensor]) -> list[Tensor]:
        return [heads(weights)[:, size:].transpose(1, 2)]

    for own, expect in (("W_UK_T", keys), ("W_UV", values)):
        yield f"{name}.{own}", Held(read=_reader(attention, own), sources=[source], expect=expect)


def _experts(name: str, experts: Any) -> Iterator[tuple[str, Held]]:
    """w13 [E, 2 I, H] and w2 [E, H, I]."""
    place = name.removesuffix(".routed_experts")
    sources = [
        f"{place}.{index}.{part}.weight"
        for index in range(len(experts.w13_weight))
        for part in EXPERT_PARTS
    ]
    for own in ("w13_weight", "w2_weight"):

        def expect(weights: list[Tensor], own: str = own) -> list[Tensor]:
            return [_packed(experts, *weights[i : i + 3])[own] for i in range(0, len(weights), 3)]

        yield f"{name}.{own}", Held(read=_reader(experts, own), sources=sources, expect=expect)
    if getattr(experts, "e_score_correction_bias", None) is not None:
        yield _bias(name, experts, place.removesuffix(".experts"))


def _packed(experts: Any, gate: Tensor, up: Tensor, down: Tensor) -> Mapping[str, Tensor]:
    """One expert's weights as this engine's kernel wants them, by its own packing."""
    alone = nn.Module()
    gate, up, down = own_expert(experts, gate, up, down)
    for attribute in ("moe_config", "activation"):
        setattr(alone, attribute, getattr(experts, attribute, None))
    for own, weight in (("w13_weight", torch.cat([gate, up])), ("w2_weight", down)):
        tensor = weight[None].to(getattr(experts, own), copy=True)
        alone.register_parameter(own, nn.Parameter(tensor, requires_grad=False))
    experts.quant_method.moe_kernel.fused_experts.process_weights_after_loading(alone)
    return dict(alone.named_parameters())


def _bias(name: str, holder: Any, block: str) -> tuple[str, Held]:
    own = "e_score_correction_bias"
    return f"{name}.{own}", Held(read=_reader(holder, own), sources=[f"{block}.gate.{own}"])


def _reader(holder: Any, name: str) -> Callable[[], Iterator[Tensor]]:
    return lambda: iter([getattr(holder, name).data])
