"""DeepSeek-V3 in the real engine: it computes what transformers does, and only with its cures.

Each cure is switched off in turn, and the fault that it is for then shows.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import rollouts.cures
import rollouts.engine
from rl.publish import CheckpointWeights
from rollouts.cures import Cures, cures_for
from rollouts.engine import Engine
from rollouts.exchange import EngineError
from rollouts.proof import WeightProofError
from rollouts.rollout import Request, Sampling
from rollouts.sampler import EngineConfig
from tests.expert_models import write_deepseek_v3, write_qwen3_moe

NUM_TENSORS = 51
"""Embedding, head, last norm; a layer: 4 norms, qkv_a, q_b, kv_b, o, W_UK_T, W_UV (10); dense: 2; of
experts: 2 shared, w13, w2, gate, and the bias in gate, experts and router (8). 3 + 30 + 2 + 16."""
EXPERTS = "model.layers.1.mlp.experts.routed_experts"
ATTENTION = "model.layers.1.self_attn.mla_attn.mla_attn"
BIAS = "e_score_correction_bias"
PLAIN = EngineConfig()
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
"""As the real checkpoint's, shortened to sequences of this test."""
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the faults are the CPU's")


@pytest.fixture(scope="module", autouse=True)
def expert_group():
    """vLLM makes the groups of a process with its first engine, one for experts if that has some.

    In these tests the first may have none; of one process all groups are alike.
    """
    from vllm.distributed import parallel_state

    if parallel_state._TP is not None and parallel_state._EP is None:
        parallel_state._EP = parallel_state._TP


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_deepseek_v3(tmp_path_factory.mktemp("deepseek"))


@pytest.fixture(scope="module")
def cured(folder: Path, make_engine) -> Engine:
    return make_engine(folder)


@pytest.fixture
def without(folder: Path, make_engine, monkeypatch) -> Callable[..., Engine]:
    """Builds an engine with some cures switched off."""

    def build(*names: str, dtype: str = "float32", folder: Path = folder) -> Engine:
        def fewer(*given: Any) -> Cures:
            return replace(cures_for(*given), **dict.fromkeys(names, False))

        monkeypatch.setattr(rollouts.engine, "cures_for", fewer)
        return make_engine(folder, dtype)

    return build


def angles(base: float) -> dict:
    """A test's own: vLLM keeps rotations by their angles for a process, uncured or broken ones too."""
    return {"rope_parameters": {"rope_type": "default", "rope_theta": base}}


def reference(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def weights_of(model: torch.nn.Module, dtype: torch.dtype = torch.float32) -> CheckpointWeights:
    state = {
        name: tensor.detach() if BIAS in name else tensor.detach().to(dtype)
        for name, tensor in model.state_dict().items()
    }
    return CheckpointWeights(model, state)


@torch.no_grad()
def moved(model: torch.nn.Module) -> torch.nn.Module:
    """Every parameter changed by a third of its size, as by many updates."""
    draw = torch.Generator().manual_seed(7)
    for param in model.parameters():
        param.add_(param.std() / 3 * torch.randn(param.shape, generator=draw))
    return model


@torch.no_grad()
def gap(engine: Engine, model: torch.nn.Module) -> tuple[float, float]:
    """Mean and largest |difference| of token logprobs; 8 prompts of 46 or 47 tokens, 16 drawn."""
    requests = [
        Request(
            id=str(i),
            token_ids=tuple(3 + b for b in f"What is {i} plus {7 * i}? Think first, then answer it.".encode()),
            sampling=Sampling(max_tokens=16),
            seed=i,
            min_version=-1,
        )
        for i in range(8)
    ]  # fmt: skip
    assert min(len(request.token_ids) for request in requests) >= 40
    drawn = {completion.request_id: completion for completion in engine.sample(requests)}
    differences, likely = [], []
    for request in requests:
        ids = drawn[request.id].token_ids
        logits = model(torch.tensor([request.token_ids + ids])).logits[0]
        wanted = logits[len(request.token_ids) - 1 : -1].log_softmax(-1)[range(len(ids)), list(ids)]
        differences.append((torch.tensor(drawn[request.id].logprobs) - wanted).abs())
        likely += drawn[request.id].logprobs
    assert sum(likely) / len(likely) > -4  # far from uniform, -5.56, where a fault would not show
    every = torch.cat(differences)
    return every.mean().item(), every.max().item()


# What it computes.


@pytest.mark.parametrize(
    "fields",
    [{}, {"rope_parameters": YARN}, {"moe_intermediate_size": 48}, {"q_lora_rank": None}],
    ids=["plain", "yarn", "padded experts", "whole queries"],
)
def test_it_agrees_with_transformers_before_and_after_two_publishes(
    fields: dict, tmp_path: Path, make_engine
):
    folder = write_deepseek_v3(tmp_path, **fields)
    engine, model = make_engine(folder), reference(folder)
    first = gap(engine, model)
    assert first[1] < 1e-4
    for version in (1, 2):
        assert gap(engine, moved(model))[0] > 0.1  # the engine's are the old ones
        proof = engine.publish(weights_of(model), version)
        assert gap(engine, model)[1] < 1e-4
        # Whole queries: q_proj and kv_a in place of qkv_a and q_b, and a norm less in each layer.
        total = NUM_TENSORS - 3 if "q_lora_rank" in fields else NUM_TENSORS
        assert (proof.num_checked, proof.num_total) == (
            total if version == 1 else -(-total // 4),
            total,
        )
        engine.prove(weights_of(model), whole=True)


def test_experts_behind_plain_attention(tmp_path: Path, make_engine):
    """Qwen3's: the same cure, the same proof."""
    folder = write_qwen3_moe(tmp_path)
    engine, model = make_engine(folder), reference(folder)
    for version in (1, 2):
        engine.publish(weights_of(moved(model)), version)
        assert gap(engine, model)[1] < 1e-4
    assert engine.prove(weights_of(model), whole=True).num_checked == 21  # 3 + 2 x (4 norms, 5)


def test_in_bfloat16_it_is_off_by_rounding(folder: Path, make_engine):
    """Measured: mean 0.011 and 0.014, largest 0.05 and 0.52: there another expert won by a rounding."""
    engine, model = make_engine(folder, "bfloat16"), reference(folder)
    for version in (1, 2):
        engine.publish(weights_of(model, torch.bfloat16), version)
        rounded = reference(folder)
        rounded.load_state_dict(
            {n: t if BIAS in n else t.bfloat16().float() for n, t in model.state_dict().items()}
        )
        mean, largest = gap(engine, rounded)
        assert mean < 0.03 and largest < 1.5
        moved(model)


# What each cure is for.


def test_without_the_rotation_cure(without, monkeypatch, tmp_path: Path):
    folder = write_deepseek_v3(tmp_path, **angles(20_000.0))
    with pytest.raises(EngineError, match=r"vLLM 0\.32\.\d.*rotates the queries of latent attent"):
        without("rotation", folder=folder)
    monkeypatch.setattr(rollouts.cures, "rotation_fault", lambda model: None)
    assert gap(without("rotation", folder=folder), reference(folder))[0] > 0.02


def test_without_the_experts_cure(without, folder: Path):
    engine, model = without("experts"), reference(folder)
    assert gap(engine, model)[1] < 1e-4  # a load packs them
    with pytest.raises(WeightProofError, match=rf"{EXPERTS}.w13_weight: \d+ of 16384 elements"):
        engine.publish(weights_of(model), 1)
    assert gap(engine, model)[0] > 0.1


@pytest.mark.skipif(not torch.cpu._is_amx_tile_supported(), reason="the fault is AMX's")
def test_without_the_attention_cure(without, tmp_path: Path):
    folder = write_deepseek_v3(tmp_path, **angles(30_000.0))
    with pytest.raises(RuntimeError, match="expect weight to be bfloat16"):
        without("attention", folder=folder)
    engine = without("attention", dtype="bfloat16", folder=folder)
    with pytest.raises(
        EngineError, match="the engine refused version 1: RuntimeError: The size of "
    ):
        engine.publish(weights_of(reference(folder), torch.bfloat16), 1)


def test_without_the_gates_cure(without, make_engine, folder: Path):
    """The same states choose the same experts as in the trainer; without 5 of 4,096 choose others."""
    router = reference(folder).model.layers[1].mlp.gate
    router.weight.data = router.weight.data.bfloat16()
    draw = torch.Generator().manual_seed(3)
    states = torch.randn(4096, 128, generator=draw).bfloat16()
    logits, weights, chosen = router(states)

    def routed(model: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        block = model.model.layers[1].mlp
        found = block.gate(states)[0]
        return found, *block.experts.router.select_experts(states, found)

    engines = {
        "with": make_engine(folder, "bfloat16"),
        "without": without("gates", dtype="bfloat16"),
    }
    moved_share = {}
    for name, engine in engines.items():
        for _ in range(2):  # after a load, and after a reload
            found, shares, experts = engine._llm.apply_model(routed)[0]
            same = (experts.sort(-1).values == chosen.sort(-1).values).all(-1)
            moved_share[name] = 1 - same.float().mean().item()
            off = (found.float() - logits).abs().max().item()
            assert off < 1e-5 if name == "with" else off > 1e-3
            if name == "with":
                scaled = 2.5 * shares.sort(-1).values  # the engine scales what the experts give
                assert torch.allclose(scaled, weights.sort(-1).values, atol=1e-5)
            engine.publish(weights_of(reference(folder), torch.bfloat16), 1)
    assert moved_share["with"] == 0
    assert moved_share["without"] > 0, moved_share


# Where they are applied.


def test_cures_are_for_the_version_and_the_model_that_need_them(
    folder: Path, tiny_model: Path, caplog, monkeypatch
):
    every = Cures(attention=True, rotation=True, experts=True, gates=True)
    assert cures_for("0.32.0", folder, PLAIN) == cures_for("0.32.1+cpu", folder, PLAIN) == every
    assert cures_for("0.32.0", tiny_model, PLAIN) == Cures(experts=True)
    assert cures_for("0.32.0", tiny_model, PLAIN).settings == {}
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        assert cures_for("0.32.0", folder, PLAIN) == Cures(gates=True)
        assert cures_for("0.32.0", tiny_model, PLAIN) == Cures()
    assert not caplog.records
    for version in ("0.31.2", "0.33.0", "0.320.0"):
        caplog.clear()
        assert cures_for(version, folder, PLAIN) == Cures()
        assert f"vLLM {version}: what 0.32.x computes wrongly" in caplog.text
        assert cures_for(version, tiny_model, PLAIN) == Cures()
        assert len(caplog.records) == 1


def test_a_compiled_engine_would_round_in_its_routers(folder: Path, tiny_model: Path):
    """vLLM compiles while it loads: what routers multiply by cannot be replaced after."""
    compiled = EngineConfig(compile=True)
    with pytest.raises(ValueError, match=r"engine.compile with latent attention in bfloat16 on"):
        cures_for("0.32.0", folder, compiled)
    assert cures_for("0.32.0", folder, replace(compiled, dtype="float32")).gates
    assert cures_for("0.32.0", tiny_model, compiled) == Cures(experts=True)


def test_an_uncured_engine_of_another_version_is_refused(tmp_path, make_engine, monkeypatch):
    """With AMX the other attention speaks first."""
    monkeypatch.setattr(rollouts.engine, "__version__", "0.33.0")
    folder = write_deepseek_v3(tmp_path, **angles(40_000.0))
    with pytest.raises((EngineError, RuntimeError), match=r"rotates the queries|expect weight"):
        make_engine(folder)


# What the proof sees.


def spoil(name: str) -> Callable[[torch.nn.Module], None]:
    """Move one element of an attribute of a module to the next number."""
    place, _, own = name.rpartition(".")

    def change(model: torch.nn.Module) -> None:
        holder = model
        for part in place.split("."):
            holder = getattr(holder, part)
        tensor = getattr(holder, own).data.clone()
        first = (0,) * tensor.ndim
        tensor[first] = torch.nextafter(tensor[first], torch.tensor(torch.inf))
        setattr(holder, own, torch.nn.Parameter(tensor, requires_grad=False))

    return change


@pytest.mark.parametrize(
    "name",
    [
        f"{ATTENTION}.W_UK_T",
        f"{ATTENTION}.W_UV",
        "model.layers.1.self_attn.kv_b_proj.weight",
        f"{EXPERTS}.w13_weight",
        f"{EXPERTS}.w2_weight",
        f"{EXPERTS}.{BIAS}",
        f"model.layers.1.mlp.gate.{BIAS}",
        f"model.layers.1.mlp.experts.router.{BIAS}",
    ],
)
def test_one_number_of_what_it_computes_with_is_seen(cured: Engine, folder: Path, name: str):
    weights = weights_of(reference(folder))
    cured.publish(weights, cured.version + 1)
    cured.prove(weights, whole=True)
    held: list[torch.nn.Parameter] = []
    place, _, own = name.rpartition(".")

    def keep(model: torch.nn.Module) -> None:
        for part in place.split("."):
            model = getattr(model, part)
        held.extend((model, getattr(model, own)))

    cured._llm.apply_model(keep)
    cured._llm.apply_model(spoil(name))
    try:
        with pytest.raises(WeightProofError, match=rf"^{name}: 1 of \d+ elements differ"):
            cured.prove(weights, whole=True)
    finally:
        setattr(held[0], own, held[1])
    cured.prove(weights, whole=True)


def test_a_rounded_bias_is_seen(cured: Engine, folder: Path):
    """Even one that was rounded on its way, so that both sides hold the same numbers."""
    model = reference(folder)
    weights = {n: t.bfloat16().float() if BIAS in n else t for n, t in weights_of(model).items()}
    cured.publish(weights, cured.version + 1)

    def round_it(module: torch.nn.Module) -> None:
        router = module.model.layers[1].mlp.experts.router
        router.e_score_correction_bias = router.e_score_correction_bias.data.bfloat16()

    router = cured._llm.apply_model(lambda m: m.model.layers[1].mlp.experts.router)[0]
    whole = router.e_score_correction_bias
    cured._llm.apply_model(round_it)
    with pytest.raises(
        WeightProofError, match=f"router.{BIAS}: the engine holds torch.bfloat16, p"
    ):
        cured.prove(weights, whole=True)
    router.e_score_correction_bias = whole
    cured.prove(weights, whole=True)


def test_a_changed_bias_arrives_everywhere(cured: Engine, folder: Path):
    """It is frozen in training; another checkpoint has another one."""
    model = reference(folder)
    for name, buffer in model.named_buffers():
        if BIAS in name:
            buffer.mul_(-1)
    assert gap(cured, model)[0] > 0.1
    cured.publish(weights_of(model), cured.version + 1)
    cured.prove(weights_of(model), whole=True)
    assert gap(cured, model)[1] < 1e-4
