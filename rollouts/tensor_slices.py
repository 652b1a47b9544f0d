"""What one process of a tensor-parallel engine holds of a published tensor.

vLLM cuts rows of layers that split their output (queries, gates, the vocabulary), columns of those
that split their input, and gives key and value heads that are fewer than the processes to several.
The proof compares each process's part with the same part of what was published; a cut that is told
wrongly here fails it. Works on vLLM's modules by their attributes.

Shapes: a weight is [rows, columns]; T processes, of which this is number r.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def own_slices(module: Any, name: str, published: Sequence[Tensor]) -> list[Tensor]:
    """This process's part of each tensor that a module's `name` is made from; all of it for T = 1.

    Args:
        module: One of vLLM's; `tp_size` and `tp_rank` are its T and r.
        name: Of the parameter in it.
        published: Whole tensors; several where the engine holds them as one, or one that is several.

    Example: of two processes the second holds rows 64 to 127 of queries [128, H] and all 64 rows of
    a single key head.
    """
    size, rank = getattr(module, "tp_size", 1), getattr(module, "tp_rank", 0)
    if size == 1:
        return list(published)
    if hasattr(module, "num_embeddings_per_partition"):  # of the padded vocabulary
        start, stop = (n * module.num_embeddings_per_partition for n in (rank, rank + 1))
        return [tensor[start:stop] for tensor in published]
    if not hasattr(module, "output_partition_sizes"):
        return list(published)
    rows = module.output_partition_sizes
    parts = _pieces(module, published) if len(published) < len(rows) else list(published)
    parts = [_cut(part, 0, n, size, rank) for part, n in zip(parts, rows, strict=True)]
    if name == "weight":
        columns = getattr(module, "input_size_per_partition", module.input_size)
        parts = [_cut(part, 1, columns, size, rank) for part in parts]
    return parts


def own_expert(experts: Any, gate: Tensor, up: Tensor, down: Tensor) -> tuple[Tensor, ...]:
    """This process's part of an expert: rows of gate and up [I, H], columns of down [H, I]."""
    parallel = experts.moe_config.moe_parallel_config
    size, rank = parallel.tp_size, parallel.tp_rank
    width = len(gate) // size
    return *(_cut(t, 0, width, size, rank) for t in (gate, up)), _cut(down, 1, width, size, rank)


def _cut(tensor: Tensor, dim: int, length: int, size: int, rank: int) -> Tensor:
    """The part of so many rows or columns; parts fewer than the processes belong to several each.

    The whole, which no process then equals, if the processes together would not hold it.
    """
    parts, rest = divmod(tensor.shape[dim], length)
    if rest or parts > size:
        return tensor
    return tensor.narrow(dim, rank * parts // size * length, length)


def _pieces(module: Any, published: Sequence[Tensor]) -> list[Tensor]:
    """A tensor that the checkpoint holds as one and the engine cuts in pieces: Phi-3's queries."""
    (whole,) = published
    sizes = list(module.output_sizes)
    if hasattr(module, "total_num_kv_heads"):  # output_sizes counts a head once a holder
        keys = module.total_num_kv_heads * module.head_size
        sizes = [module.total_num_heads * module.head_size, keys, len(whole) - sizes[0] - keys]
    return list(whole.split(sizes))
