"""The minimal loop's own operations: attention of padded rows, and the head fused with its loss.

Everything that `benchmarks.minimal_update` does not leave to transformers.

Shapes: B rows, L width, N sampled tokens, H hidden, V vocabulary, Q heads, K key heads, D head
size.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

ATTENTION = "minimal"
"""Its name among transformers' attention functions."""
CLIP = (0.8, 1.28)
"""Of the ratio to the sampler's probability."""
HEAD_CHUNK = 1024
"""Most sampled tokens whose logits exist at once."""
SHORT = 512
"""Rows up to here attend by two plain products; torch's flash backward is slower on a CPU."""


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, **options: Any
) -> tuple[Tensor, None]:
    """Causal attention of right-padded rows, [B, heads, L, D] to [B, L, Q, D], without a mask.

    The queries of the heads that share a key head stand under each other, so that keys are not
    repeated.
    """
    (batch, heads, width, size), num_keys = query.shape, key.shape[1]
    scale = options["scaling"]
    if width > SHORT:
        out = scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=heads != num_keys
        )
        return out.transpose(1, 2), None
    rows, share = batch * num_keys, heads // num_keys
    keys, values = key.reshape(rows, width, size), value.reshape(rows, width, size)
    scores = query.reshape(rows, share * width, size) @ keys.transpose(1, 2)
    places = torch.arange(width, device=query.device)
    seen = places[:, None] >= places[None, :]
    scores = scores.view(rows, share, width, width).float() * scale
    weights = torch.softmax(scores.masked_fill(~seen, float("-inf")), dim=-1).to(value.dtype)
    out = weights.view(rows, share * width, width) @ values
    return out.view(batch, heads, width, size).transpose(1, 2), None


AttentionInterface.register(ATTENTION, attention)


def clipped_loss(logprobs: Tensor, sampler_logprobs: Tensor, advantages: Tensor) -> Tensor:
    """-min(rho A, clip(rho) A) of each token, rho = pi / pi of the sampler; all [N]."""
    ratio = torch.exp(logprobs - sampler_logprobs)
    return -torch.minimum(ratio * advantages, ratio.clamp(*CLIP) * advantages)


def target_logprobs(logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Logprobs of targets and the normaliser, [N, 1] each, float32, from logits [N, V]."""
    scaled = logits.float() / temperature
    normaliser = torch.logsumexp(scaled, dim=-1, keepdim=True)
    return scaled.gather(1, targets[:, None]) - normaliser, normaliser


def softmax_times(logits: Tensor, normaliser: Tensor, factor: Tensor, temperature: float) -> Tensor:
    """softmax(logits / temperature) times a factor [N, 1], in the logits' dtype."""
    return (torch.exp(logits.float() / temperature - normaliser) * factor).to(logits.dtype)


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """What is not a matrix product in the head; the compiler fuses each into one pass."""

    logprobs: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]] = target_logprobs
    softmax: Callable[[Tensor, Tensor, Tensor, float], Tensor] = softmax_times


class HeadLoss(torch.autograd.Function):
    """Sum of a loss of log softmax(hidden @ head.T / temperature)[targets], logits in chunks.

    Each token's loss depends on its own logprob only, so the gradient is made beside the loss
    and no logits are computed twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        temperature: float,
        loss: Callable[[Tensor, slice], Tensor],
        kernels: Kernels,
    ) -> Tensor:
        """`loss(logprobs, part)` gives the loss of the tokens in `part`, a scalar."""
        size = -(-len(targets) // -(-len(targets) // HEAD_CHUNK))
        total, grad_hidden, grad_head = hidden.new_zeros((), dtype=torch.float32), [], None
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            here, picked = hidden[part], targets[part]
            logits = here @ head.t()
            logprobs, normaliser = kernels.logprobs(logits, picked, temperature)
            with torch.enable_grad():
                value = loss(logprobs.requires_grad_().squeeze(1), part)
                (slope,) = torch.autograd.grad(value, logprobs)
            slope = slope / temperature
            # d logprob / d logits = (one hot of the target - softmax) / temperature
            grad = kernels.softmax(logits, normaliser, -slope, temperature)
            exact = (slope * (1 - logprobs.exp())).squeeze(1).to(grad.dtype)
            grad[torch.arange(len(picked)), picked] = exact
            grad_hidden.append(grad @ head)
            more = grad.t() @ here
            grad_head = more if grad_head is None else grad_head.float().add_(more)
            total += value.detach()
        ctx.grads = torch.cat(grad_hidden), grad_head.to(head.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Any, ...]:
        """The gradients are there already; the sum of a loss is not scaled."""
        return *ctx.grads, None, None, None, None


@contextmanager
def compiler_on() -> Iterator[None]:
    """The compiler works inside, even where the engine had it switched off."""
    import torch._dynamo
    import torch._inductor.config

    torch._inductor.config.compile_threads = 1  # no pool of compiling processes beside this one
    with torch._dynamo.config.patch(disable=False):
        yield
