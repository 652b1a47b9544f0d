"""What is saved for the backward pass, kept in the host's memory: the same gradients."""

import pytest
import torch
from torch.autograd.graph import save_on_cpu

import rl.policy
from rl.optimizer import OptimizerConfig
from rl.packing import Batch
from rl.policy import Policy, PolicyConfig

TOKENS = 24


def batch():
    draw = torch.Generator().manual_seed(3)
    sampled = torch.arange(TOKENS) >= 4
    zeros = torch.zeros(TOKENS)
    return Batch(
        token_ids=torch.randint(3, 250, (TOKENS,), generator=draw),
        positions=torch.arange(TOKENS),
        segments=torch.zeros(TOKENS, 2, dtype=torch.int64),
        sampled=sampled,
        behaviour_logprobs=zeros,
        advantages=zeros,
        token_weights=zeros,
    )


def gradients(folder, monkeypatch, packed=True, **config):
    """Every gradient, and how many elements went through the hooks."""
    moved = []

    class Counted(save_on_cpu):
        def __init__(self, **settings):
            super().__init__(**settings)
            pack = self.pack_hook

            def counted(tensor):
                moved.append(tensor.numel())
                return pack(tensor)

            self.pack_hook = counted

    monkeypatch.setattr(rl.policy, "save_on_cpu", Counted)
    policy = Policy(
        folder, PolicyConfig(dtype="float32", compile=False, **config), OptimizerConfig()
    )
    if not packed:
        policy.unpack("the test asks for it")
    policy.logprobs(batch(), 1.0)[0].sum().backward()
    found = {name: master.grad.clone() for name, master in policy.optimizer.masters.items()}
    return found, sum(moved)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_offloaded_activations_give_the_same_gradients(
    tiny_model, monkeypatch, checkpointing, packed
):
    settings = {"gradient_checkpointing": checkpointing, "packed": packed}
    expected, none = gradients(tiny_model, monkeypatch, **settings)
    found, moved = gradients(tiny_model, monkeypatch, activation_offload=True, **settings)
    assert none == 0
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())
    assert any(gradient.abs().max() > 0 for gradient in expected.values())
    weights = sum(gradient.numel() for gradient in expected.values())
    if checkpointing:
        # Inputs of two layers of width 128, and what the first and last parts of the model save.
        assert 2 * TOKENS * 128 <= moved < weights / 4
    else:
        assert moved > weights / 2
