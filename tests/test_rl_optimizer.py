import math

import pytest
import torch
from torch import nn

from rl.optimizer import MasterOptimizer, NonFiniteGradientError, OptimizerConfig, learning_rate


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3, bias=False))


def loss_of(model, step):
    draw = torch.Generator().manual_seed(100 + step)
    dtype = next(model.parameters()).dtype
    inputs, targets = torch.randn(11, 5, generator=draw), torch.randn(11, 3, generator=draw)
    return ((model(inputs.to(dtype)) - targets.to(dtype)) ** 2).sum()


def weights(values, dtype=torch.float32):
    """A model of one parameter, and its optimizer."""
    model = nn.Module()
    model.weight = nn.Parameter(torch.tensor(values))
    return model, lambda **config: MasterOptimizer(model, OptimizerConfig(**config), dtype)


def snapshot(optimizer):
    return {name: tensor.clone() for name, tensor in optimizer.state().items()}


def assert_bitwise(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("max_grad_norm", [0.5, 1e9])
def test_equals_adamw_on_a_float32_model(max_grad_norm):
    mine, other = network(), network()
    optimizer = MasterOptimizer(
        mine,
        OptimizerConfig(weight_decay=0.1, betas=(0.8, 0.95), max_grad_norm=max_grad_norm),
        torch.float32,
    )
    adamw = torch.optim.AdamW(other.parameters(), betas=(0.8, 0.95), weight_decay=0.1)
    for step in range(6):
        rate = 0.01 * (step + 1)
        loss_of(mine, step).backward()
        norm = optimizer.step(rate)
        loss_of(other, step).backward()
        expected = nn.utils.clip_grad_norm_(other.parameters(), max_grad_norm)
        adamw.param_groups[0]["lr"] = rate
        adamw.step()
        adamw.zero_grad()
        assert norm == pytest.approx(expected.item(), rel=1e-5)
    for found, wanted in zip(mine.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_first_step_by_hand():
    # Gradient (3, -4), norm 5, clipped to 1: (0.6, -0.8). AdamW's first step goes by the rate
    # against the sign, after the decay of rate * weight_decay: 1 - 0.1 * 0.5 = 0.95.
    model, make = weights([1.0, 1.0])
    optimizer = make(weight_decay=0.5, max_grad_norm=1.0)
    (model.weight * torch.tensor([3.0, -4.0])).sum().backward()
    assert optimizer.step(0.1) == pytest.approx(5.0)
    assert model.weight.tolist() == pytest.approx([0.95 - 0.1, 0.95 + 0.1], abs=1e-6)
    # Moments hold the clipped gradient: (1 - 0.9) * 0.6 and (1 - 0.999) * 0.36.
    state = optimizer.state()
    assert state["exp_avg/weight"].tolist() == pytest.approx([0.06, -0.08], rel=1e-4)
    assert state["exp_avg_sq/weight"].tolist() == pytest.approx([0.00036, 0.00064], rel=1e-4)


def test_small_gradients_are_not_scaled_up():
    model, make = weights([1.0, 1.0])
    optimizer = make(max_grad_norm=1.0)
    (model.weight * torch.tensor([0.3, -0.4])).sum().backward()
    assert optimizer.step(0.1) == pytest.approx(0.5)
    assert optimizer.state()["exp_avg/weight"].tolist() == pytest.approx([0.03, -0.04], rel=1e-4)


def test_bfloat16_micro_batches_add_up_in_float32():
    # 1 and then 4096 times 2**-12: together 2. In bfloat16 1 + 2**-12 is 1.
    model, make = weights([0.0], torch.bfloat16)
    optimizer = make(max_grad_norm=1e9)
    for scale in [1.0] + [2.0**-12] * 4096:
        (model.weight * scale).sum().backward()
        assert model.weight.grad is None
    assert optimizer.step(0.0) == 2.0


def test_masters_keep_what_bfloat16_loses():
    # Steps of 1e-4 from 1: bfloat16 numbers below 1 are 2**-8 = 0.0039 apart, so that no single
    # step would move the model; 100 of them move the master to 0.99.
    model, make = weights([1.0], torch.bfloat16)
    optimizer = make()
    for _ in range(100):
        model.weight.sum().backward()
        optimizer.step(1e-4)
    assert optimizer.masters["weight"].item() == pytest.approx(0.99, abs=1e-5)
    assert model.weight.dtype == torch.bfloat16
    # The nearest of 253/256 = 0.98828 and 254/256 = 0.99219.
    assert model.weight.item() == 253 / 256


def test_the_model_holds_the_cast_of_the_masters():
    model = network()
    optimizer = MasterOptimizer(model, OptimizerConfig(), torch.bfloat16)
    for step in range(3):
        loss_of(model, step).backward()
        optimizer.step(0.01)
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, optimizer.masters[name].to(torch.bfloat16))


def test_frozen_parameters_are_left_alone():
    model = network()
    model[0].bias.requires_grad_(False)
    before = model[0].bias.clone()
    optimizer = MasterOptimizer(model, OptimizerConfig(weight_decay=1.0), torch.float32)
    assert set(optimizer.masters) == {"0.weight", "2.weight"}
    loss_of(model, 0).backward()
    optimizer.step(0.1)
    assert torch.equal(model[0].bias, before)


def test_gradients_do_not_outlive_their_step():
    # The second step has no gradient: its norm is 0.
    model, make = weights([1.0])
    optimizer = make()
    model.weight.sum().backward()
    assert optimizer.step(0.1) == 1.0
    assert optimizer.step(0.1) == 0.0


def test_a_step_without_gradient_or_decay_moves_nothing():
    model, make = weights([1.0, -2.0])
    optimizer = make(weight_decay=0.0)
    assert optimizer.step(0.1) == 0.0
    assert model.weight.tolist() == [1.0, -2.0]
    assert optimizer.state()["step/weight"].item() == 1.0


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_raises_and_changes_nothing(poison):
    model = network()
    optimizer = MasterOptimizer(model, OptimizerConfig(weight_decay=0.1), torch.bfloat16)
    loss_of(model, 0).backward()
    optimizer.step(0.01)
    before = snapshot(optimizer)
    parameters = [parameter.clone() for parameter in model.parameters()]
    (loss_of(model, 1) + poison * model[0].bias[0]).backward()
    with pytest.raises(NonFiniteGradientError, match="norm is"):
        optimizer.step(0.01)
    assert_bitwise(snapshot(optimizer), before)
    assert all(map(torch.equal, model.parameters(), parameters))
    # The bad gradient is forgotten: the run could go on.
    assert optimizer.step(0.01) == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("steps", [0, 3])
def test_a_state_goes_round_and_continues_bit_for_bit(dtype, steps):
    config = OptimizerConfig(weight_decay=0.1)
    model, other = network(seed=0), network(seed=1)
    optimizer = MasterOptimizer(model, config, dtype)
    for step in range(steps):
        loss_of(model, step).backward()
        optimizer.step(0.01)
    saved = snapshot(optimizer)
    resumed = MasterOptimizer(other, config, dtype)
    resumed.load(saved)
    assert_bitwise(snapshot(resumed), saved)
    assert all(map(torch.equal, model.parameters(), other.parameters()))
    for step in range(steps, steps + 3):
        for net, holder in ((model, optimizer), (other, resumed)):
            loss_of(net, step).backward()
            holder.step(0.02)
    assert_bitwise(snapshot(resumed), snapshot(optimizer))
    assert all(map(torch.equal, model.parameters(), other.parameters()))


def test_loading_a_state_from_before_the_first_step_forgets_the_moments():
    model = network()
    optimizer = MasterOptimizer(model, OptimizerConfig(), torch.float32)
    fresh = snapshot(optimizer)
    loss_of(model, 0).backward()
    optimizer.step(0.01)
    optimizer.load(fresh)
    assert_bitwise(snapshot(optimizer), fresh)


def test_a_loaded_state_is_a_copy():
    model = network()
    optimizer = MasterOptimizer(model, OptimizerConfig(), torch.float32)
    loss_of(model, 0).backward()
    optimizer.step(0.01)
    saved = snapshot(optimizer)
    kept = {name: tensor.clone() for name, tensor in saved.items()}
    optimizer.load(saved)
    loss_of(model, 1).backward()
    optimizer.step(0.01)
    assert_bitwise(saved, kept)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # Six updates; two of warm-up rise by halves.
        ({}, [1, 1, 1, 1, 1, 1]),
        ({"warmup_updates": 2}, [0.5, 1, 1, 1, 1, 1]),
        ({"warmup_updates": 4}, [0.25, 0.5, 0.75, 1, 1, 1]),
        # From 1 at the first to 0.1 at the last in five falls of 0.18.
        ({"schedule": "linear"}, [1, 0.82, 0.64, 0.46, 0.28, 0.1]),
        # Two of warm-up, then from 1 to 0 in three falls.
        (
            {"schedule": "linear", "warmup_updates": 2, "final_learning_rate_frac": 0.0},
            [0.5, 1, 1, 2 / 3, 1 / 3, 0],
        ),
        # (1 + cos(pi x)) / 2 at thirds: 1, 3/4, 1/4, 0; between 0.2 and 1: 1, 0.8, 0.4, 0.2.
        (
            {"schedule": "cosine", "warmup_updates": 2, "final_learning_rate_frac": 0.2},
            [0.5, 1, 1, 0.8, 0.4, 0.2],
        ),
    ],
)
def test_schedules_by_hand(config, expected):
    config = OptimizerConfig(learning_rate=2.0, **config)
    found = [learning_rate(config, update, 6) for update in range(6)]
    assert found == pytest.approx([2.0 * rate for rate in expected])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_run_of_one_update_or_past_its_end_has_a_rate(schedule):
    config = OptimizerConfig(learning_rate=1.0, schedule=schedule)
    assert learning_rate(config, 0, 1) == 1.0
    assert learning_rate(config, 99, 10) == pytest.approx(1.0 if schedule == "constant" else 0.1)
