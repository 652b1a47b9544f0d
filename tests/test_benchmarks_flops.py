"""The count of operations, against sums made by hand and against what autograd multiplies."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.flops import ModelShape, Work, group_work, sequence_work, update_flops

SHAPE = ModelShape(hidden=4, layers=2, heads=2, key_heads=1, head_size=2, mlp=8, vocabulary=10)


def test_weights_by_hand():
    # q and o 4 x 4 each, k and v 4 x 2 each, three matrices of 4 x 8; twice
    assert SHAPE.body_weights == 2 * (16 + 16 + 8 + 8 + 96) == 288


def test_a_group_computes_its_prompt_once():
    # prompt: 1 + 2 pairs; first completion sees 2 + 1 and 2 + 2; second 2 + 1
    assert group_work(2, [2, 1]) == Work(tokens=5, head_tokens=3, pairs=3 + 7 + 3)
    assert sequence_work([4, 3]) == Work(tokens=7, head_tokens=7, pairs=10 + 6)


def test_flops_by_hand():
    # 6 x 288 x 5 + 6 x 4 x 10 x 3 + 12 x 2 layers x 4 wide x 13 pairs
    assert update_flops(SHAPE, [group_work(2, [2, 1])]) == 8640 + 720 + 1248
    assert update_flops(SHAPE, []) == 0


@pytest.mark.parametrize("length", [5, 16])
def test_the_count_is_what_autograd_multiplies(length):
    """A real model's products; attention without a mask computes all pairs, T x T of them."""
    config = Qwen2Config(
        vocab_size=32, hidden_size=8, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=12, attn_implementation="eager",
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    embedded = model.get_input_embeddings()(torch.arange(length)[None]).detach().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        model(inputs_embeds=embedded).logits.sum().backward()
    every_pair = Work(tokens=length, head_tokens=length, pairs=length * length)
    # Rotary angles are a product as well: length x head_size / 2 positions, forward only.
    angles = 2 * length * (8 // 4 // 2)
    counted = update_flops(ModelShape.of(config), [every_pair])
    assert counter.get_total_flops() - counted in (0, angles)


def test_the_published_size_of_a_known_model():
    # Qwen2.5-0.5B: 0.36 billion parameters without embeddings
    shape = ModelShape(
        hidden=896, layers=24, heads=14, key_heads=2, head_size=64, mlp=4864, vocabulary=151_936
    )
    assert round(shape.body_weights / 1e9, 2) == 0.36
