"""Packed attention on CUDA: FlexAttention with a block mask, which skips what is masked.

Shapes: U places, Q heads, H key heads, D head size.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from rl.dense_attention import Settings
from rl.rows import RowLayout


def flex_row_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: RowLayout, settings: Settings
) -> Tensor:
    """[1, Q, U, D], [1, H, U, D], [1, H, U, D] to [1, U, Q, D]."""
    mask = _block_mask(layout, settings.window, query.device)
    attend = _compiled() if query.is_cuda else flex_attention
    out = attend(
        query,
        key,
        value,
        score_mod=_soft_cap(settings.softcap),
        block_mask=mask,
        scale=settings.scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out.transpose(1, 2)


def _block_mask(layout: RowLayout, window: int | None, device: torch.device) -> BlockMask:
    """Who sees whom, in blocks; worked out once a row and window."""
    key = ("flex", window)
    if key not in layout.plans:
        arrays = (layout.family, layout.completion, layout.positions)
        family, completion, positions = (array.to(device) for array in arrays)

        def visible(batch: Tensor, head: Tensor, asking: Tensor, asked: Tensor) -> Tensor:
            own = completion[asking] == completion[asked]
            seen = (asked <= asking) & (family[asking] == family[asked])
            seen = seen & (own | (completion[asked] < 0))
            if window is not None:
                seen = seen & (positions[asking] - positions[asked] < window)
            return seen

        size = len(positions)
        layout.plans[key] = create_block_mask(visible, None, None, size, size, device=device)
    return layout.plans[key]


@cache
def _soft_cap(softcap: float | None) -> Any:
    if softcap is None:
        return None

    def capped(score: Tensor, *_: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return capped


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)
