"""Low-rank adapters in the trainer: tiny random models, against a forward pass written by hand."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.func import functional_call
from transformers import AutoModelForCausalLM

from rl.checkpoint import RunState, load_checkpoint, save_checkpoint
from rl.lora import (
    LoraSettings,
    adapter_size,
    adapter_state,
    random_adapter,
    settings_fault,
    target_layers,
)
from rl.optimizer import OptimizerConfig
from rl.policy import Policy, PolicyConfig
from rollouts.adapters import AdapterShape
from tests.packed_models import FAMILIES, batch_of, llama, qwen2

SETTINGS = LoraSettings(rank=4, alpha=12.0)
FACTOR = 3.0  # alpha / rank: not a power of two, so that casting before or after it differs
TEMPERATURE = 0.7
LINEAR = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved(llama(), tmp_path_factory.mktemp("llama"))


def saved(model, folder):
    model.save_pretrained(folder)
    return folder


def make_policy(folder, dtype="float32", settings=SETTINGS, seed=0, **config):
    config = PolicyConfig(dtype=dtype, lora=settings, **config)
    return Policy(folder, config, OptimizerConfig(learning_rate=1e-2), seed=seed)


def trained_policy(folder, dtype="float32", **config):
    """With adapters that are not zero any more."""
    policy = make_policy(folder, dtype, **config)
    draw = torch.Generator().manual_seed(1)
    for name, master in policy.optimizer.masters.items():
        if ".lora_B." in name:
            master.copy_(torch.randn(master.shape, generator=draw) * 0.1)
    policy.optimizer.cast()
    return policy


def batch(seed=1):
    """Two prompts with three and two completions, and unequal weights for their tokens."""
    found = batch_of([(5, (4, 7, 2)), (3, (6, 5))], seed=seed)
    weights = torch.linspace(-1, 2, len(found)) * found.sampled
    return replace(found, token_weights=weights)


def backward(policy, part):
    logprobs, _ = policy.logprobs(part, TEMPERATURE)
    (logprobs * part.token_weights).sum().backward()
    return {name: master.grad.clone() for name, master in policy.optimizer.masters.items()}


def step(policy, part):
    backward(policy, part)
    policy.optimizer.step(1e-2)


def by_hand(folder, masters, part):
    """Logprobs [T] of transformers' own model whose every W is W + 3 B A, with gradients to A and B."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    weights = dict(model.named_parameters())
    for name in [n for n in masters if ".lora_A." in n]:
        layer = name.partition(".lora_A.")[0]
        a, b = masters[name], masters[name.replace("lora_A", "lora_B")]
        weights[f"{layer}.weight"] = weights[f"{layer}.weight"].detach() + FACTOR * b @ a
    found = []
    for ids in part.token_ids.split(part.lengths):
        logits = functional_call(model, weights, (ids[None],), {"use_cache": False}).logits[0]
        logprobs = (logits[:-1] / TEMPERATURE).log_softmax(-1)
        found += [torch.zeros(1), logprobs.gather(1, ids[1:, None])[:, 0]]
    return torch.cat(found) * part.sampled


def leaves(policy):
    """The masters as leaves of another graph."""
    return {n: m.clone().requires_grad_() for n, m in policy.optimizer.masters.items()}


def assert_bitwise(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


# What is trained.


def test_only_adapters_have_masters_and_the_base_is_in_the_compute_dtype(folder):
    policy = make_policy(folder, "bfloat16")
    masters = policy.optimizer.masters
    # Two layers of seven linear layers, with A and B each.
    assert len(masters) == 28 and all(".lora_" in name for name in masters)
    assert {master.dtype for master in masters.values()} == {torch.float32}
    assert {p.dtype for p in policy.model.parameters()} == {torch.bfloat16}
    trained = {n for n, p in policy.model.named_parameters() if p.requires_grad}
    assert trained == set(masters)
    assert policy.adapter == AdapterShape(rank=4, layers=LINEAR)
    assert sum(m.numel() for m in masters.values()) == adapter_size(folder, SETTINGS)


def test_full_weights_are_the_default_and_untouched(folder):
    policy = Policy(folder, PolicyConfig(), OptimizerConfig())
    assert policy.adapter is None
    assert set(policy.optimizer.masters) == set(dict(policy.model.named_parameters()))
    step(policy, batch())
    for name, master in policy.optimizer.masters.items():
        held = policy.model.get_parameter(name)
        assert torch.equal(held, master.to(torch.bfloat16)), name


def test_a_new_adapter_adds_nothing(folder):
    fresh, plain = (
        make_policy(folder),
        Policy(folder, PolicyConfig(dtype="float32"), OptimizerConfig()),
    )
    part = batch()
    assert torch.equal(
        fresh.frozen_logprobs(part, TEMPERATURE), plain.frozen_logprobs(part, TEMPERATURE)
    )
    b = [t for n, t in fresh.published().items() if "lora_B" in n]
    assert len(b) == 14 and not any(t.any() for t in b)


def test_the_seed_draws_the_adapters_and_nothing_else_does(folder):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = make_policy(folder, seed=1).published()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert_bitwise(make_policy(folder, seed=1).published(), first)
    other = make_policy(folder, seed=2).published()
    assert all(not torch.equal(other[n], t) for n, t in first.items() if "lora_A" in n)
    # U(-1/sqrt(in), 1/sqrt(in)) as peft has it: 16 wide, so at most 0.25, and two layers differ.
    a = [first[f"model.layers.{i}.self_attn.q_proj.lora_A.weight"] for i in (0, 1)]
    assert 0.2 < a[0].abs().max() <= 0.25 and not torch.equal(*a)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_an_update_equals_a_forward_by_hand(folder, checkpointing):
    policy, part = trained_policy(folder, gradient_checkpointing=checkpointing), batch()
    params = leaves(policy)
    expected = by_hand(folder, params, part)
    found = policy.frozen_logprobs(part, TEMPERATURE)
    assert torch.allclose(found, expected.detach(), atol=2e-5)
    (expected * part.token_weights).sum().backward()
    gradients = backward(policy, part)
    size = torch.stack([p.grad.norm() for p in params.values()]).norm()
    for name, param in params.items():
        assert (gradients[name] - param.grad).norm() < 1e-5 * size, name
    # AdamW on the masters, by torch itself with the same gradients.
    for name, param in params.items():
        param.grad = gradients[name]
    norm = torch.nn.utils.clip_grad_norm_(list(params.values()), 1.0)
    torch.optim.AdamW(list(params.values()), lr=1e-2, weight_decay=0.0).step()
    base = {n: t.clone() for n, t in policy.weights().items()}
    assert policy.optimizer.step(1e-2) == pytest.approx(norm.item())
    for name, param in params.items():
        assert torch.allclose(policy.optimizer.masters[name], param.detach(), atol=1e-6), name
    assert_bitwise(policy.weights(), base)
    assert not torch.equal(policy.frozen_logprobs(part, TEMPERATURE), found)


def test_what_computes_is_the_cast_of_the_factor_times_the_master(folder):
    policy = trained_policy(folder, "bfloat16")
    published = policy.published()
    for name, master in policy.optimizer.masters.items():
        factor = FACTOR if ".lora_B." in name else 1.0
        expected = (master * factor).to(torch.bfloat16)
        assert torch.equal(published[name.replace(".default.", ".")], expected), name
        assert torch.equal(policy.model.get_parameter(name), expected), name
    some = "model.layers.0.self_attn.q_proj.lora_B.weight"
    late = policy.optimizer.masters[some.replace(".weight", ".default.weight")].bfloat16() * FACTOR
    assert not torch.equal(published[some], late)  # the order matters, and is this one


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_packed_rows_know_adapters_in_every_family(family, tmp_path):
    settings = replace(SETTINGS, target_modules=("o_proj", "down_proj"))
    policy = make_policy(saved(family(), tmp_path), settings=settings)
    part = batch()
    before = policy.frozen_logprobs(part, TEMPERATURE)
    with random_adapter(policy.model):
        together = policy.frozen_logprobs(part, TEMPERATURE)
        exact = policy.float32_copy()
        alone = []
        for ids in part.token_ids.split(part.lengths):
            with torch.no_grad():
                logprobs = (exact(ids[None], use_cache=False).logits[0] / TEMPERATURE).log_softmax(
                    -1
                )
            alone += [torch.zeros(1), logprobs[:-1].gather(1, ids[1:, None])[:, 0]]
    assert torch.allclose(together, torch.cat(alone) * part.sampled, atol=1e-4)
    assert (together - before).abs().max() > 0.1
    assert torch.equal(policy.frozen_logprobs(part, TEMPERATURE), before)


def test_biases_stay_in_the_base(tmp_path):
    folder = saved(qwen2(), tmp_path)
    policy = make_policy(folder)
    expected = load_file(folder / "model.safetensors")
    weights = policy.weights()
    assert "model.layers.0.self_attn.q_proj.bias" in expected
    assert_bitwise(weights, expected)
    with random_adapter(policy.model):
        policy.save_pretrained(tmp_path / "final")
    merged = load_file(tmp_path / "final" / "model.safetensors")
    assert {n for n, t in merged.items() if not torch.equal(t, expected[n])} == {
        f"model.layers.{i}.{part}.weight"
        for i in (0, 1)
        for part in (
            *(f"self_attn.{x}_proj" for x in "qkvo"),
            *(f"mlp.{x}_proj" for x in ("gate", "up", "down")),
        )
    }


# The reference.


def test_the_reference_is_the_base_until_it_is_refreshed(folder):
    part = batch()
    policy = trained_policy(folder)
    base = make_policy(folder).frozen_logprobs(part, TEMPERATURE)
    now = policy.frozen_logprobs(part, TEMPERATURE)
    assert not torch.allclose(now, base, atol=1e-2)
    assert policy.reference is None
    assert torch.equal(policy.reference_logprobs(part, TEMPERATURE), base)
    assert torch.equal(policy.frozen_logprobs(part, TEMPERATURE), now)
    policy.refresh_reference()
    assert set(policy.reference) == set(policy.optimizer.masters)  # adapters, nothing else
    step(policy, part)
    assert torch.equal(policy.reference_logprobs(part, TEMPERATURE), now)
    assert not torch.equal(policy.frozen_logprobs(part, TEMPERATURE), now)


# Checkpoints.


@pytest.mark.parametrize("refreshed", [False, True])
def test_a_checkpoint_holds_adapters_and_continues_bit_for_bit(folder, tmp_path, refreshed):
    policy, part = make_policy(folder, "bfloat16", seed=4), batch()
    step(policy, part)
    if refreshed:
        policy.refresh_reference()
    step(policy, batch(seed=2))
    path = tmp_path / "round-000001"
    state = save_checkpoint(path, policy, RunState(round=1, updates=2))
    names = set(policy.optimizer.masters)
    assert set(load_file(path / "master.safetensors")) == names
    assert (path / "reference.safetensors").exists() == refreshed
    if refreshed:
        assert set(load_file(path / "reference.safetensors")) == names
    other = make_policy(folder, "bfloat16", seed=9)  # whatever was drawn, the checkpoint decides
    assert load_checkpoint(path, other) == state
    for each in (policy, other):
        step(each, batch(seed=3))
    assert_bitwise(other.optimizer.state(), policy.optimizer.state())
    assert_bitwise(other.published(), policy.published())
    assert torch.equal(
        other.reference_logprobs(part, TEMPERATURE), policy.reference_logprobs(part, TEMPERATURE)
    )


# The final folder.


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_final_folder_is_the_base_and_the_adapters(folder, tmp_path, dtype):
    policy = trained_policy(folder, dtype)
    before = {n: t.clone() for n, t in policy.model.state_dict().items()}
    policy.save_pretrained(tmp_path / "final")
    assert_bitwise(policy.model.state_dict(), before)
    assert json.loads((tmp_path / "final" / "config.json").read_text())["dtype"] == dtype
    base = {n: t.float() for n, t in policy.weights().items()}
    adapters = {n: t.float() for n, t in adapter_state(policy.model).items()}
    for name, merged in load_file(tmp_path / "final" / "model.safetensors").items():
        expected, layer = base[name], name.removesuffix(".weight")
        if f"{layer}.lora_A.weight" in adapters:
            expected = expected + (
                adapters[f"{layer}.lora_B.weight"] @ adapters[f"{layer}.lora_A.weight"]
            )
        assert torch.equal(merged, expected.to(merged.dtype)), name
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "final", dtype=torch.float32)
    ids = torch.arange(1, 20)[None]
    with torch.no_grad():
        gap = plain(ids).logits - policy.float32_copy()(ids).logits
    # Float32 keeps 24 bits of logits of about 10, bfloat16 eight bits of each merged weight.
    assert gap.abs().max() < (1e-4 if dtype == "float32" else 1.0)
    again = Policy(tmp_path / "final", PolicyConfig(dtype=dtype), OptimizerConfig())
    assert again.adapter is None


# What is refused.


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rank": -1}, "policy.lora.rank is -1: use 1 to 512, or 0 for full weights"),
        ({"rank": 600}, "policy.lora.rank is 600: use 1 to 512, or 0 for full weights"),
        (
            {"rank": 0, "target_modules": ("q_proj",)},
            "policy.lora.rank is 0, which trains the full",
        ),
        ({"rank": 0}, "policy.lora.rank is 0, which trains the full"),
        ({"alpha": 0.0}, "policy.lora.alpha is 0.0: use more than 0"),
        ({"alpha": float("nan")}, "policy.lora.alpha is nan: use more than 0"),
        ({"dropout": 0.1}, "policy.lora.dropout is 0.1: use 0, since dropout would train another"),
    ],
)
def test_settings_that_cannot_work(values, message):
    assert settings_fault(SETTINGS) is None
    assert settings_fault(LoraSettings()) is None
    assert settings_fault(replace(SETTINGS, **values)).startswith(message)


@pytest.mark.parametrize("wanted", [("q_proj", "qproj"), "qproj", ("lm_head",), ("embed_tokens",)])
def test_targets_that_are_not_there_are_named_with_some_that_are(folder, wanted):
    bad = wanted if isinstance(wanted, str) else wanted[-1]
    with pytest.raises(ValueError) as refused:
        adapter_size(folder, replace(SETTINGS, target_modules=wanted))
    assert str(refused.value) == (
        f"policy.lora.target_modules names {bad!r}, which is no linear layer of this model (its head "
        f"left out); it has {', '.join(LINEAR)}"
    )


@pytest.mark.parametrize(
    ("wanted", "count"),
    [("all-linear", 14), (("all-linear",), 14), ("q_proj", 2), (("q_proj", "v_proj"), 4),
     (("layers.1.self_attn.q_proj",), 1), (("mlp.up_proj", "o_proj"), 4)],
)  # fmt: skip
def test_targets_are_ends_of_names(folder, wanted, count):
    settings = replace(SETTINGS, target_modules=wanted)
    assert len(target_layers(llama(), settings)) == count
    policy = make_policy(folder, settings=settings)
    assert len(policy.optimizer.masters) == 2 * count


def test_a_target_is_no_part_of_a_word(folder):
    with pytest.raises(ValueError, match="names 'proj'"):
        adapter_size(folder, replace(SETTINGS, target_modules="proj"))
    with pytest.raises(ValueError, match="names ''"):
        adapter_size(folder, replace(SETTINGS, target_modules=()))
