"""AdamW with both moments in 8 bits, by torchao; masters stay float32.

Blocks of 256 values share a scale and are coded by a dynamic map (Dettmers et al. 2022, arXiv
2110.02861, section 2); tensors below 4,096 values, or not of whole blocks, keep float32 moments.
On CUDA torchao compiles the step of each shape; on a CPU compiling takes a minute and saves little,
so that the step runs as it is there, many times slower than torch's own.
"""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any

import torch
import torch._dynamo
from torch import Tensor

from rl.compiling import compiler

PARTS = ("codes", "scale")
BLOCK = 256
SMALLEST = 4096
"""Values of a moment that is held in 8 bits; torchao's own."""


def eight_bit_fault() -> str | None:
    """What is missing, and the remedy; None if nothing is."""
    if find_spec("torchao"):
        return None
    return (
        "optimizer.states is 8bit, which needs torchao: pip install 'torchao>=0.18,<0.19', "
        "or set optimizer.states to float32"
    )


def eight_bit_adamw(masters: Iterable[Tensor], **settings: Any) -> torch.optim.Optimizer:
    """The optimizer; `settings` as torch.optim.AdamW's. Raises ValueError without torchao."""
    if fault := eight_bit_fault():
        raise ValueError(fault)
    from torchao.optim import AdamW8bit

    return AdamW8bit(list(masters), **settings)


def eight_bit_step(adamw: torch.optim.Optimizer, rate: float, divisor: float) -> None:
    """One step on gradients divided by `divisor`, which they stay."""
    (group,) = adamw.param_groups
    group["lr"].fill_(rate)  # a tensor, since a number would be compiled in
    torch._foreach_div_([p.grad for p in group["params"]], divisor)
    compiles = group["params"][0].is_cuda and compiler() is not None
    # The engine may have switched dynamo off for itself, and torchao compiles or fails.
    stance = torch.compiler.set_stance("default" if compiles else "force_eager")
    with torch._dynamo.config.patch(disable=False), stance:
        adamw.step()


def moment_tensors(key: str, value: Tensor) -> dict[str, Tensor]:
    """A moment as plain tensors by name: itself, or its `PARTS`."""
    if not hasattr(value, "codes"):
        return {key: value}
    return {f"{key}.{part}": getattr(value, part) for part in PARTS}


def moment_from(key: str, tensors: Mapping[str, Tensor], master: Tensor) -> Tensor | None:
    """A copy of what `moment_tensors` gave, where its master is; None if it is not there."""
    if key in tensors:
        return tensors[key].to(master.device, copy=True)
    if f"{key}.codes" not in tensors:
        return None
    codes, scale = (tensors[f"{key}.{part}"].to(master.device) for part in PARTS)
    moment = _zeros(key, codes, codes.numel() // scale.numel())
    moment.codes.copy_(codes)
    moment.scale.copy_(scale)
    return moment


def eight_bit_values(key: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """In float32, of a moment that `moment_tensors` gave."""
    held = moment_from(key, tensors, torch.empty(0))
    assert held is not None, key
    return held.dequantize() if hasattr(held, "codes") else held


def in_eight_bits(key: str, values: Tensor) -> Tensor:
    """A moment of these float32 values, in 8 bits if torchao would hold one of its size so."""
    if values.numel() < SMALLEST or values.numel() % BLOCK:
        return values
    moment = _zeros(key, values, BLOCK)
    moment.copy_(values)
    return moment


def _zeros(key: str, like: Tensor, block: int) -> Any:
    from torchao.optim.subclass_8bit import OptimState8bit

    signed = key.startswith("exp_avg/")  # the other has no sign
    return OptimState8bit.zeros(like.shape, signed, block, like.device, dtype=torch.float32)
