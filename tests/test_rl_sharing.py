"""Which models may share rows, which may not and why, and that a fault in any part is found."""

import copy
import logging
import math
import re

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GptOssConfig,
    GptOssForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)
from transformers.models.qwen3_5 import Qwen3_5ForCausalLM, Qwen3_5TextConfig

import rl.attention
from rl.attention import NAME, _RowAttention, dense_backward
from rl.dense_attention import Settings
from rl.optimizer import OptimizerConfig
from rl.policy import Policy, PolicyConfig
from rl.sharing import MOVED, crossed, few_layers, sharing_fault
from tests.packed_models import (
    FAMILIES,
    HEADS,
    SIZES,
    WINDOW,
    batch_of,
    deepseek_v3,
    gemma3,
    llama,
    seeded,
)

# Prompts and completions of unequal length, most longer than the window of 8.
BATCH = batch_of([(12, [9, 3]), (14, [5, 11, 2])])


def lfm2():
    kinds = ["full_attention", "conv"]
    return seeded(Lfm2ForCausalLM, Lfm2Config(**SIZES, layer_types=kinds, conv_L_cache=3))


def qwen3_5():
    """Three layers of linear attention, then one of full attention."""
    linear = {
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
    }
    sizes = SIZES | {"num_hidden_layers": 4}
    return seeded(Qwen3_5ForCausalLM, Qwen3_5TextConfig(**sizes, **HEADS, **linear))


def mamba():
    """No attention at all."""
    sizes = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2}
    return seeded(MambaForCausalLM, MambaConfig(**sizes, state_size=4, conv_kernel=3))


def gpt_oss():
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2}
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    return seeded(GptOssForCausalLM, GptOssConfig(**SIZES, **HEADS, **WINDOW, **experts, **rope))


def bloom():
    """Attention that is not called through transformers' interface."""
    sizes = {"vocab_size": 32, "hidden_size": 16, "n_layer": 2, "n_head": 4}
    return seeded(BloomForCausalLM, BloomConfig(**sizes, hidden_dropout=0.0))


@pytest.mark.parametrize("make", FAMILIES)
def test_the_families_that_are_trained_may_share(make):
    model = make()
    before = copy.deepcopy(model.state_dict())
    attention = model.config._attn_implementation
    assert sharing_fault(model, BATCH) is None
    # And the model is as it was.
    assert model.config._attn_implementation == attention
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())
    assert [name for name, p in model.named_parameters() if p.grad is not None] == []
    assert model.training and not model.is_gradient_checkpointing


@pytest.mark.parametrize(
    ("make", "start"),
    [
        (lfm2, "layers.1.conv mixes neighbours, whose company moves its output by "),
        (qwen3_5, "layers.0.linear_attn mixes neighbours, whose company moves its output by "),
        (mamba, "layers.0.mixer mixes neighbours, whose company moves its output by "),
        (gpt_oss, "ValueError: packed attention does not know attention sinks (s_aux)"),
        (bloom, "h.0.self_attention mixes neighbours, whose company moves its output by "),
    ],
)
def test_layers_that_cannot_share_are_named(make, start):
    assert sharing_fault(make(), BATCH).startswith(start)


def test_a_layer_is_named_by_its_place_in_the_whole_model():
    # Of four layers the first and the last are kept; the second that is computed is layers.3.
    kinds = ["full_attention", "full_attention", "full_attention", "conv"]
    sizes = SIZES | {"num_hidden_layers": 4}
    model = seeded(Lfm2ForCausalLM, Lfm2Config(**sizes, layer_types=kinds, conv_L_cache=3))
    assert sharing_fault(model, BATCH).startswith("layers.3.conv mixes neighbours")


def test_a_module_that_is_used_twice_in_a_layer_is_no_hindrance():
    # Phi's one dropout follows attention and the feed-forward network.
    assert sharing_fault(seeded(PhiForCausalLM, PhiConfig(**SIZES)), BATCH) is None


# What is computed on.


def long_gemma():
    """Layers 0, 1, 3 and 4 with a window, 2 and 5 without."""
    kinds = ["sliding_attention", "sliding_attention", "full_attention"] * 2
    window = WINDOW | {"layer_types": kinds}
    sizes = SIZES | {"num_hidden_layers": 6}
    return seeded(Gemma3ForCausalLM, Gemma3TextConfig(**sizes, **HEADS, **window))


@pytest.mark.parametrize(
    ("make", "kept"),
    [
        (lambda: seeded(*llama_of(3)), [0]),
        (long_gemma, [0, 2]),
        (deepseek_v3, [0, 1]),  # a dense one and one of experts
        (qwen3_5, [0, 3]),
    ],
)
def test_one_layer_of_each_kind_is_kept(make, kept):
    model = make()
    few, names = few_layers(model)
    assert names == {f"layers.{place}": f"layers.{index}" for place, index in enumerate(kept)}
    own, layers = few.get_decoder().layers, model.get_decoder().layers
    assert len(own) == few.config.num_hidden_layers == len(kept)
    for layer, index in zip(own, kept, strict=True):
        found, expected = layer.state_dict(), layers[index].state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], x) for name, x in expected.items())
    if kinds := getattr(model.config, "layer_types", None):
        assert few.config.layer_types == [kinds[index] for index in kept]


def llama_of(num_layers):
    model = llama()
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = num_layers
    return type(model), config


def test_the_model_keeps_its_layers():
    model = long_gemma()
    layers, config = model.get_decoder().layers, copy.deepcopy(model.config)
    modules, before = list(model.modules()), copy.deepcopy(model.state_dict())
    few, _ = few_layers(model)
    with torch.no_grad():
        for parameter in few.parameters():
            parameter.zero_()
    assert model.get_decoder().layers is layers and len(layers) == 6
    assert list(model.modules()) == modules
    assert model.config.to_dict() == config.to_dict()
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())


def test_a_model_without_a_list_of_layers_is_copied_whole():
    model = bloom()
    few, names = few_layers(model)
    assert names == {} and few is not model
    assert len(few.transformer.h) == 2


def test_the_example_of_crossed():
    # a1 and b2: prompts of 3 and 2 tokens, completions of 2 and 4.
    batch = batch_of([(3, [2]), (2, [4])])
    batch.token_ids[:] = torch.tensor([1, 1, 1, 10, 11, 2, 2, 20, 21, 22, 23])
    a, b = crossed(batch)
    assert a.token_ids.tolist() == [1, 1, 1, 10, 11, 1, 1, 1, 20, 21, 22, 23]
    assert a.positions.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]
    assert b.token_ids.tolist() == [2, 2, 10, 11, 2, 2, 20, 21, 22, 23]
    assert b.positions.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5]
    for part, prompt in ((a, 3), (b, 2)):
        assert part.lengths == [prompt + 2, prompt + 4]
        assert part.prompt_lengths == [prompt, prompt]


def test_of_many_sequences_some_are_crossed():
    # Every second of nine, four of them: 1, 3, 5 and 7 tokens behind as long a prompt.
    batch = batch_of([(length, [length]) for length in range(1, 10)])
    assert [part.lengths for part in crossed(batch)] == [[8, 10, 12, 14], [2, 4, 6, 8]]


def test_of_many_completions_of_two_prompts_both_are_crossed():
    parts = crossed(batch_of([(2, [1, 2, 3]), (5, [1])]))
    assert [part.prompt_lengths for part in parts] == [[5] * 4, [2] * 4]


def test_one_sequence_is_its_own_neighbour():
    parts = crossed(batch_of([(3, [2])]))
    assert [part.lengths for part in parts] == [[5, 5], [5, 5]]


# Faults, one at a time.


def test_keys_whose_gradient_is_a_tenth_too_large(monkeypatch):
    def wrong(grads, grad, query, key, value, *rest):
        before = grads[1].clone()
        dense_backward(grads, grad, query, key, value, *rest)
        grads[1].add_(0.1 * (grads[1] - before))

    monkeypatch.setattr(rl.attention, "dense_backward", wrong)
    assert_gradient_fault(sharing_fault(llama(), BATCH))


def assert_gradient_fault(fault, how=""):
    found = re.fullmatch(
        r"sharing a row moves the gradient of model\.\S+ by (\S+) of the whole's size" + how, fault
    )
    assert float(found[1]) > MOVED


def test_a_gradient_that_is_no_number(monkeypatch):
    def wrong(grads, *rest):
        dense_backward(grads, *rest)
        grads[0].fill_(math.nan)

    monkeypatch.setattr(rl.attention, "dense_backward", wrong)
    assert " by nan of the whole's size" in sharing_fault(llama(), BATCH)


def test_a_gradient_that_is_missing(monkeypatch):
    forward = _RowAttention.apply
    monkeypatch.setattr(
        rl.attention._RowAttention, "apply", lambda query, *rest: forward(query.detach(), *rest)
    )
    assert_gradient_fault(sharing_fault(llama(), BATCH))


def test_a_layout_that_is_another_rows_in_the_backward(monkeypatch):
    """All forward passes go before any backward: what is kept but once is the last row's."""
    forward, backward = _RowAttention.forward, _RowAttention.backward
    last = []

    def remembers(ctx, query, key, value, layout, settings):
        last[:] = [layout]
        return forward(ctx, query, key, value, layout, settings)

    def mistakes(ctx, grad):
        ctx.layout = last[0]
        return backward(ctx, grad)

    monkeypatch.setattr(_RowAttention, "forward", staticmethod(remembers))
    monkeypatch.setattr(_RowAttention, "backward", staticmethod(mistakes))
    assert_gradient_fault(sharing_fault(llama(), BATCH))


def test_a_layout_that_is_another_rows_in_a_checkpoint(monkeypatch):
    forward, seen = _RowAttention.forward, []

    def recomputes(ctx, query, key, value, layout, settings):
        again = any(layout is one for one in seen)
        if not again:
            seen.append(layout)
        return forward(ctx, query, key, value, seen[-1] if again else layout, settings)

    monkeypatch.setattr(_RowAttention, "forward", staticmethod(recomputes))
    assert_gradient_fault(sharing_fault(llama(), BATCH), " with gradient checkpointing")


def test_a_window_that_is_ignored(monkeypatch):
    monkeypatch.setattr(
        rl.attention, "Settings", lambda **told: Settings(**told | {"window": None})
    )
    assert sharing_fault(gemma3(), BATCH).startswith("layers.0.self_attn mixes neighbours")
    # Sequences of 8 tokens see all of themselves whatever the window of 8.
    assert sharing_fault(gemma3(), batch_of([(5, [3, 2]), (4, [1])])) is None


def test_a_window_that_forgets_the_prompt(monkeypatch):
    """Counting places of the row instead of positions: the prompt is further back than it is."""
    monkeypatch.setattr(rl.dense_attention, "_mask", masked_by_place)
    assert sharing_fault(gemma3(), BATCH).startswith("layers.0.self_attn mixes neighbours")
    assert sharing_fault(llama(), BATCH) is None


honest_mask = rl.dense_attention._mask


def masked_by_place(positions, queries, keys, window):
    hidden = honest_mask(positions, queries, keys, None)
    if window is None:
        return hidden
    far = queries[:, :, None] - keys[:, None] >= window
    return hidden.masked_fill(far[:, :, None], rl.dense_attention.HIDDEN)


# The policy.


def make_policy(folder, model, caplog):
    model.save_pretrained(folder)
    caplog.clear()
    return Policy(folder, PolicyConfig(dtype="float32"), OptimizerConfig())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (mamba, "MambaForCausalLM carries a state from token to token"),
        (qwen3_5, "Qwen3_5ForCausalLM carries a state from token to token"),
        (bloom, "the attention of BloomForCausalLM cannot be replaced"),
    ],
)
def test_a_model_that_plainly_cannot_share_is_never_packed(tmp_path, caplog, make, reason):
    with caplog.at_level(logging.WARNING, logger="rl"):
        policy = make_policy(tmp_path, make(), caplog)
    assert not policy.packed
    assert policy.model.config._attn_implementation != NAME
    warnings = [r.getMessage() for r in caplog.records if r.name.startswith("rl.")]
    assert warnings == [f"sequences are not packed: {reason}"]
    # Neither is it compiled.
    assert [m for m in policy.model.modules() if m._compiled_call_impl] == []


def test_an_unpacked_mamba_computes_each_sequence_alone(tmp_path, caplog):
    policy = make_policy(tmp_path, mamba(), caplog)
    together = policy.frozen_logprobs(BATCH, 0.7)
    alone, start = [], 0
    for length in BATCH.lengths:
        alone.append(policy.frozen_logprobs(BATCH.cut(start, start + length), 0.7))
        start += length
    torch.testing.assert_close(together, torch.cat(alone))
    assert together[BATCH.sampled].lt(0).all()


def test_a_model_that_can_share_is_packed(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="rl"):
        policy = make_policy(tmp_path, llama(), caplog)
    assert policy.packed and policy.model.config._attn_implementation == NAME
    assert [r for r in caplog.records if r.name.startswith("rl.")] == []
