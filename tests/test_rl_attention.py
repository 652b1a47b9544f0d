"""Packed rows against one sequence at a time with transformers' own sdpa, hidden states and gradients."""

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rl.attention import NAME, RowLayout, packed_attention
from rl.policy import packed_hidden, single_hidden

LENGTHS = [13, 5, 11, 1, 8]
SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "attn_implementation": "sdpa",
}
WINDOW = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}


def llama():
    return seeded(LlamaForCausalLM, LlamaConfig(**SIZES))


def qwen3():
    return seeded(Qwen3ForCausalLM, Qwen3Config(**SIZES))


def gemma3():
    return seeded(Gemma3ForCausalLM, Gemma3TextConfig(**SIZES, **WINDOW))


def seeded(kind, config):
    """A random model whose matrices are large enough for attention to be far from uniform."""
    torch.manual_seed(0)
    model = kind(config).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return model


def rows(lengths, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randint(32, (length,), generator=draw) for length in lengths]


def packed(model, sequences):
    lengths = [len(ids) for ids in sequences]
    positions = torch.cat([torch.arange(length) for length in lengths])
    return packed_hidden(model, torch.cat(sequences), positions, lengths)


def separate(model, sequences):
    return torch.cat([single_hidden(model, ids) for ids in sequences])


def gradients(model, hidden):
    """Of a weighted sum in which every number counts differently."""
    draw = torch.Generator().manual_seed(2)
    weights = torch.randn(hidden.shape, generator=draw)
    model.zero_grad()
    (hidden * weights).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def distance(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def assert_same(found, expected, tolerance=4e-6):
    assert found.keys() == expected.keys()
    worst = max(expected, key=lambda name: distance(found[name], expected[name]))
    assert distance(found[worst], expected[worst]) < tolerance, worst


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("make", [llama, qwen3, gemma3])
def test_packed_equals_one_at_a_time(make, checkpointing):
    sequences = rows(LENGTHS)
    model = make()
    expected = separate(model, sequences)
    expected_gradients = gradients(model, expected)
    model.set_attn_implementation(NAME)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    found = packed(model, sequences)
    assert distance(found, expected) < 1e-6
    assert_same(gradients(model, found), expected_gradients)


@pytest.mark.parametrize("make", [llama, qwen3, gemma3])
def test_a_sequence_sees_neither_its_neighbours_nor_what_follows(make):
    sequences = rows(LENGTHS)
    model = make()
    model.set_attn_implementation(NAME)
    before = packed(model, sequences).detach()
    sequences[1] = (sequences[1] + 1) % 32
    sequences[2][-1] = (sequences[2][-1] + 1) % 32
    moved = (packed(model, sequences) - before).abs().amax(-1) > 0
    # Rows of 13, 5, 11, 1, 8: the second whole (13..17) and the last of the third (28) move.
    assert moved.nonzero().flatten().tolist() == [13, 14, 15, 16, 17, 28]


def test_the_window_hides_what_is_further_back():
    # In a model of sliding layers alone the last of 20 tokens sees 8 of them in each of 2 layers:
    # positions 19 - 2 * 7 = 5 and later.
    config = Gemma3TextConfig(
        **SIZES, sliding_window=8, layer_types=["sliding_attention", "sliding_attention"]
    )
    model = seeded(Gemma3ForCausalLM, config)
    model.set_attn_implementation(NAME)
    (ids,) = rows([20])
    before = packed(model, [ids])[-1].detach()

    def moves_the_last(place):
        changed = ids.clone()
        changed[place] = (changed[place] + 1) % 32
        return not torch.equal(packed(model, [changed])[-1], before)

    assert [place for place in range(20) if moves_the_last(place)] == list(range(5, 20))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("make", [llama, gemma3])
def test_two_rows_forward_before_either_goes_backward(make, checkpointing):
    # A layout kept anywhere but with its own forward would be the second row's in both backwards.
    first, second = rows([9, 12, 2]), rows([3, 10], seed=5)
    model = make()
    expected = gradients(model, separate(model, [*first, *second]))
    model.set_attn_implementation(NAME)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    hidden = [packed(model, first), packed(model, second)]
    assert_same(gradients(model, torch.cat(hidden)), expected)


def test_bfloat16_rows_equal_single_ones_to_rounding():
    model, sequences = llama().to(torch.bfloat16), rows(LENGTHS)
    expected = separate(model, sequences).float()
    model.set_attn_implementation(NAME)
    found = packed(model, sequences)
    assert found.dtype == torch.bfloat16
    # 8 bits of mantissa; errors of two layers.
    assert distance(found.float(), expected) < 2**-6


def test_layout_of_the_docstring():
    layout = RowLayout.of([4, 3], torch.device("cpu"))
    assert layout.slots.tolist() == [0, 1, 2, 3, 16, 17, 18]
    assert (layout.rows, layout.width) == (2, 16)


def test_layout_leaves_room_at_the_right():
    # Rows of 2 and 17 in a grid of width 32: the second begins at slot 32.
    slots = RowLayout.of([2, 17], torch.device("cpu")).slots.tolist()
    assert slots == [0, 1, *range(32, 49)]


def test_a_soft_cap_is_refused():
    config = Gemma2Config(**SIZES, sliding_window=8, attn_logit_softcapping=50.0)
    model = seeded(Gemma2ForCausalLM, config)
    model.set_attn_implementation(NAME)
    with pytest.raises(ValueError, match="softcap"):
        packed(model, rows([5, 3]))


def test_attention_sinks_are_refused():
    heads = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ValueError, match="s_aux"):
        packed_attention(
            torch.nn.Identity(),
            heads,
            heads,
            heads,
            None,
            row_layout=RowLayout.of([3], heads.device),
            s_aux=torch.zeros(2),
        )


def test_a_row_without_layout_is_refused():
    model = llama()
    model.set_attn_implementation(NAME)
    with pytest.raises(ValueError, match="without layout"):
        single_hidden(model, torch.arange(4))
