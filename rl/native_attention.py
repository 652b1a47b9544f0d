"""Packed attention of short sequences by the kernel in rl/cpp/attention.cpp: bfloat16 on AMX.

Scores and sums are float32, as in `rl.dense_attention`, which it stands in for; nothing is kept
for backward but each query's normaliser.

Shapes: U places, Q heads, H key heads, D head size, R runs, F families.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rl.dense_attention import Run
from rl.native import kernels, usable
from rl.rows import RowLayout

MULTIPLE = 32
"""Of the head size."""


class ShortPart(NamedTuple):
    """Runs of queries by family.

    Attributes:
        runs: [R, 3] int64: start, stop, and how many of the family's first keys are seen too.
        families: [F, 3] int64: first run, end of its runs, where its prompt starts.
    """

    runs: Tensor
    families: Tensor


def takes(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the kernel computes such heads."""
    sizes = {x.shape[-1] for x in (query, key, value)}
    return len(sizes) == 1 and sizes.pop() % MULTIPLE == 0 and usable(query, key, value)


def short_part(layout: RowLayout, runs: Sequence[Run]) -> ShortPart:
    """What the kernel is told of these runs."""
    owners = layout.family.tolist()
    by_family: dict[int, list[Run]] = {}
    for run in runs:
        by_family.setdefault(owners[run.queries.start], []).append(run)
    rows: list[tuple[int, int, int]] = []
    families: list[tuple[int, int, int]] = []
    for index, members in by_family.items():
        start, stop, _ = layout.families[index].prompt
        families.append((len(rows), len(rows) + len(members), start))
        for run in members:
            seen = 0 if run.family is None else stop - start
            rows.append((run.queries.start, run.queries.stop, seen))
    return ShortPart(torch.tensor(rows), torch.tensor(families))


def native_forward(
    out: Tensor, query: Tensor, key: Tensor, value: Tensor, part: ShortPart, scaling: float
) -> Tensor:
    """Write the runs' attention into `out`, [U, Q, D]; gives the queries' normalisers, for backward."""
    normalisers = torch.empty(query.shape[:2], dtype=torch.float32)
    kernels().attention(query, key, value, *part, scaling, out, normalisers)
    return normalisers


def native_backward(
    grads: Sequence[Tensor],
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    normalisers: Tensor,
    part: ShortPart,
    scaling: float,
) -> None:
    """Write the runs' gradients into `grads` of query, and add to those of key and value, float32."""
    into = grads[0] if grads[0].dtype == query.dtype else torch.zeros_like(query)
    heads = (query, key, value)
    kernels().attention_backward(
        grad.contiguous(), *heads, *part, scaling, normalisers, into, *grads[1:]
    )
    if into is not grads[0]:
        grads[0].add_(into)
