"""Attention inside a packed row: every sequence sees itself alone, with no square mask.

Registered with transformers' AttentionInterface; the layout of the row travels as a keyword of
the model's forward, so that backward passes see the layout of their own forward.

Shapes: T packed tokens, R sequences, L width of the grid, Q heads, K key heads, D head size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

NAME = "groupwise_packed"
WIDTH_MULTIPLE = 16
"""The grid's width is a multiple of so many tokens: few shapes of it occur (`rl.policy.ROW_MULTIPLE`)."""


@dataclass(frozen=True, kw_only=True)
class RowLayout:
    """Where each packed token stands in a padded [R, L] grid.

    Example: lengths (4, 3): rows 2, width 16, slots (0, 1, 2, 3, 16, 17, 18).
    """

    slots: Tensor
    rows: int
    width: int

    @staticmethod
    def of(lengths: list[int], device: torch.device) -> "RowLayout":
        """The layout of sequences of these lengths, one after another."""
        width = -(-max(lengths) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
        slots = [row * width + t for row, length in enumerate(lengths) for t in range(length)]
        return RowLayout(slots=torch.tensor(slots, device=device), rows=len(lengths), width=width)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    row_layout: RowLayout | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Causal attention of each packed sequence on its own: [1, heads, T, D] to [1, T, Q, D].

    The grid's padding is to the right, so that causality alone hides it. Windows count
    positions. Raises ValueError for what it does not know (soft-caps, attention sinks).
    """
    unknown = [name for name in ("softcap", "s_aux") if others.get(name) is not None]
    if unknown or row_layout is None:
        raise ValueError(f"packed attention does not know {unknown or 'this row without layout'}")
    groups = query.shape[1] // key.shape[1]
    heads = [_to_grid(x, row_layout) for x in (query, key, value)]
    keys, values = (x.repeat_interleave(groups, dim=1) for x in heads[1:])
    mask = _window_mask(row_layout.width, sliding_window, query.device)
    out = scaled_dot_product_attention(
        heads[0], keys, values, attn_mask=mask, is_causal=mask is None, scale=scaling
    )
    out = out.transpose(1, 2).flatten(0, 1).index_select(0, row_layout.slots)
    return out.unsqueeze(0), None


def _to_grid(x: Tensor, layout: RowLayout) -> Tensor:
    """[1, heads, T, D] to [R, heads, L, D], zeros where there is no token."""
    flat = x[0].transpose(0, 1)
    grid = flat.new_zeros(layout.rows * layout.width, *flat.shape[1:])
    grid = grid.index_copy(0, layout.slots, flat)
    return grid.unflatten(0, (layout.rows, layout.width)).transpose(1, 2)


def _window_mask(width: int, window: int | None, device: torch.device) -> Tensor | None:
    if window is None or width <= window:
        return None
    distance = torch.arange(width, device=device)[:, None] - torch.arange(width, device=device)
    return (distance >= 0) & (distance < window)


AttentionInterface.register(NAME, packed_attention)
