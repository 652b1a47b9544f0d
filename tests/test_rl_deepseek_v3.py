"""DeepSeek-V3 in the trainer: router biases frozen in float32, gates in float32, experts unfused."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import linear
from transformers import AutoModelForCausalLM

from rl.checkpoint import RunState, load_checkpoint, save_checkpoint
from rl.lora import LoraSettings
from rl.objective import LossConfig
from rl.optimizer import OptimizerConfig
from rl.packing import Batch, PackingConfig, pack
from rl.policy import Policy, PolicyConfig
from rl.publish import saved_buffers
from rl.sharing import sharing_fault
from rl.update import update
from tests.expert_models import write_deepseek_v3
from tests.ranks_program import groups_of

BIASES = [f"model.layers.{layer}.mlp.gate.e_score_correction_bias" for layer in (1, 2)]
EXPERT = "model.layers.1.mlp.experts.3.gate_proj.weight"
FUSED = "model.layers.1.mlp.experts.gate_up_proj"
DTYPES = ["float32", "bfloat16"]
LORA = LoraSettings(rank=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_deepseek_v3(tmp_path_factory.mktemp("deepseek"))


@pytest.fixture(scope="module")
def saved(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def batch() -> Batch:
    return pack(groups_of(5, seed=4), PackingConfig(), keep_no_signal=False)


def make_policy(folder: Path, dtype: str, **fields) -> Policy:
    return Policy(folder, PolicyConfig(dtype=dtype, **fields), OptimizerConfig())


def trained(policy: Policy) -> Policy:
    """Three updates that move every matrix."""
    for _ in range(3):
        found = update(policy, batch(), LossConfig(), temperature=1.0, rate=1e-3)
        assert math.isfinite(found["update/gradient_norm"])
    return policy


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lora", [LoraSettings(), LORA], ids=["full", "lora"])
def test_the_router_bias_is_frozen_in_float32(folder, saved, tmp_path, dtype, lora):
    policy = make_policy(folder, dtype, lora=lora)
    before = {name: tensor.clone() for name, tensor in policy.weights().items()}
    trained(policy)
    state = policy.model.state_dict()
    for name in BIASES:
        assert state[name].dtype == torch.float32 and not state[name].requires_grad
        assert torch.equal(state[name], saved[name])
        assert torch.equal(policy.weights()[name], saved[name])
        assert policy.weights()[name].dtype == torch.float32
    assert not any("bias" in name for name in policy.optimizer.state())
    policy.save_pretrained(tmp_path)
    final = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(final[name], saved[name]) for name in BIASES)
    assert {final[name].dtype for name in BIASES} == {torch.float32}
    # All else was trained, or with adapters the layers that have one.
    still = {name for name in final if torch.equal(final[name].float(), before[name].float())}
    if lora.rank:
        assert EXPERT in still and "model.layers.1.self_attn.kv_b_proj.weight" not in still
    else:
        few = {name for name in still if ".experts." in name}  # an expert that no token visited
        assert still - few == set(BIASES) and len(few) < 12


@pytest.mark.parametrize("dtype", DTYPES)
def test_published_as_its_checkpoint(folder, saved, dtype):
    """Experts one by one, in the compute dtype; biases in float32."""
    weights = make_policy(folder, dtype).published()
    assert set(weights) == set(saved)
    assert EXPERT in weights and FUSED not in weights
    wanted = getattr(torch, dtype)
    for name, tensor in weights.items():
        assert tensor.dtype == (torch.float32 if name in BIASES else wanted), name
        assert torch.equal(tensor, saved[name].to(tensor.dtype)), name


def test_the_gate_computes_in_float32(folder):
    """Of bfloat16 states and weights: no logit is rounded."""
    policy = make_policy(folder, "bfloat16")
    gate, seen = policy.model.model.layers[1].mlp.gate, []
    gate.register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
    policy.frozen_logprobs(batch(), 1.0)
    ((states, (logits, weights, _)),) = seen
    assert gate.weight.dtype == states.dtype == torch.bfloat16
    assert logits.dtype == weights.dtype == torch.float32
    exact = linear(states.double().flatten(0, 1), gate.weight.double())
    assert (logits - exact).abs().max() < 1e-5 < (logits.bfloat16() - exact).abs().max()


def test_a_checkpoint_holds_the_biases(folder, saved, tmp_path):
    """A run goes on with the biases that it began with, whatever the model's folder holds now."""
    policy = trained(make_policy(folder, "bfloat16"))
    save_checkpoint(tmp_path / "round-000001", policy, RunState(round=1))
    kept = load_file(tmp_path / "round-000001" / "buffers.safetensors")
    assert set(kept) == set(BIASES)
    other = make_policy(folder, "bfloat16")
    for tensor in saved_buffers(other.model).values():
        tensor.zero_()
    load_checkpoint(tmp_path / "round-000001", other)
    for name, tensor in policy.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], tensor), name
    assert all(torch.equal(other.model.state_dict()[name], saved[name]) for name in BIASES)


def test_the_final_folder_loads_in_bfloat16_with_the_same_biases(folder, saved, tmp_path):
    trained(make_policy(folder, "bfloat16")).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).state_dict()
    assert loaded[FUSED].dtype == torch.bfloat16
    for name in BIASES:
        assert loaded[name].dtype == torch.float32 and torch.equal(loaded[name], saved[name])
    fields = json.loads((tmp_path / "config.json").read_text())
    assert (fields["topk_method"], fields["scoring_func"]) == ("noaux_tc", "sigmoid")


def test_completions_share_their_prompt(folder):
    """Latent attention and experts with biases that decide, on prompts and completions of its size."""
    policy = make_policy(folder, "float32")
    assert policy.packed
    assert sharing_fault(policy.float32_copy(), batch()) is None
    # And with the shared rows of a whole batch, against one sequence at a time.
    shared = policy.frozen_logprobs(batch(), 1.0)
    policy.unpack("the test asks for it")
    alone = policy.frozen_logprobs(batch(), 1.0)
    assert (shared - alone).abs().max() < 1e-5
    assert alone[batch().sampled].mean() < -4


def test_a_reference_with_other_biases_is_refused(folder, tmp_path):
    """It would be computed with the policy's."""
    policy = make_policy(folder, "bfloat16")
    policy.read_reference(folder)
    other = make_policy(folder, "bfloat16")
    other.model.model.layers[2].mlp.gate.e_score_correction_bias[5] += 1e-6
    other.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"loss.reference_model has another {BIASES[1]} than the"):
        policy.read_reference(tmp_path)


def test_no_auxiliary_loss_of_the_router(tmp_path, folder):
    """Not even where the checkpoint's config asks for the router's logits."""
    asking = write_deepseek_v3(tmp_path, output_router_logits=True, router_aux_loss_coef=0.5)
    found = []
    for each in (folder, asking):
        policy = make_policy(each, "float32")
        metrics = update(policy, batch(), LossConfig(), temperature=1.0, rate=1e-3)
        found.append((metrics["update/gradient_norm"], policy.optimizer.checksum()))
    assert found[0] == found[1]
