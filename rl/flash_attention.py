"""Packed attention by the stack's flash kernel for the CPU: for long sequences.

A completion's attention to itself and to its prompt are two calls, joined by their normalisers.
Backward, each call is given output and normaliser of the whole, and the calls' gradients add up to
the whole's (FlashAttention-2, Dao 2023, section 3.1: no more is needed of the other keys).

Shapes: U places, R sequences, W queries of each, K keys, Q heads, H key heads, D head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from rl.dense_attention import Run, Settings
from rl.rows import RowLayout, Span

_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True, kw_only=True)
class FlashPart:
    """One call of the kernel: a sequence with itself, or completions of a family with its prompt.

    Attributes:
        queries, keys: Places that follow one another.
        causal: The keys are the queries.
    """

    queries: Span
    keys: Span
    causal: bool


def flash_parts(layout: RowLayout, runs: Sequence[Run]) -> list[FlashPart]:
    """The calls that compute these runs; for each query the causal one first."""
    own = [FlashPart(queries=run.queries, keys=run.keys, causal=True) for run in runs]
    shared = []
    for index, family in enumerate(layout.families):
        spans = [run.queries for run in runs if run.family == index]
        if spans:  # the longest come first in their family, so that they follow one another
            after = Span(spans[0].start, spans[-1].stop, spans[0].position)
            shared.append(FlashPart(queries=after, keys=family.prompt, causal=False))
    return own + shared


def flash_forward(
    out: Tensor,
    normaliser: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    part: FlashPart,
    settings: Settings,
) -> None:
    """Write a part's attention into `out`, [U, Q, D], and its log normaliser, float32 [U, Q]."""
    rows = slice(part.queries.start, part.queries.stop)
    heads, fold = _heads(query, key, value, part)
    found, weight = _FORWARD(*heads, 0.0, part.causal, scale=settings.scaling)
    found = _rows(found, fold)[..., : value.shape[-1]]
    weight = _rows(weight[..., None], fold)[..., 0]
    if part.causal:
        out[rows], normaliser[rows] = found, weight
        return
    total = torch.logaddexp(weight, normaliser[rows])
    found = found.float().mul_((weight - total).exp_()[..., None])
    out[rows] = found.addcmul_(out[rows], (normaliser[rows] - total).exp_()[..., None])
    normaliser[rows] = total


def flash_backward(
    grads: Sequence[Tensor],
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    normaliser: Tensor,
    part: FlashPart,
    settings: Settings,
) -> None:
    """Add a part's gradients to `grads` of query, key and value, float32 [U, heads, D]."""
    rows, seen = (slice(span.start, span.stop) for span in (part.queries, part.keys))
    heads, fold = _heads(query, key, value, part)
    outer, whole = (_wide(_grid(x[rows], fold), heads[0].shape[-1]) for x in (grad, out))
    weight = _grid(normaliser[rows][..., None], fold)[..., 0].contiguous()
    found = _BACKWARD(outer, *heads, whole, weight, 0.0, part.causal, scale=settings.scaling)
    grads[0][rows] += _rows(found[0], fold)
    for total, grid in zip(grads[1:], found[1:], strict=True):
        each = _rows(grid, 1).unflatten(1, (key.shape[1], -1)).sum(2, dtype=torch.float32)
        total[seen] += each[..., : total.shape[-1]]


def _heads(
    query: Tensor, key: Tensor, value: Tensor, part: FlashPart
) -> tuple[tuple[Tensor, Tensor, Tensor], int]:
    """What the kernel takes, [1, heads, W, D] thrice with equal heads and head sizes.

    Without causality the query heads of a key head are queries like any other, so that keys need
    not be repeated: W is then so many times as wide, the second thing given.
    """
    groups = query.shape[1] // key.shape[1]
    fold = 1 if part.causal else groups
    seen = slice(part.keys.start, part.keys.stop)
    keys, values = (_grid(x[seen], 1) for x in (key, value))
    if fold < groups:
        keys, values = (x.repeat_interleave(groups, dim=1) for x in (keys, values))
    queries = _grid(query[part.queries.start : part.queries.stop], fold)
    return (queries, keys, _wide(values, query.shape[-1])), fold


def _wide(x: Tensor, size: int) -> Tensor:
    """Head size filled up with zeros: multi-head latent attention has smaller values than keys."""
    return x if x.shape[-1] == size else pad(x, (0, size - x.shape[-1]))


def _grid(x: Tensor, fold: int) -> Tensor:
    """[W, heads, D] to [1, heads / fold, W * fold, D]."""
    return x.unflatten(1, (-1, fold)).transpose(0, 1).flatten(1, 2)[None]


def _rows(grid: Tensor, fold: int) -> Tensor:
    """The inverse of `_grid`."""
    return grid[0].unflatten(1, (-1, fold)).transpose(0, 1).flatten(1, 2)
