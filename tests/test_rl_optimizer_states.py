"""float16 with loss scaling, bfloat16 states, masters in the host's memory."""

import math

import pytest
import torch
from torch import nn

import rl.optimizer
from rl.optimizer import FIRST_SCALE, MasterOptimizer, NonFiniteGradientError, OptimizerConfig


def one_weight(value, dtype, **config):
    model = nn.Module()
    model.weight = nn.Parameter(torch.tensor([value]))
    return model, MasterOptimizer(model, OptimizerConfig(**config), dtype)


def backward(model, optimizer, gradient):
    """What `update` does: the loss times the scale."""
    ((model.weight.float() * gradient).sum() * optimizer.loss_scale).backward()


def test_float16_keeps_gradients_that_would_be_lost():
    # 1e-8 is below float16's smallest number, 6e-8; times 65,536 it is 6.6e-4.
    model, optimizer = one_weight(1.0, torch.float16, max_grad_norm=1e9)
    assert optimizer.loss_scale == FIRST_SCALE == 65_536
    backward(model, optimizer, 1e-8)
    assert optimizer.step(0.1) == pytest.approx(1e-8, rel=1e-3)
    # Adam's first step is the learning rate, whatever the gradient's size above epsilon 1e-8:
    # 1e-8 / (1e-8 + 1e-8) = 1/2 of it.
    assert optimizer.masters["weight"].item() == pytest.approx(0.95, abs=1e-3)


def test_the_scale_leaves_no_trace_in_the_step():
    found = []
    for scale in (1.0, 1024.0):
        model, optimizer = one_weight(1.0, torch.float32, weight_decay=0.1, max_grad_norm=0.5)
        optimizer.loss_scale = scale
        backward(model, optimizer, 3.0)
        found.append((optimizer.step(0.1), optimizer.masters["weight"].item()))
    assert found[0] == found[1]
    assert found[0][0] == 3.0


def test_an_overflow_halves_the_scale_and_skips_the_step():
    model, optimizer = one_weight(1.0, torch.float16)
    backward(model, optimizer, 2.0)  # 131,072 is above float16's largest number, 65,504
    assert math.isinf(optimizer.step(0.1))
    assert optimizer.loss_scale == FIRST_SCALE / 2
    assert model.weight.item() == 1.0 and "exp_avg/weight" not in optimizer.state()
    backward(model, optimizer, 2.0)
    assert math.isinf(optimizer.step(0.1))  # 65,536
    backward(model, optimizer, 2.0)
    assert optimizer.step(0.1) == pytest.approx(2.0)
    assert model.weight.item() == pytest.approx(0.9, abs=1e-3)


def test_what_no_scale_helps_is_an_error():
    model, optimizer = one_weight(1.0, torch.float16)
    optimizer.loss_scale = 1.0
    backward(model, optimizer, math.nan)
    with pytest.raises(NonFiniteGradientError, match="norm is nan"):
        optimizer.step(0.1)


def test_good_steps_double_the_scale(monkeypatch):
    monkeypatch.setattr(rl.optimizer, "GROW_EVERY", 2)
    model, optimizer = one_weight(1.0, torch.float16)
    optimizer.loss_scale = 8.0
    scales = []
    for _ in range(5):
        backward(model, optimizer, 1.0)
        optimizer.step(0.01)
        scales.append(optimizer.loss_scale)
    assert scales == [8.0, 16.0, 16.0, 32.0, 32.0]


def test_the_scale_survives_a_checkpoint():
    model, optimizer = one_weight(1.0, torch.float16)
    optimizer.loss_scale = 64.0
    backward(model, optimizer, 1.0)
    optimizer.step(0.01)
    _, resumed = one_weight(5.0, torch.float16)
    resumed.load({name: tensor.clone() for name, tensor in optimizer.state().items()})
    assert (resumed.loss_scale, resumed._good_steps) == (64.0, 1)
    assert resumed.masters["weight"].item() == optimizer.masters["weight"].item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_scale_but_in_float16(dtype):
    _, optimizer = one_weight(1.0, dtype)
    assert optimizer.loss_scale == 1.0
    assert not any("scale" in name for name in optimizer.state())


def test_bfloat16_states_are_adamw_on_the_model_itself():
    model, optimizer = one_weight(1.0, torch.bfloat16, states="bfloat16", weight_decay=0.1)
    other = nn.Parameter(torch.tensor([1.0], dtype=torch.bfloat16))
    adamw = torch.optim.AdamW([other], weight_decay=0.1, fused=True)
    for gradient in (0.5, -0.25, 0.75):
        backward(model, optimizer, gradient)
        optimizer.step(0.01)
        other.grad = torch.tensor([gradient], dtype=torch.bfloat16)
        adamw.param_groups[0]["lr"] = 0.01
        adamw.step()
        assert torch.equal(model.weight, other)
    assert optimizer.masters["weight"] is model.weight
    assert {t.dtype for n, t in optimizer.state().items() if "step" not in n} == {torch.bfloat16}


def test_bfloat16_states_lose_what_masters_keep():
    # Steps of 1e-3 from 1: bfloat16 has nothing between 0.9961 and 1.
    kept, lost = [
        one_weight(1.0, torch.bfloat16, states=states) for states in ("float32", "bfloat16")
    ]
    for model, optimizer in (kept, lost):
        for _ in range(20):
            backward(model, optimizer, 1.0)
            optimizer.step(1e-3)
    assert kept[1].masters["weight"].item() == pytest.approx(0.98, abs=1e-4)
    assert lost[0].weight.item() == 1.0


def test_offloaded_states_take_the_same_steps():
    # On a CPU the host's memory is the device's: the numbers are the same bit for bit.
    found = []
    for offload in (False, True):
        model, optimizer = one_weight(1.0, torch.bfloat16, offload=offload)
        for gradient in (0.5, -0.25, 0.75):
            backward(model, optimizer, gradient)
            backward(model, optimizer, gradient)
            optimizer.step(0.01)
        assert optimizer.masters["weight"].device.type == "cpu"
        found.append(optimizer.masters["weight"].item())
    assert found[0] == found[1] != 1.0


def test_what_no_gradient_reaches_still_decays_its_moments():
    model = nn.Module()
    model.used, model.idle = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = MasterOptimizer(model, OptimizerConfig(betas=(0.5, 0.5)), torch.float32)
    (model.used + 2 * model.idle).sum().backward()
    optimizer.step(0.1)
    model.used.sum().backward()
    optimizer.step(0.1)
    # (1 - 0.5) 2 = 1 after the first step (clipping divides both by sqrt 5), half of it after.
    moments = optimizer.state()
    assert moments["exp_avg/idle"].item() == pytest.approx(0.5 / math.sqrt(5), rel=1e-4)
