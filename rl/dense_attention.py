"""Packed attention with all scores of some sequences at once, in float32: for short sequences,
sliding windows and soft-caps. Forward and backward by hand.

Work is cut so that a step's scores stay in the processor's cache, where the passes over them cost
little. The stack's flash kernel is several times slower on short sequences, above all backward.

Shapes: U places, R sequences, W queries of each, K keys, Q heads, H key heads, g = Q / H, D head
size, F families, P prompt tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from rl.rows import RowLayout, Span

BLOCK = 256
"""Longest run of queries computed at once."""
WIDTH_MULTIPLE = 16
"""Of the queries and keys of a part: few shapes of it occur."""
SLACK = 1.2
"""Sequences share a part when the longest is at most so many times as long as each."""
CACHED_SCORES = 2**20
"""Most scores, over all heads, that a step computes at once: four megabytes."""
KEPT_KEYS = 512
"""Of a part with at most so many keys the probabilities are kept for backward: less than the
layer's other activations."""
HIDDEN = -1e30
"""Added to scores that a query does not see."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a layer's attention is told: scores times `scaling`, then the soft-cap, then the window."""

    scaling: float
    window: int | None = None
    softcap: float | None = None


class Run(NamedTuple):
    """Queries with their own sequence's keys, and the family whose prompt they see too, or None.

    `block` counts the runs into which a sequence was cut: those of one sequence, whose keys
    overlap, are never in one part.
    """

    queries: Span
    keys: Span
    family: int | None
    block: int = 0


@dataclass(frozen=True, kw_only=True)
class DensePart:
    """Runs of queries of nearly equal length, each with the keys of its own sequence and prompt.

    What is not filled stands at the row's last place, which nobody attends to and where no gradient
    arrives.

    Attributes:
        queries, keys: [R, W] and [R, K] places.
        seen: [R, K + P] places, the prompt's behind the own.
        members: [F, R] float32, 1 where the row's prompt is that of the family; None where no
            prompt is seen (then P is 0).
        prompts: [F, P] places.
        mask: [R, W, 1, K + P], 0 or `HIDDEN`.
    """

    queries: Tensor
    keys: Tensor
    seen: Tensor
    members: Tensor | None
    prompts: Tensor
    mask: Tensor

    def steps(self, num_heads: int) -> Iterator["DensePart"]:
        """Parts of fewer rows whose scores stay in the cache."""
        count = max(1, CACHED_SCORES // (num_heads * self.mask[0].numel()))
        for start in range(0, len(self.queries), count):
            rows = slice(start, start + count)
            yield DensePart(
                queries=self.queries[rows],
                keys=self.keys[rows],
                seen=self.seen[rows],
                members=None if self.members is None else self.members[:, rows],
                prompts=self.prompts,
                mask=self.mask[rows],
            )


def dense_parts(
    layout: RowLayout, runs: Sequence[Run], window: int | None, num_heads: int
) -> list[DensePart]:
    """The parts that compute these runs, ready for a layer with so many heads."""
    nowhere = len(layout.positions) - 1
    families = sorted({run.family for run in runs if run.family is not None})
    prompts = _places([layout.families[index].prompt for index in families], nowhere)
    parts = []
    for alike in _alike(_blocks(runs, window)):
        rows = None
        if alike[0].family is not None:
            rows = torch.tensor([families.index(run.family) for run in alike])
        queries = _places([run.queries for run in alike], nowhere)
        keys = _places([run.keys for run in alike], nowhere)
        seen = keys if rows is None else torch.cat([keys, prompts[rows]], 1)
        part = DensePart(
            queries=queries,
            keys=keys,
            seen=seen,
            members=None if rows is None else one_hot(rows, len(prompts)).t().float(),
            prompts=prompts if rows is not None else prompts[:, :0],
            mask=_mask(layout.positions, queries, seen, window),
        )
        parts += part.steps(num_heads)
    return parts


def dense_forward(
    out: Tensor, query: Tensor, key: Tensor, value: Tensor, part: DensePart, settings: Settings
) -> Tensor | None:
    """Write a part's attention into `out`, [U, Q, D]; gives what backward may be spared computing."""
    queries, keys, values = _inputs(query, key, value, part)
    probabilities, _ = _probabilities(queries, keys, part, settings)
    probabilities = probabilities.to(values.dtype)
    found = torch.bmm(probabilities, values)
    rows = _from_heads(found, part.queries.shape, key.shape[1])
    out.flatten(1).index_copy_(0, part.queries.flatten(), rows)
    kept = settings.softcap is None and part.mask.shape[-1] <= KEPT_KEYS
    return probabilities if kept else None


def dense_backward(
    grads: Sequence[Tensor],
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kept: Tensor | None,
    part: DensePart,
    settings: Settings,
) -> None:
    """Add a part's gradients to `grads` of query, [U, Q, D], key and value, float32 [U, H, D].

    `kept` is what `dense_forward` gave.
    """
    queries, keys, values = _inputs(query, key, value, part)
    outer = _to_heads(grad, part.queries, key.shape[1])
    probabilities, slope = kept, None
    if kept is None:
        probabilities, slope = _probabilities(queries, keys, part, settings)
        probabilities = probabilities.to(outer.dtype)
    grad_values = torch.bmm(probabilities.transpose(1, 2), outer)
    rising = torch.bmm(outer, values.transpose(1, 2))
    rising = torch._softmax_backward_data(rising, probabilities, -1, rising.dtype)
    if slope is not None:
        rising.mul_(slope)
    grad_queries = torch.bmm(rising, keys).mul_(settings.scaling)
    rows = _from_heads(grad_queries, part.queries.shape, key.shape[1]).to(grads[0].dtype)
    grads[0].flatten(1).index_copy_(0, part.queries.flatten(), rows)
    _add_keys(grads[1], torch.bmm(rising.transpose(1, 2), queries).mul_(settings.scaling), part)
    _add_keys(grads[2], grad_values, part)


def _inputs(
    query: Tensor, key: Tensor, value: Tensor, part: DensePart
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [H * R, W * g, D], keys and values [H * R, K + P, D]."""
    num_heads = key.shape[1]
    queries = _to_heads(query, part.queries, num_heads)
    return queries, _to_heads(key, part.seen, num_heads), _to_heads(value, part.seen, num_heads)


def _probabilities(
    queries: Tensor, keys: Tensor, part: DensePart, settings: Settings
) -> tuple[Tensor, Tensor | None]:
    """[H * R, W * g, K + P] float32, and the soft-cap's slope.

    Scores are float32 throughout: in bfloat16 those of a confident head are off by percents.
    """
    scaled = queries.float() * settings.scaling
    scores, slope = torch.bmm(scaled, keys.float().transpose(1, 2)), None
    if settings.softcap is not None:
        bent = scores.div_(settings.softcap).tanh_()
        scores, slope = bent * settings.softcap, 1.0 - bent * bent
    rows, width, _, seen = part.mask.shape
    scores.view(-1, rows, width, queries.shape[1] // width, seen).add_(part.mask)
    return torch.softmax(scores, -1), slope


def _add_keys(total: Tensor, grad: Tensor, part: DensePart) -> None:
    """Add gradients [H * R, K + P, D] of keys or values, the prompts' summed over their runs."""
    rows, own = part.keys.shape
    flat = total.flatten(1)
    grad = grad.view(total.shape[1], rows, -1, total.shape[2]).permute(1, 2, 0, 3).flatten(2)
    places = part.keys.flatten()
    found = grad[:, :own].reshape(len(places), -1)
    flat.index_copy_(0, places, flat.index_select(0, places).add_(found))
    if part.members is None:
        return
    found = part.members @ grad[:, own:].reshape(rows, -1).float()
    places = part.prompts.flatten()
    found = found.view(len(places), -1)
    flat.index_copy_(0, places, flat.index_select(0, places).add_(found))


def _to_heads(x: Tensor, places: Tensor, num_heads: int) -> Tensor:
    """[U, heads, D] at places [R, W] to [num_heads * R, W * heads / num_heads, D]."""
    rows, width = places.shape
    picked = x.flatten(1).index_select(0, places.flatten())
    picked = picked.view(rows, width, num_heads, -1).permute(2, 0, 1, 3).contiguous()
    return picked.view(num_heads * rows, -1, x.shape[-1])


def _from_heads(grid: Tensor, shape: torch.Size, num_heads: int) -> Tensor:
    """The inverse of `_to_heads` but for the places: to [R * W, heads * D]."""
    rows, width = shape
    return grid.view(num_heads, rows, width, -1).permute(1, 2, 0, 3).reshape(rows * width, -1)


def _blocks(runs: Sequence[Run], window: int | None) -> Iterator[Run]:
    """The runs in blocks of at most `BLOCK` queries, without keys that no query of a block sees."""
    for queries, keys, family, _ in runs:
        for block, start in enumerate(range(queries.start, queries.stop, BLOCK)):
            stop = min(start + BLOCK, queries.stop)
            first = keys.start if window is None else max(keys.start, start - window + 1)
            asked = Span(start, stop, queries.position + start - queries.start)
            seen = Span(first, stop, keys.position + first - keys.start)
            yield Run(asked, seen, family, block)


def _alike(runs: Iterator[Run]) -> list[list[Run]]:
    """Runs in lists of about as many queries and keys, with a prompt or without, of one block."""
    lists: list[list[Run]] = []
    most: tuple[int, ...] = ()
    for run in sorted(runs, key=_size, reverse=True):
        size = _size(run)
        near = lists and all(a * SLACK >= b for a, b in zip(size[2:], most[2:], strict=True))
        if not near or size[:2] != most[:2]:
            lists.append([])
            most = size
        lists[-1].append(run)
    return lists


def _size(run: Run) -> tuple[int, ...]:
    counts = (_width(span.stop - span.start) for span in (run.queries, run.keys))
    return (run.family is not None, run.block, *counts)


def _places(spans: Sequence[Span], nowhere: int) -> Tensor:
    width = max((_width(span.stop - span.start) for span in spans), default=0)
    grid = torch.full((len(spans), width), nowhere)
    for row, span in zip(grid, spans, strict=True):
        row[: span.stop - span.start] = torch.arange(span.start, span.stop)
    return grid


def _width(size: int) -> int:
    return -(-size // WIDTH_MULTIPLE) * WIDTH_MULTIPLE


def _mask(positions: Tensor, queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    at = positions.clone()
    at[-1] = positions.max() + 1  # filling follows everything
    distance = at[queries][:, :, None] - at[keys][:, None]
    hidden = distance < 0
    if window is not None:
        hidden |= distance >= window
    return hidden[:, :, None].float().mul_(HIDDEN)
