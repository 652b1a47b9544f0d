"""Element-wise work of each layer fused by torch.compile: norms, rotary embeddings, activations.

On two CPU cores that work costs as much as the matrix products of a small model, and a third of
it once fused. Needs a C++ compiler on the CPU and Triton on CUDA; without, or for a model
that cannot be compiled, layers run as they are. All layers of a kind share one compilation.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch
import torch._dynamo
from torch import nn

from rollouts.process import cpu_compiler

logger = logging.getLogger(__name__)


def compiler() -> str | None:
    """What would compile for this machine's device: a program's name, "triton", or None."""
    if torch.cuda.is_available():
        return "triton" if find_spec("triton") else None
    return cpu_compiler(os.environ)


def compile_layers(model: nn.Module) -> None:
    """Compile the model's layers at their first use, for rows of any length.

    Not those with routed experts: how many tokens each expert gets is known only when it computes.
    """
    layers = getattr(model.get_decoder(), "layers", None)
    if compiler() is None or not isinstance(layers, nn.ModuleList):
        return
    torch._inductor.config.compile_threads = 1  # no pool of processes beside the engine
    for layer in layers:
        if not any(param.ndim == 3 for param in layer.parameters()):  # stacked experts
            layer.compile(dynamic=True)


@contextmanager
def compiled_layers(model: nn.Module) -> Iterator[None]:
    """Compiled layers work inside, though the engine may have switched dynamo off for itself."""
    with torch._dynamo.config.patch(disable=False):
        yield


def uncompile_layers(model: nn.Module) -> None:
    """Let the layers run as they are."""
    for module in model.modules():
        module._compiled_call_impl = None
