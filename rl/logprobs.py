"""Logprobs and entropy of sampled tokens, straight from hidden states, in chunks.

The logits of a whole sequence never exist: memory is chunk times vocabulary. The one shift of
the code base lives here: the hidden state at t - 1 speaks of the token at t.

Shapes: T tokens, N sampled tokens, H hidden size, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

CHUNK = 512
ROW_MULTIPLE = 32
"""Of the hidden states that meet the head, as `rl.policy.ROW_MULTIPLE` of the row."""


def sampled_logprobs(
    hidden: Tensor,
    head: Tensor,
    token_ids: Tensor,
    sampled: Tensor,
    *,
    temperature: float,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """Logprob and entropy of the tokens where `sampled`, zeros elsewhere, both [T] float32.

    Args:
        hidden: [T, H], the model's last hidden states of a packed row.
        head: [V, H], the output embedding.
        token_ids: [T]; sampled: [T] bool, never true at a sequence's first token.
        temperature: Of the distribution the tokens were drawn from.

    The entropy carries no gradient.
    """
    places = sampled.nonzero().squeeze(-1)
    gap = -len(places) % ROW_MULTIPLE
    picked = pad(hidden.index_select(0, places - 1), (0, 0, 0, gap))
    targets = pad(token_ids[places], (0, gap))
    rows = _HeadLogprobs.apply(picked, head, targets, temperature, chunk)
    logprobs, entropy = (row[: len(places)] for row in rows)
    empty = logprobs.new_zeros(len(token_ids))
    return empty.index_copy(0, places, logprobs), empty.index_copy(0, places, entropy)


class _HeadLogprobs(torch.autograd.Function):
    """log softmax(hidden @ head.T / temperature)[targets]; logits are computed again in backward."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, chunk: int
    ) -> tuple[Tensor, Tensor]:
        logprobs = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        entropy, normaliser = torch.empty_like(logprobs), torch.empty_like(logprobs)
        for start in range(0, len(targets), chunk):
            part = slice(start, start + chunk)
            logits = _logits(hidden[part], head, temperature)
            normaliser[part] = torch.logsumexp(logits, dim=-1)
            logprobs[part] = logits.gather(1, targets[part, None]).squeeze(1) - normaliser[part]
            logits.sub_(normaliser[part, None])  # all logprobs: a sure token's entropy is not lost
            entropy[part] = -logits.exp().mul_(logits).sum(-1)
        ctx.save_for_backward(hidden, head, targets, normaliser)
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, grad_logprobs: Tensor, _grad_entropy: Tensor) -> tuple[Any, ...]:
        """d logprob / d logits = (one hot of the target - softmax) / temperature."""
        hidden, head, targets, normaliser = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_head = None
        for start in range(0, len(targets), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            scale = grad_logprobs[part, None] / ctx.temperature
            logits = _logits(hidden[part], head, ctx.temperature)
            grad = logits.sub_(normaliser[part, None]).exp_().mul_(-scale)
            grad.scatter_add_(1, targets[part, None], scale)
            grad = grad.to(hidden.dtype)
            grad_hidden[part] = grad @ head
            grad_head = _add(grad_head, grad.t() @ hidden[part])
        if grad_head is None:  # no token was sampled in this row
            grad_head = torch.zeros_like(head)
        return grad_hidden, grad_head.to(head.dtype), None, None, None


def _add(total: Tensor | None, part: Tensor) -> Tensor:
    """A sum over chunks, in float32 from the second chunk on: one chunk needs no second buffer."""
    if total is None:
        return part
    return total.float().add_(part) if total.dtype != torch.float32 else total.add_(part)


def _logits(hidden: Tensor, head: Tensor, temperature: float) -> Tensor:
    logits = (hidden @ head.t()).float()
    return logits if temperature == 1.0 else logits.div_(temperature)
