"""Parameters, gradients and moments sharded over processes, by PyTorch's FSDP2 (`fully_shard`).

The float32 shards are the masters. A layer is gathered in the compute dtype when it computes and
let go after; gradients are summed over processes in float32. So the bytes that compute are the
cast of the masters, as in one process. What is sharded, and how, is the tensor's own knowledge:
the functions below turn a shard into the whole and back.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import AutoModelForCausalLM

from rl.forward import plain_attention
from rl.ranks import Ranks
from rl.sharing import few_layers


class Root(nn.Module):
    """What FSDP gathers around: a call is the forward pass of body and head.

    Embeddings, the last norm and the head belong to no layer: they are there inside the call.
    """

    def __init__(self, model: nn.Module, compute: Callable[..., Any]):
        """`compute` is what a call does, with the model's parameters whole."""
        super().__init__()
        self.model, self._compute = model, compute

    def forward(self, *inputs: Any) -> Any:
        """What `compute` gives."""
        return self._compute(*inputs)


def shard(
    model: nn.Module,
    compute: Callable[..., Any],
    ranks: Ranks,
    dtype: torch.dtype,
    *,
    offload: bool,
) -> Root:
    """Shard a float32 model over all processes, layer by layer; compute by the module returned."""
    root = Root(model, compute)
    settings: dict[str, Any] = {
        "mesh": init_device_mesh(ranks.device.type, (ranks.count,)),
        "mp_policy": MixedPrecisionPolicy(
            param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
        ),
        "offload_policy": CPUOffloadPolicy() if offload else OffloadPolicy(),
    }
    for layer in model.get_decoder().layers:
        fully_shard(layer, **settings)
    fully_shard(root, reshard_after_forward=True, **settings)
    for module in root.modules():
        if isinstance(module, FSDPModule):  # the denominator is in the batch: a sum, no mean
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    return root


@torch.no_grad()
def float32_shards(model: nn.Module, dtype: torch.dtype, ranks: Ranks) -> nn.Module:
    """The bytes that a sharded model computes with, in float32, by transformers alone, sharded alike.

    All processes compute with it together, the same input each. Nothing is gathered to make it.
    """
    exact = _filled_later(skeleton(model, torch.float32), torch.device("cpu"))
    mesh = init_device_mesh(ranks.device.type, (ranks.count,))
    for layer in exact.get_decoder().layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(exact, mesh=mesh, reshard_after_forward=True)
    held = _held(model)
    for name, tensor in _held(exact).items():
        local(tensor).copy_(_computing(local(held[name]), held[name], dtype))
    return exact.to(ranks.device)


@torch.no_grad()
def few_whole_layers(
    model: nn.Module, dtype: torch.dtype, device: torch.device
) -> tuple[nn.Module, dict[str, str]]:
    """As `rl.sharing.few_layers` of a float32 copy of a sharded model; only those are gathered."""
    few, names = few_layers(skeleton(model, torch.float32))
    few, held = _filled_later(few, device), _held(model)
    for name, tensor in _held(few).items():
        part = re.fullmatch(r"(.*?)(layers\.\d+)(\..*)", name)
        source = held[part[1] + names[part[2]] + part[3] if part else name]
        mine = _computing(local(source), source, dtype)
        tensor.copy_(gathered(mine, source))
    return few, names


def skeleton(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A model of the same configuration, without memory."""
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(copy.deepcopy(model.config), dtype=dtype)
    made.generation_config = model.generation_config
    return made


def whole_state(state: Mapping[str, Tensor], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Name and value of each tensor as it computes, gathered when its turn comes; all ask for it."""
    for name, tensor in state.items():
        yield name, gathered(_computing(local(tensor), tensor, dtype), tensor)


def _filled_later(model: nn.Module, device: torch.device) -> nn.Module:
    """A model without memory with some, whose values are nothing; what was tied is tied."""
    model = model.to_empty(device=device)
    model.tie_weights()
    model.set_attn_implementation(plain_attention(model))
    return model.eval()


def _held(model: nn.Module) -> dict[str, Tensor]:
    """All that a model computes with, buffers that no checkpoint holds too."""
    return {**dict(model.named_buffers()), **model.state_dict()}


def _computing(part: Tensor, whole: Tensor, dtype: torch.dtype) -> Tensor:
    """A parameter's part as it computes; buffers compute as they are."""
    return part.to(dtype) if is_sharded(whole) else part


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only a part."""
    return isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """This process's part, in the same memory; the tensor itself where it is not sharded."""
    return tensor.detach().to_local() if isinstance(tensor, DTensor) else tensor.detach()


def cut_as(part: Tensor, param: Tensor) -> Tensor:
    """The tensor of which `part` is this process's, cut as `param` is; `part` where it is not."""
    if not isinstance(param, DTensor):
        return part
    return DTensor.from_local(
        part, param.device_mesh, param.placements, shape=param.shape, stride=param.stride()
    )


def gathered(part: Tensor, param: Tensor) -> Tensor:
    """The whole of which `part` is this process's, cut as `param` is. All processes call it."""
    cut = cut_as(part, param)
    return cut.full_tensor() if isinstance(cut, DTensor) else cut


def part_of(whole: Tensor, param: Tensor) -> Tensor:
    """This process's part of a whole tensor, cut as `param` is; nobody is asked."""
    if not isinstance(param, DTensor):
        return whole
    mesh, placements = param.device_mesh, param.placements
    return distribute_tensor(whole, mesh, placements, src_data_rank=None).to_local()


def assign(param: Tensor, tensor: Tensor) -> None:
    """Let a parameter be `tensor`; a sharded one takes its values, FSDP knows its memory."""
    if isinstance(param, DTensor):
        local(param).copy_(tensor)
    else:
        param.data = tensor
