"""Parameters, gradients and moments sharded over processes, by PyTorch's FSDP2 (`fully_shard`).

The float32 shards are the masters. A layer is gathered in the compute dtype when it computes and
let go after; gradients are summed over processes in float32. So the bytes that compute are the
cast of the masters, as in one process. What is sharded, and how, is the tensor's own knowledge:
the functions below turn a shard into the whole and back.
"""

from collections.abc import Callable
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

from rl.ranks import Ranks


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
