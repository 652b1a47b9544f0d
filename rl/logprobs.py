"""Logprobs and entropy of sampled tokens, straight from hidden states, in blocks of the vocabulary.

The logits of a whole sequence never exist: memory is tokens times a block. The one shift of the
code base lives here: the hidden state at t - 1 speaks of the token at t.

Shapes: T tokens, U places of a packed row, N sampled tokens, H hidden size, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from rl.linear import weight_gradient
from rl.native import kernels, usable

BLOCK = 4096
"""Of the vocabulary: the head meets all tokens in so many columns at once."""
TILE = 2**19
"""Logits that are float32 at one time: few enough to stay in the processor's cache."""
ROW_MULTIPLE = 32
"""Of the hidden states that meet the head, as `rl.rows.ROW_MULTIPLE` of the row."""


def sampled_logprobs(
    hidden: Tensor,
    places: Tensor,
    head: Tensor,
    token_ids: Tensor,
    sampled: Tensor,
    *,
    temperature: float,
    softcap: float | None = None,
    block: int = BLOCK,
) -> tuple[Tensor, Tensor]:
    """Logprob and entropy of the tokens where `sampled`, zeros elsewhere, both [T] float32.

    Args:
        hidden: [U, H], the model's last hidden states of a row.
        places: [T], where in the row each token is.
        head: [V, H], the output embedding; it may have another dtype than `hidden`, in which the
            product is then made.
        token_ids: [T]; sampled: [T] bool, never true at a sequence's first token.
        temperature: Of the distribution the tokens were drawn from.
        softcap: Logits x become softcap * tanh(x / softcap), before the temperature.

    Both carry gradients; the entropy's costs nothing where no loss uses it.
    """
    drawn = sampled.nonzero().squeeze(-1)
    gap = -len(drawn) % ROW_MULTIPLE
    picked = pad(hidden.index_select(0, places[drawn - 1]), (0, 0, 0, gap)).to(head.dtype)
    targets = pad(token_ids[drawn], (0, gap))
    rows = _HeadLogprobs.apply(picked, head, targets, temperature, softcap, block)
    logprobs, entropy = (row[: len(drawn)] for row in rows)
    empty = logprobs.new_zeros(len(token_ids))
    return empty.index_copy(0, drawn, logprobs), empty.index_copy(0, drawn, entropy)


class _HeadLogprobs(torch.autograd.Function):
    """log softmax(hidden @ head.T / temperature)[targets]; logits are computed again in backward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        targets: Tensor,
        temperature: float,
        softcap: float | None,
        block: int,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.temperature, ctx.softcap, ctx.block = temperature, softcap, block
        shape = (-(-len(head) // block), len(targets))
        normalisers, entropies = torch.empty(2, *shape, device=hidden.device)
        picked = torch.zeros(len(targets), device=hidden.device)
        for index, start in enumerate(range(0, len(head), block)):
            part = slice(start, start + block)
            logits = hidden @ head[part].t()
            if softcap is None and usable(logits):
                found = (picked, normalisers[index], entropies[index])
                kernels().logits_statistics(logits, targets - start, temperature, *found)
                continue
            for rows, tile, _ in _tiles(logits, temperature, softcap):
                _pick(picked[rows], tile, targets[rows] - start)
                logprobs = tile.log_softmax(-1)
                normalisers[index, rows] = tile[:, 0] - logprobs[:, 0]
                entropies[index, rows] = -logprobs.exp().mul_(logprobs).sum(-1)
        normaliser = normalisers.logsumexp(0)
        shares = normalisers.sub_(normaliser)  # of each block, as a logprob
        entropy = (shares.exp() * (entropies - shares)).sum(0)
        ctx.save_for_backward(hidden, head, targets, normaliser, entropy)
        return picked - normaliser, entropy

    @staticmethod
    def backward(
        ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None
    ) -> tuple[Any, ...]:
        """By the logits: (one hot of the target - p) / temperature, and -p (log p + H) / temperature."""
        hidden, head, targets, normaliser, entropy = ctx.saved_tensors
        scale = torch.zeros_like(entropy) if grad_logprobs is None else grad_logprobs
        pull = torch.zeros_like(entropy) if grad_entropy is None else grad_entropy
        found = (ctx.temperature, normaliser, entropy, scale.contiguous(), pull.contiguous())
        scale = scale / ctx.temperature
        grad_hidden = torch.zeros_like(hidden, dtype=torch.float32)
        trained = ctx.needs_input_grad[1]  # not under LoRA
        grad_head = torch.empty_like(head) if trained else None
        for start in range(0, len(head), ctx.block):
            part = slice(start, start + ctx.block)
            logits = hidden @ head[part].t()
            native = ctx.softcap is None and usable(logits)
            if native:
                kernels().logits_gradient(logits, targets - start, *found)
            tiles = () if native else _tiles(logits, ctx.temperature, ctx.softcap)
            for rows, tile, slope in tiles:
                tile.sub_(normaliser[rows, None])
                weight = -scale[rows, None]
                if grad_entropy is not None:
                    pull = grad_entropy[rows, None] / ctx.temperature
                    weight = weight - pull * (tile + entropy[rows, None])
                tile.exp_().mul_(weight)
                _add_at(tile, targets[rows] - start, scale[rows])
                logits[rows] = tile if slope is None else tile.mul_(slope)
            if trained:
                grad_head[part] = weight_gradient(logits, hidden)
            grad_hidden += logits @ head[part]
        return grad_hidden.to(hidden.dtype), grad_head, None, None, None, None


def _tiles(
    logits: Tensor, temperature: float, softcap: float | None
) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    """Rows of a block, their logits in float32 by cap and temperature, and the cap's slope."""
    step = max(1, TILE // logits.shape[1])
    for start in range(0, len(logits), step):
        rows, slope = slice(start, start + step), None
        tile = torch.empty(logits[rows].shape, dtype=torch.float32, device=logits.device)
        tile.copy_(logits[rows])
        if softcap is not None:
            bent = tile.div_(softcap).tanh_()
            tile, slope = bent * softcap, 1.0 - bent * bent
        if temperature != 1.0:
            tile.div_(temperature)
        yield rows, tile, slope


def _pick(picked: Tensor, tile: Tensor, columns: Tensor) -> None:
    """Write the logits of the targets that are in this tile."""
    inside = (columns >= 0) & (columns < tile.shape[1])
    found = tile.gather(1, columns.clamp(0, tile.shape[1] - 1)[:, None])[:, 0]
    torch.where(inside, found, picked, out=picked)


def _add_at(tile: Tensor, columns: Tensor, amounts: Tensor) -> None:
    """Add to each row's target, where it is in this tile."""
    inside = (columns >= 0) & (columns < tile.shape[1])
    columns = columns.clamp(0, tile.shape[1] - 1)[:, None]
    tile.scatter_add_(1, columns, (amounts * inside)[:, None])
