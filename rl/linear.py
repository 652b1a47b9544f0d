"""Linear layers whose weight gradient is a kernel of ours (rl/cpp/weight_gradient.cpp).

What they compute, and what they are called, stays.
"""

from typing import Any

import torch
from torch import Tensor, nn

from rl.native import kernels, usable

MULTIPLE = 64
"""Of both sizes of a weight that the kernel takes."""


class NativeLinear(nn.Linear):
    """A linear layer in bfloat16 on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] to [..., N]."""
        out = _Linear.apply(x, self.weight)
        return out if self.bias is None else out + self.bias


def use_native_linear(model: nn.Module) -> None:
    """Turn the decoder's trained linear layers into `NativeLinear` where the kernel takes them."""
    for module in model.get_decoder().modules():
        if type(module) is nn.Linear and module.weight.requires_grad:
            fits = not any(size % MULTIPLE for size in module.weight.shape)
            if fits and usable(module.weight):
                module.__class__ = NativeLinear


def use_plain_linear(model: nn.Module) -> None:
    """Take `use_native_linear` back, for a copy in another dtype."""
    for module in model.modules():
        if isinstance(module, NativeLinear):
            module.__class__ = nn.Linear


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """grad [U, N] transposed times x [U, K], in x's dtype."""
    if usable(grad, x) and not (grad.shape[1] % MULTIPLE or x.shape[1] % MULTIPLE):
        return kernels().weight_gradient(grad, x)
    return grad.t() @ x


class _Linear(torch.autograd.Function):
    """x [..., K] times the transposed weight [N, K]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return nn.functional.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        flat = grad.flatten(0, -2)
        grad_weight = torch.ops.groupwise.weight_gradient(flat, x.flatten(0, -2))
        return (flat @ weight).view(x.shape), grad_weight
