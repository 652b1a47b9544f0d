import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.losses import clipped_policy_loss, k3, truncated_importance

CLIP = {"clip_low": 0.2, "clip_high": 0.3}


def loss_and_gradient(ratio, advantage, *, clip_low=0.2, clip_high=0.3):
    """Of one token whose ratio is `ratio`, with respect to its logprob."""
    logprob = torch.tensor([math.log(ratio) - 1.5], dtype=torch.float64, requires_grad=True)
    anchor = torch.tensor([-1.5], dtype=torch.float64)
    token = clipped_policy_loss(
        logprob,
        anchor,
        torch.tensor([advantage], dtype=torch.float64),
        clip_low=clip_low,
        clip_high=clip_high,
    )
    token.loss.sum().backward()
    return token, logprob.grad.item()


# The gradient of -rho A by log pi is -rho A; where the clip holds, it is 0.
@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, False),
        (1.0, -2.0, 2.0, 2.0, False),
        (1.25, 1.0, -1.25, -1.25, False),  # inside 0.8..1.3
        (1.5, 1.0, -1.3, 0.0, True),  # min(1.5, 1.3)
        (1.5, -1.0, 1.5, 1.5, False),  # min(-1.5, -1.3): no bound above for a bad token
        (0.5, 1.0, -0.5, -0.5, False),  # min(0.5, 0.8): no bound below for a good token
        (0.5, -1.0, 0.8, 0.0, True),  # min(-0.5, -0.8)
        (4.0, -0.5, 2.0, 2.0, False),
        (1.5, 0.0, 0.0, 0.0, False),
    ],
)
def test_clipped_loss_gradient_and_flag_by_hand(ratio, advantage, loss, gradient, clipped):
    token, found = loss_and_gradient(ratio, advantage)
    assert token.loss.item() == pytest.approx(loss, rel=1e-12)
    assert found == pytest.approx(gradient, rel=1e-12)
    assert token.clipped.item() is clipped
    assert token.ratio.item() == pytest.approx(ratio, rel=1e-12)
    assert not token.ratio.requires_grad


def test_the_two_bounds_are_apart():
    # min(1.5, 1.1) with clip_high 0.1; min(-0.5, -0.6) with clip_low 0.4.
    up, _ = loss_and_gradient(1.5, 1.0, clip_low=0.4, clip_high=0.1)
    down, _ = loss_and_gradient(0.5, -1.0, clip_low=0.4, clip_high=0.1)
    assert (up.loss.item(), down.loss.item()) == (pytest.approx(-1.1), pytest.approx(0.6))


def test_descending_makes_good_tokens_likelier_and_bad_ones_rarer():
    logprobs = torch.tensor([-1.0, -1.0], requires_grad=True)
    token = clipped_policy_loss(logprobs, logprobs.detach(), torch.tensor([1.0, -1.0]), **CLIP)
    token.loss.sum().backward()
    # At ratio 1 the gradient is -A: plain policy gradient, undivided by the tie of the minimum.
    assert logprobs.grad.tolist() == [-1.0, 1.0]


@settings(deadline=None)
@given(
    st.floats(-3, 0), st.floats(-3, 0), st.floats(-3, 3), st.floats(0.05, 0.9), st.floats(0.05, 3)
)
def test_clipped_loss_agrees_with_plain_math(logprob, anchor, advantage, low, high):
    ratio = math.exp(logprob - anchor)
    surrogate = min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)
    double = {"dtype": torch.float64}
    token = clipped_policy_loss(
        torch.tensor([logprob], **double),
        torch.tensor([anchor], **double),
        torch.tensor([advantage], **double),
        clip_low=low,
        clip_high=high,
    )
    assert token.loss.item() == pytest.approx(-surrogate, rel=1e-12, abs=1e-15)


@settings(deadline=None)
@given(st.floats(-2, 2), st.floats(-3, 3))
def test_the_gradient_vanishes_exactly_where_the_clip_holds(log_ratio, advantage):
    token, gradient = loss_and_gradient(math.exp(log_ratio), advantage)
    ratio = token.ratio.item()
    if (advantage > 0 and ratio > 1.3) or (advantage < 0 and ratio < 0.8):
        assert gradient == 0.0
    else:
        assert gradient == pytest.approx(-ratio * advantage, rel=1e-12)


def test_importance_is_capped_and_constant():
    old = torch.log(torch.tensor([0.6, 0.1, 0.2], dtype=torch.float64)).requires_grad_()
    behaviour = torch.log(torch.tensor([0.2, 0.2, 0.2], dtype=torch.float64))
    weight = truncated_importance(old, behaviour, 2.0)
    # Ratios 3, 1/2 and 1, of which 3 is above the cap.
    assert weight.tolist() == pytest.approx([2.0, 0.5, 1.0], rel=1e-12)
    assert not weight.requires_grad


def test_a_token_that_its_sampler_held_impossible_weighs_the_cap():
    weight = truncated_importance(torch.tensor([-1.0]), torch.tensor([-math.inf]), 2.0)
    assert weight.tolist() == [2.0]


def test_k3_by_hand_with_its_gradient():
    logprobs = torch.log(torch.tensor([0.25, 0.5], dtype=torch.float64)).requires_grad_()
    reference = torch.log(torch.tensor([0.5, 0.25], dtype=torch.float64))
    value = k3(logprobs, reference)
    # r = 2: 2 - ln 2 - 1 = 0.306853; r = 1/2: 0.5 + ln 2 - 1 = 0.193147.
    assert value.tolist() == pytest.approx([0.306852819440055, 0.193147180559945], rel=1e-12)
    value.sum().backward()
    # d/d log pi of r - log r - 1 is 1 - r: descending raises a token rarer than the reference's.
    assert logprobs.grad.tolist() == pytest.approx([-1.0, 0.5], rel=1e-12)


@settings(deadline=None)
@given(st.floats(-20, 0), st.floats(-20, 0))
def test_k3_is_never_negative_and_zero_where_equal(logprob, reference):
    pair = [torch.tensor([x], dtype=torch.float64) for x in (logprob, reference)]
    # Rounding: r - log r - 1 loses about 1e-16 of its largest part near r = 1.
    assert k3(*pair).item() >= -1e-15
    assert k3(pair[0], pair[0]).item() == 0.0


def test_k3_averages_to_the_divergence():
    # Over all tokens of a small vocabulary, weighted by pi: E[r] = 1, so E[k3] = KL(pi || ref).
    chances, other = [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]
    divergence = sum(p * math.log(p / q) for p, q in zip(chances, other, strict=True))
    double = {"dtype": torch.float64}
    value = k3(torch.tensor(chances, **double).log(), torch.tensor(other, **double).log())
    assert (value * torch.tensor(chances, **double)).sum().item() == pytest.approx(divergence)
