"""Adapters in the real vLLM: what is published computes, is proved, and leaves the base alone."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import StableLmConfig, StableLmForCausalLM

from rl.gate import compare_batch
from rl.lora import LoraSettings, adapter_size, random_adapter
from rl.optimizer import OptimizerConfig
from rl.packing import Batch
from rl.policy import Policy, PolicyConfig
from rollouts import adapters
from rollouts.adapters import AdapterShape, OneAdapter, adapted_layers, prove_adapter
from rollouts.engine import Engine, EngineError, adapter_fault
from rollouts.proof import Proof, WeightProofError
from rollouts.rollout import Completion, Request, Sampling

RANK = 3  # lies in a slot of 8
SETTINGS = LoraSettings(rank=RANK, alpha=5.0)
LAYER = "model.layers.1"
NUM_TENSORS = 28  # A and B of seven linear layers in two layers
BASE_TENSORS = 15


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def dtype(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def policy(tiny_model: Path, dtype: str) -> Policy:
    """With adapters that add a third of every layer's output."""
    policy = policy_of(tiny_model, dtype)
    with random_adapter(policy.model):
        random = {n: p.detach().clone() for n, p in policy.model.named_parameters()}
    for name, master in policy.optimizer.masters.items():
        if ".lora_B." in name:
            master.copy_(random[name].float() * RANK / 5.0)
    policy.optimizer.cast()
    return policy


@pytest.fixture(scope="module")
def held(make_engine, tiny_model: Path, dtype: str, policy: Policy) -> Engine:
    engine = make_engine(tiny_model, dtype, policy.adapter)
    assert engine.prove_base(policy.weights()) == Proof(
        num_checked=BASE_TENSORS, num_total=BASE_TENSORS, version=-1
    )
    return engine


@pytest.fixture
def engine(held: Engine, policy: Policy, monkeypatch) -> Engine:
    """With the policy's adapter honestly published, and its base proved after each test."""
    monkeypatch.undo()
    held.publish(policy.published().items(), held.version + 1)
    yield held
    monkeypatch.undo()
    held.prove_base(policy.weights())


def policy_of(folder: Path, dtype: str, settings: LoraSettings = SETTINGS) -> Policy:
    return Policy(folder, PolicyConfig(dtype=dtype, lora=settings), OptimizerConfig())


def make_requests(num: int = 16, max_tokens: int = 32) -> list[Request]:
    return [
        Request(
            id=f"{i}",
            token_ids=tuple(3 + byte for byte in f"What is {i} + 5?".encode()),
            sampling=Sampling(max_tokens=max_tokens),
            seed=i,
        )
        for i in range(num)
    ]


def sample(engine: Engine, requests: list[Request]) -> dict[str, Completion]:
    return {completion.request_id: completion for completion in engine.sample(requests)}


def tokens(completions: dict[str, Completion]) -> list[tuple[int, ...]]:
    return [completions[key].token_ids for key in sorted(completions)]


def batch_of(requests: list[Request], completions: dict[str, Completion]) -> Batch:
    """What was sampled, as the trainer takes it."""
    ids, sampled, logprobs, segments, positions = [], [], [], [], []
    for index, request in enumerate(requests):
        drawn = completions[request.id]
        row = [*request.token_ids, *drawn.token_ids]
        before = len(request.token_ids)
        ids += row
        positions += range(len(row))
        segments += [(index, 0)] * len(row)
        sampled += [False] * before + [True] * len(drawn.token_ids)
        logprobs += [0.0] * before + list(drawn.logprobs)
    zeros = torch.zeros(len(ids))
    return Batch(
        token_ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        segments=torch.tensor(segments),
        sampled=torch.tensor(sampled),
        behaviour_logprobs=torch.tensor(logprobs),
        advantages=zeros,
        token_weights=zeros,
    )


def change_layer(engine: Engine, name: str, change: Callable[[nn.Module], None]) -> None:
    engine._llm.apply_model(lambda model: change(model.get_submodule(name)))


# What it samples.


def test_logprobs_are_the_trainers(engine: Engine, policy: Policy, tiny_model: Path, dtype: str):
    requests = make_requests(32)
    completions = sample(engine, requests)
    assert {c.versions[0][0] for c in completions.values()} == {engine.version}
    batch = batch_of(requests, completions)
    report = compare_batch(policy, policy.float32_copy(), batch, 1.0)
    assert report.faults == ()
    gap = report.engine_to_trainer.mean
    # 24 bits of a logit of about 2, and 8: as without adapters (tests/test_rollouts_engine.py).
    assert gap < (1e-5 if dtype == "float32" else 0.08)
    # The base alone is far off: the adapter is what was sampled from.
    base = policy_of(tiny_model, dtype).frozen_logprobs(batch, 1.0)
    assert (base - batch.behaviour_logprobs)[batch.sampled].abs().mean() > 0.3


def test_a_new_adapter_samples_as_the_base_does(make_engine, tiny_model: Path, read_weights):
    plain, fresh = make_engine(tiny_model), policy_of(tiny_model, "float32")
    plain.publish(read_weights(tiny_model).items(), 0)
    engine = make_engine(tiny_model, "float32", fresh.adapter)
    engine.prove_base(fresh.weights())
    engine.publish(fresh.published().items(), 0)
    expected, found = (sample(each, make_requests()) for each in (plain, engine))
    assert tokens(found) == tokens(expected)


def test_a_publish_replaces_the_adapter(engine: Engine, policy: Policy):
    requests = make_requests()
    first = sample(engine, requests)
    changed = {n: t * 2 if "lora_B" in n else t for n, t in policy.published().items()}
    engine.publish(changed.items(), engine.version + 1)
    second = sample(engine, requests)
    assert tokens(second) != tokens(first)
    assert len(engine._core.list_loras()) == 1
    engine.publish(policy.published().items(), engine.version + 1)
    assert tokens(sample(engine, requests)) == tokens(first)


def test_the_prefix_cache_does_not_outlive_a_publish(engine: Engine, policy: Policy):
    """Even under the same version, whose name and so whose cached blocks would be the same."""
    prompt = tuple(3 + i % 200 for i in range(200))

    def once() -> Completion:
        request = Request(id="a", token_ids=prompt, sampling=Sampling(max_tokens=8), seed=1)
        (completion,) = engine.sample([request])
        return completion

    changed = {n: t * 2 if "v_proj.lora_B" in n else t for n, t in policy.published().items()}
    before = once()
    engine.publish(changed.items(), engine.version)
    cached = once()
    engine.reset_prefix_cache()
    computed = once()
    assert cached.token_ids == computed.token_ids
    assert cached.logprobs == pytest.approx(computed.logprobs, abs=1e-5)
    assert before.logprobs != pytest.approx(computed.logprobs, abs=1e-2)


def test_a_hundred_publishes_leave_the_base_as_it_was(engine: Engine, policy: Policy):
    def parameters() -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        engine._llm.apply_model(
            lambda model: found.update({n: p.clone() for n, p in model.named_parameters()})
        )
        return found

    requests = make_requests(4)
    first, before, version = sample(engine, requests), parameters(), engine.version
    draw = torch.Generator().manual_seed(2)
    for count in range(1, 100):
        moved = {
            n: (t + torch.randn(t.shape, generator=draw) * 0.1).to(t.dtype)
            for n, t in policy.published().items()
        }
        proof = engine.publish(moved.items(), version + count)
        assert proof == Proof(
            num_checked=NUM_TENSORS, num_total=NUM_TENSORS, version=version + count
        )
    assert tokens(sample(engine, requests)) != tokens(first)
    engine.publish(policy.published().items(), version + 100)
    after = parameters()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert engine.prove_base(policy.weights()).num_checked == BASE_TENSORS
    again = sample(engine, requests)
    assert tokens(again) == tokens(first)
    assert [again[key].logprobs for key in first] == [c.logprobs for c in first.values()]
    assert len(engine._core.list_loras()) == 1


def test_no_folder_is_left_behind(engine: Engine, policy: Policy, tmp_path, monkeypatch):
    monkeypatch.setattr(adapters, "SHARED_MEMORY", tmp_path)
    seen = []
    add = engine._core.add_lora
    monkeypatch.setattr(
        engine._core, "add_lora", lambda r: seen.extend(Path(r.lora_path).iterdir()) or add(r)
    )
    engine.publish(policy.published().items(), engine.version + 1)
    assert {path.name for path in seen} == {"adapter_config.json", "adapter_model.safetensors"}
    assert all(tmp_path in path.parents for path in seen)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(EngineError, match="refused version"):
        engine.publish([("nonsense.weight", torch.ones(1))], engine.version + 1)
    assert list(tmp_path.iterdir()) == []


# The proof.


@pytest.mark.parametrize(
    ("layer", "pieces"),
    [
        ("self_attn.qkv_proj", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
        ("self_attn.o_proj", ("self_attn.o_proj",)),
        ("mlp.gate_up_proj", ("mlp.gate_proj", "mlp.up_proj")),
        ("mlp.down_proj", ("mlp.down_proj",)),
    ],
)
@pytest.mark.parametrize("kind", ["a", "b"])
def test_one_element_of_any_piece(engine: Engine, policy: Policy, layer: str, pieces, kind: str):
    """By the smallest step, in the last rank that is published; the name is that of the piece."""
    for index, piece in enumerate(pieces):
        engine.prove(policy.published())

        def change(module: nn.Module, index: int = index) -> None:
            slot = getattr(module, f"lora_{kind}_stacked")[index][0, 0]
            place = (RANK - 1, 5) if kind == "a" else (5, RANK - 1)
            slot[place] = torch.nextafter(slot[place], torch.tensor(9.0, dtype=slot.dtype))

        change_layer(engine, f"{LAYER}.{layer}", change)
        with pytest.raises(WeightProofError) as caught:
            engine.prove(policy.published())
        name = f"{LAYER}.{piece}.lora_{kind.upper()}.weight: 1 of "
        assert str(caught.value).startswith(name)
        engine.publish(policy.published().items(), engine.version + 1)


@pytest.mark.parametrize("kind", ["a", "b"])
def test_what_lies_beyond_the_rank_is_zero(engine: Engine, policy: Policy, kind: str):
    def change(module: nn.Module) -> None:
        slot = getattr(module, f"lora_{kind}_stacked")[1][0, 0]
        assert max(slot.shape) > 8 == min(slot.shape)  # vLLM's slot for ranks to 8
        slot[(RANK, 0) if kind == "a" else (0, RANK)] = 1e-3

    change_layer(engine, f"{LAYER}.mlp.gate_up_proj", change)
    with pytest.raises(WeightProofError, match=rf"{LAYER}\.mlp\.up_proj\.lora_{kind.upper()}"):
        engine.prove(policy.published())


def test_a_layer_of_which_nothing_was_published_must_hold_nothing(make_engine, tiny_model):
    """Of a packed layer with one adapted piece, the others' slots are zero."""
    policy = policy_of(tiny_model, "float32", replace(SETTINGS, target_modules=("q_proj",)))
    engine = make_engine(tiny_model, "float32", policy.adapter)
    engine.prove_base(policy.weights())
    with random_adapter(policy.model):
        published = {n: t.clone() for n, t in policy.published().items()}
    assert engine.publish(published.items(), 0).num_checked == 4
    change_layer(
        engine, f"{LAYER}.self_attn.qkv_proj", lambda m: m.lora_b_stacked[2][0, 0, 0, 0].fill_(1)
    )
    with pytest.raises(
        WeightProofError, match=rf"{LAYER}\.self_attn\.v_proj\.lora_B\.weight: 1 of"
    ):
        engine.prove(published)


def test_an_adapter_that_never_arrived(engine: Engine, policy: Policy, monkeypatch):
    monkeypatch.setattr(engine._core, "add_lora", lambda request: True)
    with pytest.raises(
        WeightProofError, match=r"the engine's adapters are \[None\], published was"
    ):
        engine.publish(policy.published().items(), engine.version + 1)


def test_an_adapter_that_was_kept(engine: Engine, policy: Policy, monkeypatch):
    monkeypatch.setattr(engine._core, "add_lora", lambda request: True)
    monkeypatch.setattr(engine._core, "remove_lora", lambda adapter: True)
    with pytest.raises(WeightProofError, match=r"the engine's adapters are \[\d+\], published was"):
        engine.publish(policy.published().items(), engine.version + 1)


def test_a_factor_that_the_engine_applies_itself(engine: Engine, policy: Policy, monkeypatch):
    def doubled(request):
        path = Path(request.lora_path) / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "lora_alpha": 2 * RANK}))
        return add(request)

    add = engine._core.add_lora
    monkeypatch.setattr(engine._core, "add_lora", doubled)
    with pytest.raises(WeightProofError, match=r"q_proj\.lora_B\.weight: \d+ of \d+ elements"):
        engine.publish(policy.published().items(), engine.version + 1)


def test_a_tensor_missing_on_the_way(engine: Engine, policy: Policy, monkeypatch):
    name = f"{LAYER}.mlp.up_proj.lora_B.weight"
    published = policy.published()
    save = adapters.save_file

    def lossy(tensors, path):
        save({n: t for n, t in tensors.items() if not n.endswith("1.mlp.up_proj.lora_B.weight")
              and not n.endswith("1.mlp.up_proj.lora_A.weight")}, path)  # fmt: skip

    monkeypatch.setattr(adapters, "save_file", lossy)
    with pytest.raises(WeightProofError, match=name.replace("lora_B", "lora_A")):
        engine.publish(published.items(), engine.version + 1)


def test_a_layer_that_the_engine_does_not_adapt(engine: Engine, policy: Policy):
    model = SimpleNamespace(
        named_modules=lambda: [], lora_manager=SimpleNamespace(lora_index_to_id=[7])
    )
    published = {"layers.0.q_proj.lora_A.weight": torch.ones(1, 1)}
    with pytest.raises(
        WeightProofError, match=r"layers\.0\.q_proj\.lora_A\.weight was published, but"
    ):
        prove_adapter(model, published, 7)


@pytest.mark.parametrize("name", ["self_attn.k_proj", "mlp.down_proj"])
def test_another_base_is_seen(engine: Engine, policy: Policy, name: str):
    weights = dict(policy.weights())
    weights[f"{LAYER}.{name}.weight"] = weights[f"{LAYER}.{name}.weight"].flip(0)
    with pytest.raises(
        WeightProofError, match=rf"{LAYER}\.(self_attn\.qkv|mlp\.down)_proj\.weight"
    ):
        engine.prove_base(weights)


def test_an_adapter_on_an_unproved_base_is_not_taken(make_engine, tiny_model: Path):
    policy = policy_of(tiny_model, "float32")
    engine = make_engine(tiny_model, "float32", policy.adapter)
    with pytest.raises(AssertionError, match="prove_base first"):
        engine.publish(policy.published().items(), 0)


# The kernel.


def test_the_kernel_gives_what_vllms_own_gives(engine: Engine, policy: Policy, dtype: str):
    """Sampled again by vLLM's, which gathers A and B for every token: the same to rounding."""
    kernels = []
    engine._llm.apply_model(
        lambda model: kernels.extend((m, m.punica_wrapper) for _, m in adapted_layers(model))
    )
    assert len(kernels) == 8 and all(type(kernel) is OneAdapter for _, kernel in kernels)
    requests = make_requests(32, max_tokens=16)
    ours = batch_of(requests, sample(engine, requests)).behaviour_logprobs
    for module, kernel in kernels:
        module.set_mapping(kernel._wrapper)
    try:
        engine.reset_prefix_cache()
        theirs = batch_of(requests, sample(engine, requests)).behaviour_logprobs
    finally:
        for module, kernel in kernels:
            module.set_mapping(kernel)
    if dtype == "float32":
        assert torch.allclose(ours, theirs, atol=1e-4)
    elif len(ours) == len(theirs):  # other rounding may draw another token
        assert (ours - theirs).abs().mean() < 0.2


def test_tokens_of_several_adapters_are_left_to_vllm():
    asked = []
    wrapper = SimpleNamespace(
        no_lora=False, batch_size=2, add_lora_linear=lambda *given, **named: asked.append(given)
    )
    a, b = torch.ones(1, 1, 2, 3), torch.ones(1, 1, 4, 2)
    y = torch.zeros(5, 4)
    kernel = OneAdapter(wrapper)
    kernel.add_lora_linear(y, torch.ones(5, 3), (a,), (b,), 1.0, (4,))
    assert len(asked) == 1 and not y.any()
    wrapper.batch_size = 1
    kernel.add_lora_linear(y, torch.ones(5, 3), (a,), (b,), 1.0, (4,))
    assert len(asked) == 1 and torch.equal(y, torch.full((5, 4), 6.0))  # 3 ones by A, twice by B
    kernel.add_lora_linear(y, torch.ones(5, 3), (a,), (b,), 2.0, (4,))
    assert len(asked) == 2
    wrapper.no_lora = True
    kernel.add_lora_linear(y, torch.ones(5, 3), (a,), (b,), 1.0, (4,))
    assert len(asked) == 2 and torch.equal(y, torch.full((5, 4), 6.0))


# What can be adapted.


@pytest.mark.parametrize(("rank", "slot"), [(1, 1), (2, 8), (8, 8), (9, 16), (65, 128), (512, 512)])
def test_a_rank_lies_in_the_next_slot(rank: int, slot: int):
    settings = AdapterShape(rank=rank, layers=("v_proj", "q_proj")).settings
    assert (settings["max_lora_rank"], settings["lora_target_modules"]) == (
        slot,
        ["q_proj", "v_proj"],
    )


def test_a_model_that_vllm_cannot_adapt_is_named(tiny_model: Path, tmp_path: Path):
    assert adapter_fault(tiny_model, "bfloat16") is None
    sizes = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 32}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    StableLmForCausalLM(StableLmConfig(**sizes, **heads)).save_pretrained(tmp_path)
    assert adapter_size(tmp_path, SETTINGS) > 0  # the trainer could
    assert adapter_fault(tmp_path, "bfloat16") == (
        "vLLM cannot apply adapters to StableLmForCausalLM: train its full weights"
    )
