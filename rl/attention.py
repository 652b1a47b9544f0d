"""Attention inside a packed row: a completion sees its prompt and itself, with no square mask.

Registered with transformers' AttentionInterface; the layout of the row travels as a keyword of
the model's forward, so that backward passes see the layout of their own forward. This is the path
of the CPU; `rl.flex_attention` has CUDA's.

Shapes: U places, Q heads, H key heads, D head size.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from rl.dense_attention import DensePart, Run, Settings, dense_backward, dense_forward, dense_parts
from rl.flash_attention import FlashPart, flash_backward, flash_forward, flash_parts
from rl.flex_attention import flex_row_attention
from rl.native_attention import ShortPart, native_backward, native_forward, short_part, takes
from rl.rows import RowLayout

NAME = "groupwise_packed"
DENSE_TOKENS = 128
"""Sequences of at most so many tokens behind their prompt are computed densely..."""
DENSE_PROMPT = 384
"""...if their prompt has no more than this."""
NATIVE_TOKENS = 2048
"""Both bounds for the kernel in C++; from 4,096 on the flash kernel is as fast."""


@torch.compiler.disable  # a call in the middle of each compiled layer
def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    row_layout: RowLayout | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed row: [1, heads, U, D] to [1, U, Q, D]; filling gives nothing of use.

    Windows count positions. Raises ValueError for what it does not know (attention sinks).
    """
    if row_layout is None or others.get("s_aux") is not None:
        unknown = "this row without layout" if row_layout is None else "attention sinks (s_aux)"
        raise ValueError(f"packed attention does not know {unknown}")
    if sliding_window is not None and sliding_window >= row_layout.longest:
        sliding_window = None
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    settings = Settings(scaling=scaling, window=sliding_window, softcap=softcap)
    if query.is_cuda:
        return flex_row_attention(query, key, value, row_layout, settings), None
    heads = (x.squeeze(0).transpose(0, 1).contiguous() for x in (query, key, value))
    return _RowAttention.apply(*heads, row_layout, settings)[None], None


class Plan(NamedTuple):
    """Which parts of a row are computed how."""

    native: ShortPart | None
    dense: list[DensePart]
    flash: list[FlashPart]


def plan(layout: RowLayout, settings: Settings, num_heads: int, native: bool = False) -> Plan:
    """The row's plan for layers like this, worked out once a row.

    With `native` the kernel in C++ does what would be dense.
    """
    key = (settings.window, settings.softcap is None, num_heads, native)
    if key not in layout.plans:
        simple = settings.window is None and settings.softcap is None
        most = (NATIVE_TOKENS, NATIVE_TOKENS) if native else (DENSE_TOKENS, DENSE_PROMPT)
        runs, long = [], []
        for index, family in enumerate(layout.families):
            prompt = family.prompt.stop - family.prompt.start
            for span in (family.prompt, *family.completions):
                own = span is family.prompt
                short = span.stop - span.start <= most[0] and (own or prompt <= most[1])
                run = Run(span, span, None if own or not prompt else index)
                if span.stop > span.start:
                    (runs if short or not simple else long).append(run)
        short = short_part(layout, runs) if native and simple and runs else None
        dense = [] if short else dense_parts(layout, runs, settings.window, num_heads)
        layout.plans[key] = Plan(short, dense, flash_parts(layout, long))
    return layout.plans[key]


class _RowAttention(torch.autograd.Function):
    """[U, Q, D], [U, H, D], [U, H, D] to [U, Q, D]; long scores are computed again in backward."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: RowLayout, settings: Settings
    ) -> Tensor:
        native, dense, flash = plan(layout, settings, query.shape[1], takes(query, key, value))
        out = query.new_zeros(*query.shape[:2], value.shape[-1])
        normaliser = short_normaliser = query.new_empty(0)
        if native:
            short_normaliser = native_forward(out, query, key, value, native, settings.scaling)
        kept = [dense_forward(out, query, key, value, part, settings) for part in dense]
        if flash:
            normaliser = query.new_full(query.shape[:2], torch.inf, dtype=torch.float32)
        for part in flash:
            flash_forward(out, normaliser, query, key, value, part, settings)
        ctx.save_for_backward(query, key, value, out, normaliser, short_normaliser, *kept)
        ctx.layout, ctx.settings = layout, settings
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, normaliser, short_normaliser, *kept = ctx.saved_tensors
        settings, heads = ctx.settings, (query, key, value)
        native, dense, flash = plan(ctx.layout, settings, query.shape[1], takes(*heads))
        exact = torch.float32 if flash else query.dtype  # a query of several parts sums them
        grads = [
            torch.zeros(x.shape, dtype=kind)
            for x, kind in zip(heads, (exact, torch.float32, torch.float32), strict=True)
        ]
        if native:
            normalisers = short_normaliser
            native_backward(grads, grad, *heads, normalisers, native, settings.scaling)
        for part, probabilities in zip(dense, kept, strict=True):
            dense_backward(grads, grad, query, key, value, probabilities, part, settings)
        for part in flash:
            flash_backward(grads, grad, query, key, value, out, normaliser, part, settings)
        grads = [g.to(x.dtype) for g, x in zip(grads, heads, strict=True)]
        return *grads, None, None


AttentionInterface.register(NAME, packed_attention)
