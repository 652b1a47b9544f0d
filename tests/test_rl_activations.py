"""What a layer keeps for backward, counted, against what autograd keeps when it really computes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoConfig, AutoModelForCausalLM

from rl.activations import (
    Lengths,
    activation_bytes,
    head_bytes,
    layer_bytes,
    probability_bytes,
    row_places,
)
from rl.architecture import Architecture, read_architecture
from rl.attention import NAME
from rl.forward import row_hidden
from rl.lora import LoraSettings, add_adapters
from rl.native import kernels
from rl.rows import make_row
from tests.packed_models import LATENT, batch_of

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
SPARSE = {
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 96,
    "first_k_dense_replace": 1,
}
FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {},
    "gemma3_text": {},
    "deepseek_v3": LATENT | SPARSE,
}
SHORT = Lengths(prompt=48, longest=64, mean=64)
LONG = Lengths(prompt=48, longest=256, mean=256)


def model_of(family: str, dtype: torch.dtype) -> tuple[nn.Module, Architecture]:
    fields = {**SIZES, **FAMILIES[family]}
    if family == "deepseek_v3":
        del fields["head_dim"]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **fields)).to(dtype)
    model.set_attn_implementation(NAME)
    return model.train(), read_architecture({"model_type": family, **fields})


def kept_bytes(model: nn.Module, lengths: Lengths) -> tuple[int, int]:
    """Bytes of the storages that backward will need, parameters left out, and the row's places."""
    completions = max(2, 256 // lengths.longest)
    row = make_row(batch_of([(lengths.prompt, [lengths.longest] * completions)] * 4))
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        held.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = row_hidden(model, row)
    assert hidden.requires_grad
    sizes = {pointer: t.untyped_storage().nbytes() for pointer, t in held.items()}
    return sum(size for pointer, size in sizes.items() if pointer not in own), len(row.token_ids)


def counted(
    arch: Architecture, itemsize: int, lengths: Lengths, places: int, beside: int = 0
) -> int:
    """What `rl.activations` counts for the same row."""
    sparse = [layer >= arch.num_hidden_layers - arch.sparse_layers for layer in range(3)]
    native = itemsize == 2 and kernels() is not None
    each = probability_bytes(arch, itemsize, lengths, native=native) + beside
    layers = sum(layer_bytes(arch, itemsize, compiled=False, sparse=s) + each for s in sparse)
    return places * (layers + (itemsize + 4) * arch.hidden_size)


@pytest.mark.parametrize("lengths", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_forward_pass_keeps(family: str, dtype: torch.dtype, lengths: Lengths):
    model, arch = model_of(family, dtype)
    found, places = kept_bytes(model, lengths)
    assert counted(arch, dtype.itemsize, lengths, places) == pytest.approx(found, rel=0.1)


def test_what_adapters_add():
    model, arch = model_of("llama", torch.float32)
    add_adapters(model, LoraSettings(rank=32), torch.float32, seed=0)
    after, places = kept_bytes(model, SHORT)
    # A x of each of 7 matrices; the frozen weights' own inputs are A's. Frozen norms keep less than
    # trained ones, which the count leaves out.
    assert after < counted(arch, 4, SHORT, places, 7 * 32 * 4) < 1.15 * after


def test_gradient_checkpointing_keeps_the_inputs_of_layers():
    model, arch = model_of("llama", torch.float32)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    found, places = kept_bytes(model, SHORT)
    assert (3 * 4 + 4 + 4) * arch.hidden_size * places == pytest.approx(found, rel=0.1)


def test_the_whole_by_hand():
    # One layer of H 4, I 6: norms and residuals 2 x 4 x (4 + 2 x 2) + 2 x 4 = 72, queries, keys,
    # values and output 4 + 2 + 2 + 4 twice over in bfloat16 = 48 (uncompiled: 24), gate, up,
    # activation and product 4 x 6 x 2 = 48.
    arch = read_architecture(
        {"model_type": "llama", "vocab_size": 10, "hidden_size": 4, "intermediate_size": 6,
         "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    )  # fmt: skip
    layer = 72 + 24 + 48
    assert layer_bytes(arch, 2, compiled=False, sparse=False) == layer
    final = (2 + 4) * 4
    whole = activation_bytes(
        arch, 2, 64, compiled=False, checkpointing=False, beside=10, trained=True
    )
    weights = 128 * 2  # gradients of one layer, as tests/test_rl_architecture.py counts it
    assert whole == 64 * (2 * (layer + 10) + final + (layer + 10)) + weights
    less = activation_bytes(
        arch, 2, 64, compiled=False, checkpointing=True, beside=10, trained=False
    )
    assert less == 64 * (2 * 4 * 2 + final + 2 * (layer + 10))


def test_layers_with_experts_are_never_fused():
    """One dense layer of three is; gradients of the largest layer's weights and activations beside."""
    _, arch = model_of("deepseek_v3", torch.float32)
    fused, dense, sparse = (
        layer_bytes(arch, 4, compiled=compiled, sparse=experts)
        for compiled, experts in ((True, False), (False, False), (False, True))
    )
    assert len({fused, dense, sparse}) == 3
    whole = activation_bytes(
        arch, 4, 64, compiled=True, checkpointing=False, beside=0, trained=False
    )
    final = (4 + 4) * arch.hidden_size
    assert whole == 64 * (fused + 2 * sparse + final + sparse)


def test_the_head_has_a_gradient_where_it_is_trained():
    # V 10, H 4, 3 tokens: hidden states 3 x 4 x (2 + 2 + 4), a block 3 x 4,096 x 2, gradient 10 x 4 x 2.
    arch = read_architecture(
        {"model_type": "llama", "vocab_size": 10, "hidden_size": 4, "intermediate_size": 6,
         "num_hidden_layers": 2, "num_attention_heads": 2}
    )  # fmt: skip
    frozen = head_bytes(arch, 2, 3, float32_head=False, trained=False)
    assert frozen == 96 + 24_576
    assert head_bytes(arch, 2, 3, float32_head=False, trained=True) == frozen + 80
    wide = head_bytes(arch, 2, 3, float32_head=True, trained=True)
    assert wide == 3 * 4 * (2 + 4 + 4) + 3 * 4096 * 4 + 160 + 160  # a copy and its gradient


def test_rows_have_filling():
    assert [row_places(tokens) for tokens in (1, 63, 64, 100)] == [64, 64, 128, 128]
