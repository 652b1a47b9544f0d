"""Forward passes of transformers' models: packed rows, and one sequence by the model's own attention."""

from typing import Any

import torch
from torch import Tensor, nn

from rl.attention import NAME as PACKED
from rl.rows import Row


def known_fault(model: nn.Module) -> str | None:
    """Why a model set to `PACKED` cannot share rows, told without computing; `rl.sharing` tells more."""
    name = type(model).__name__
    if getattr(model, "_is_stateful", False):
        return f"{name} carries a state from token to token"
    if model.config._attn_implementation != PACKED:
        return f"the attention of {name} cannot be replaced"
    return None


def plain_attention(model: nn.Module) -> str:
    """transformers' own attention for one sequence: its sdpa ignores soft-caps."""
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    return "sdpa" if getattr(model, "_supports_sdpa", True) and not capped else "eager"


def row_hidden(model: nn.Module, row: Row) -> Tensor:
    """Last hidden states [U, H] of a packed row. The model's attention must be `rl.attention.NAME`."""
    return _body(model, row.token_ids, row.positions, row_layout=row.layout)


def single_hidden(model: nn.Module, token_ids: Tensor) -> Tensor:
    """Last hidden states [T, H] of one sequence, by the model's own attention."""
    return _body(model, token_ids, torch.arange(len(token_ids), device=token_ids.device))


def _body(model: nn.Module, token_ids: Tensor, positions: Tensor, **layout: Any) -> Tensor:
    out = model.get_decoder()(
        input_ids=token_ids[None], position_ids=positions[None], use_cache=False, **layout
    )
    return out.last_hidden_state[0]
