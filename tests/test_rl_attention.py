"""Packed rows against one sequence at a time with transformers' own attention: states and gradients."""

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

import rl.attention
import rl.dense_attention
from rl.attention import NAME, packed_attention
from rl.dense_attention import Settings
from rl.flex_attention import flex_row_attention
from rl.forward import row_hidden, single_hidden
from rl.rows import make_row
from tests.packed_models import FAMILIES, HEADS, SIZES, batch_of, gemma3, llama, seeded

ROW = [(5, [13, 7, 1, 30]), (9, [2, 3]), (1, [6]), (40, [3, 60])]


@pytest.fixture(params=["dense", "flash", "both", "blocks"])
def path(request, monkeypatch):
    """Every way to compute a part, whatever its length: all dense, all flash, some of each, and
    dense in blocks of 8 queries, a few sequences at a time."""
    longest = {"dense": 1000, "flash": 0, "both": 10, "blocks": 1000}[request.param]
    monkeypatch.setattr(rl.attention, "DENSE_TOKENS", longest)
    if request.param == "blocks":
        monkeypatch.setattr(rl.dense_attention, "BLOCK", 8)
        monkeypatch.setattr(rl.dense_attention, "CACHED_SCORES", 2**11)
    return request.param


def packed(model, batch, *, share=True):
    row = make_row(batch, share=share)
    return row_hidden(model, row)[row.places]


def separate(model, batch):
    return torch.cat([single_hidden(model, ids) for ids in batch.token_ids.split(batch.lengths)])


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
@pytest.mark.parametrize("make", FAMILIES)
def test_packed_equals_one_at_a_time(make, checkpointing, path):
    model, batch = make(), batch_of(ROW)
    expected = separate(model, batch)
    expected_gradients = gradients(model, expected)
    model.set_attn_implementation(NAME)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    found = packed(model, batch)
    assert distance(found, expected) < 1e-6
    assert_same(gradients(model, found), expected_gradients)


@pytest.mark.parametrize("make", FAMILIES)
def test_without_sharing_it_is_the_same(make):
    model, batch = make(), batch_of(ROW)
    expected = gradients(model, separate(model, batch))
    model.set_attn_implementation(NAME)
    assert_same(gradients(model, packed(model, batch, share=False)), expected)


@pytest.mark.parametrize("make", FAMILIES)
def test_flex_sees_the_same(make, monkeypatch):
    """CUDA's path, forward alone: the CPU has no backward of it."""
    model, batch = make(), batch_of(ROW)
    expected = separate(model, batch).detach()
    model.set_attn_implementation(NAME)
    monkeypatch.setattr(rl.attention._RowAttention, "apply", flex)
    with torch.no_grad():
        assert distance(packed(model, batch), expected) < 1e-6


def flex(query, key, value, layout, settings):
    heads = (x.transpose(0, 1)[None] for x in (query, key, value))
    return flex_row_attention(*heads, layout, settings)[0]


@pytest.mark.parametrize("make", [llama, gemma3])
def test_a_sequence_sees_neither_its_neighbours_nor_what_follows(make, path):
    model, batch = make(), batch_of([(3, [4, 2]), (2, [5])])
    model.set_attn_implementation(NAME)
    before = packed(model, batch).detach()
    # Sequences 3 + 4, 3 + 2 and 2 + 5 begin at 0, 7 and 12.
    batch.token_ids[10] = (batch.token_ids[10] + 1) % 32  # first of the second completion
    batch.token_ids[18] = (batch.token_ids[18] + 1) % 32  # last of the third
    moved = (packed(model, batch) - before).abs().amax(-1) > 0
    assert moved.nonzero().flatten().tolist() == [10, 11, 18]


def test_the_window_hides_what_is_further_back(path):
    # In a model of sliding layers alone the last of 20 tokens sees 8 of them in each of 2 layers:
    # positions 19 - 2 * 7 = 5 and later, whether they are its prompt's or its own.
    window = {"sliding_window": 8, "layer_types": ["sliding_attention", "sliding_attention"]}
    model = seeded(Gemma3ForCausalLM, Gemma3TextConfig(**SIZES, **HEADS, **window))
    model.set_attn_implementation(NAME)
    batch = batch_of([(11, [9])])
    before = packed(model, batch)[-1].detach()

    def moves_the_last(place):
        kept = batch.token_ids[place].item()
        batch.token_ids[place] = (kept + 1) % 32
        moved = not torch.equal(packed(model, batch)[-1], before)
        batch.token_ids[place] = kept
        return moved

    assert [place for place in range(20) if moves_the_last(place)] == list(range(5, 20))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("make", [llama, gemma3])
def test_two_rows_forward_before_either_goes_backward(make, checkpointing, path):
    # A layout kept anywhere but with its own forward would be the second row's in both backwards.
    first, second = batch_of([(4, [9, 12, 2])]), batch_of([(3, [3, 10])], seed=5)
    model = make()
    hidden = torch.cat([separate(model, first), separate(model, second)])
    expected = gradients(model, hidden)
    model.set_attn_implementation(NAME)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    hidden = [packed(model, first), packed(model, second)]
    assert_same(gradients(model, torch.cat(hidden)), expected)


def test_bfloat16_rows_equal_single_ones_to_rounding(path):
    model, batch = llama().to(torch.bfloat16), batch_of(ROW)
    expected = separate(model, batch).float()
    model.set_attn_implementation(NAME)
    found = packed(model, batch)
    assert found.dtype == torch.bfloat16
    # 8 bits of mantissa; errors of two layers.
    assert distance(found.float(), expected) < 2**-6


def test_bfloat16_keeps_scores_in_float32():
    # One query over two keys, scores 100 and 100.25: bfloat16 has no number between 100 and 100.5.
    # Values 0 and 1, so that the output is 1 / (1 + e^-0.25) = 0.562.
    size = 64
    query = torch.zeros(1, 1, size, 2, dtype=torch.bfloat16)
    key, value = query.clone(), query.clone()
    query[0, 0, 1] = torch.tensor([10.0, 0.25])
    key[0, 0, :2] = torch.tensor([[10.0, 0.0], [10.0, 1.0]])
    value[0, 0, 1] = 1.0
    layout = make_row(batch_of([(1, [1])])).layout
    out, _ = packed_attention(None, query, key, value, None, scaling=1.0, row_layout=layout)
    assert out[0, 1, 0, 0].item() == pytest.approx(0.562, abs=2**-8)


def test_attention_sinks_are_refused():
    layout = make_row(batch_of([(1, [2])])).layout
    heads = torch.zeros(1, 2, 64, 4)
    with pytest.raises(ValueError, match="s_aux"):
        packed_attention(None, heads, heads, heads, None, row_layout=layout, s_aux=torch.zeros(2))


def test_a_row_without_layout_is_refused():
    model = llama()
    model.set_attn_implementation(NAME)
    with pytest.raises(ValueError, match="without layout"):
        single_hidden(model, torch.arange(4))


def test_a_row_is_planned_once_for_all_layers():
    model, row = llama(), make_row(batch_of(ROW))
    model.set_attn_implementation(NAME)
    row_hidden(model, row)
    assert len(row.layout.plans) == 1
    settings = Settings(scaling=8**-0.5)
    assert rl.attention.plan(row.layout, settings, 4) is rl.attention.plan(row.layout, settings, 4)
