import json

import torch

from rl.checkpoint import RunState, checkpoint_bytes, load_checkpoint, save_checkpoint
from rl.optimizer import OptimizerConfig
from rl.policy import Policy, PolicyConfig


def policy_of(folder, dtype="bfloat16"):
    return Policy(folder, PolicyConfig(dtype=dtype), OptimizerConfig(learning_rate=1e-3))


def train_a_little(policy, seed):
    generator = torch.Generator().manual_seed(seed)
    for master in policy.optimizer.masters.values():
        master.grad.add_(torch.randn(master.shape, generator=generator))
    policy.optimizer.step(1e-3)


def test_a_checkpoint_continues_bit_for_bit(tiny_model, tmp_path):
    policy = policy_of(tiny_model)
    policy.refresh_reference()
    train_a_little(policy, seed=1)
    state = RunState(round=3, updates=12, drawn={"arithmetic": 24})
    saved = save_checkpoint(tmp_path / "round-000003", policy, state)
    other = policy_of(tiny_model)
    assert load_checkpoint(tmp_path / "round-000003", other) == saved
    assert saved.round == 3 and saved.drawn == {"arithmetic": 24}
    for each in (policy, other):
        train_a_little(each, seed=2)
    for name, tensor in policy.optimizer.state().items():
        assert torch.equal(tensor, other.optimizer.state()[name]), name
    for name, tensor in policy.published().items():
        assert torch.equal(tensor, other.published()[name]), name
    assert all(torch.equal(t, other.reference[n]) for n, t in policy.reference.items())


def test_the_hash_is_that_of_the_masters(tiny_model, tmp_path):
    policy = policy_of(tiny_model)
    first = save_checkpoint(tmp_path / "a", policy, RunState())
    again = save_checkpoint(tmp_path / "b", policy, RunState(round=9))
    assert first.masters_sha256 == again.masters_sha256
    next(iter(policy.optimizer.masters.values())).view(-1)[0] += 1e-6
    changed = save_checkpoint(tmp_path / "c", policy, RunState())
    assert changed.masters_sha256 != first.masters_sha256
    stored = json.loads((tmp_path / "c" / "state.json").read_text())
    assert stored["masters_sha256"] == changed.masters_sha256


def test_published_weights_are_the_saved_ones_and_the_tied_head(tiny_model, tmp_path):
    from safetensors.torch import load_file

    policy = policy_of(tiny_model)
    policy.save_pretrained(tmp_path / "final")
    saved = load_file(tmp_path / "final" / "model.safetensors")
    published = policy.published()
    assert set(published) - set(saved) == {"lm_head.weight"}
    assert torch.equal(published["lm_head.weight"], saved["model.embed_tokens.weight"])
    assert all(torch.equal(published[name], tensor) for name, tensor in saved.items())


def test_size_of_a_checkpoint():
    # Masters and two moments: 12 bytes a parameter; a bfloat16 reference: 2 more.
    assert checkpoint_bytes(135_000_000, reference=False, itemsize=2) == 1_620_000_000
    assert checkpoint_bytes(135_000_000, reference=True, itemsize=2) == 1_890_000_000
