"""What an update cannot do without, each timed alone: its matrix products and its attention.

The products are those of every linear layer on the tokens, shared prompts once and no filling, and
of the head on the sampled tokens. The attention is the stack's own, causal, over whole sequences.

Shapes: S sequences, Q heads, D head size.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from rl.packing import Batch, micro_batches
from rl.rows import make_row


def product_seconds(policy: Any, batch: Batch) -> float:
    """The model's own matrix products at the token counts of this batch's micro-batches.

    Forward and both backward products.
    """
    layers = [m.weight for m in policy.model.get_decoder().modules() if hasattr(m, "weight")]
    layers = [w for w in layers if w.ndim == 2 and w.shape[0] != policy.head.shape[0]]
    total = 0.0
    for part in micro_batches(batch, policy.config.micro_batch_tokens):
        unique = int((make_row(part).layout.family >= 0).sum())
        shapes = [(unique, weight) for weight in layers]
        shapes.append((int(part.sampled.sum()), policy.head))
        total += sum(_three_products(tokens, weight) for tokens, weight in shapes)
    return total


@torch.no_grad()
def _three_products(tokens: int, weight: torch.Tensor) -> float:
    x = torch.randn(tokens, weight.shape[1], dtype=weight.dtype)
    grad = torch.randn(tokens, weight.shape[0], dtype=weight.dtype)
    return _seconds(lambda: (x @ weight.t(), grad @ weight, grad.t() @ x))


def attention_seconds(config: Any, lengths: Sequence[int], dtype: torch.dtype) -> float:
    """Causal attention of sequences of these lengths in every layer, forward and backward.

    torch's flash kernel, sequences of one length in one batch, keys and values given to every
    head beforehand. Timed in one layer and multiplied.

    Args:
        config: Of a transformers model: heads, head size and number of layers.
    """
    total = 0.0
    for length in sorted(set(lengths)):
        shape = (lengths.count(length), config.num_attention_heads, length, _head_size(config))
        tensors = [torch.randn(shape, dtype=dtype).requires_grad_() for _ in range(3)]

        def once(tensors: list[torch.Tensor] = tensors) -> None:
            out = scaled_dot_product_attention(*tensors, is_causal=True)
            torch.autograd.grad(out, tensors, out.detach())

        once()
        total += min(_seconds(once), _seconds(once)) * config.num_hidden_layers
    return total


def _head_size(config: Any) -> int:
    size = getattr(config, "head_dim", None)
    return size or config.hidden_size // config.num_attention_heads


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
