"""An update's micro-batches dealt to processes; the sum over all of them stays the same.

Parts are cut so that their number is a multiple of that of the processes, where sequences allow.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from rl.packing import Batch, micro_batches
from rl.ranks import Ranks

GROWTH = 1.05


def parts_of(batch: Batch, max_tokens: int, count: int) -> list[Batch]:
    """Micro-batches for `count` processes: of one they are `micro_batches`, of more nearly equal.

    Example: 10 sequences of 100 tokens, limit 400: 3 parts for one process, for two 4 parts of at
    most 300.
    """
    parts = list(micro_batches(batch, max_tokens))
    if len(parts) % count == 0:
        return parts
    wanted = -(-len(parts) // count) * count
    limit = float(max(1, len(batch) // max(1, wanted)))
    while limit < max_tokens:
        even = list(micro_batches(batch, int(limit)))
        if len(even) <= wanted:
            return even
        limit *= GROWTH
    return parts


def dealt(parts: list[Batch], ranks: Ranks, *, equal: bool) -> list[Batch]:
    """This process's parts. With `equal` all have as many; what is added weighs nothing."""
    mine = parts[ranks.index :: ranks.count]
    if equal and len(mine) * ranks.count < len(parts):
        filling = parts[-1]
        mine.append(replace(filling, token_weights=torch.zeros_like(filling.token_weights)))
    return mine


def computed(
    parts: list[Batch], ranks: Ranks, compute: Callable[[Batch], Tensor], *, equal: bool
) -> Tensor:
    """`compute` of every part, each by one process, one after another as in the batch."""
    mine = [compute(part) for part in dealt(parts, ranks, equal=equal)]
    placed = enumerate(mine[: len(range(ranks.index, len(parts), ranks.count))])
    rows = ranks.gather([(ranks.index + place * ranks.count, row) for place, row in placed])
    return torch.cat([row for _, row in sorted(rows, key=lambda row: row[0])])
