"""The losses of single tokens: each by hand, against an oracle, and what all of them share."""

import math
import runpy
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.losses import cispo_loss, clipped_policy_loss, dppo_loss, gspo_loss, sapo_loss

slow = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("slow_losses.py"))))
few = settings(deadline=None, derandomize=True, max_examples=60)
CLIP = {"clip_low": 0.2, "clip_high": 0.3}


def one_token_sequences(logprobs, anchor, advantages):
    everyone = torch.ones(len(logprobs), dtype=torch.bool)
    return gspo_loss(logprobs, anchor, advantages, torch.arange(len(logprobs)), everyone, **CLIP)


LOSSES = {
    "clipped": partial(clipped_policy_loss, **CLIP),
    "dual clip": partial(clipped_policy_loss, **CLIP, dual_clip=3.0),
    "gspo": one_token_sequences,
    "cispo": partial(cispo_loss, clip_high=0.3),
    "sapo": sapo_loss,
    "dppo": partial(dppo_loss, delta=0.15, cap=5.0),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
logprob = st.floats(-4, -0.05)
advantage = st.floats(-3, 3).map(lambda x: round(x, 3))
tokens = st.lists(st.tuples(logprob, logprob, advantage), max_size=6)


def gradient_of(loss, logprobs, anchors, advantages, dtype=torch.float64):
    """The token loss of plain lists, and its slopes by each log pi."""
    logprobs = torch.tensor(logprobs, dtype=dtype, requires_grad=True)
    rest = [torch.tensor(x, dtype=dtype) for x in (anchors, advantages)]
    token = loss(logprobs, *rest)
    token.loss.sum().backward()
    return token, logprobs.grad.tolist()


def agrees(loss, oracle, batch, abs_gradient=1e-12):
    """Loss, slope and flag of every token of a batch, against the oracle's."""
    columns = [list(column) for column in zip(*batch, strict=True)] or [[], [], []]
    token, gradient = gradient_of(loss, *columns)
    expected = [oracle(*one) for one in batch]
    assert token.loss.tolist() == pytest.approx([x for x, _, _ in expected], rel=1e-11, abs=1e-12)
    assert gradient == pytest.approx([g for _, g, _ in expected], rel=1e-7, abs=abs_gradient)
    assert token.clipped.tolist() == [cut for _, _, cut in expected]
    ratios = [math.exp(now - then) for now, then, _ in batch]
    assert token.ratio.tolist() == pytest.approx(ratios, rel=1e-12)
    assert token.clipped.dtype is torch.bool
    assert not token.ratio.requires_grad


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
    token, found = gradient_of(LOSSES["clipped"], [math.log(ratio) - 1.5], [-1.5], [advantage])
    assert token.loss.item() == pytest.approx(loss, rel=1e-12)
    assert found == pytest.approx([gradient], rel=1e-12)
    assert token.clipped.item() is clipped
    assert token.ratio.item() == pytest.approx(ratio, rel=1e-12)
    assert not token.ratio.requires_grad


def test_the_two_bounds_are_apart():
    # min(1.5, 1.1) with clip_high 0.1; min(-0.5, -0.6) with clip_low 0.4.
    loss = partial(clipped_policy_loss, clip_low=0.4, clip_high=0.1)
    logprobs = [math.log(1.5) - 1.5, math.log(0.5) - 1.5]
    token, _ = gradient_of(loss, logprobs, [-1.5, -1.5], [1.0, -1.0])
    assert token.loss.tolist() == pytest.approx([-1.1, 0.6], rel=1e-12)


@few
@given(tokens, st.floats(0.05, 0.9), st.floats(0.05, 3), st.sampled_from([None, 1.5, 3.0, 10.0]))
def test_clipped_loss_agrees_with_cases_in_plain_python(batch, low, high, dual):
    loss = partial(clipped_policy_loss, clip_low=low, clip_high=high, dual_clip=dual)
    # Where c lies inside the clip range no case of the oracle changes: c only bounds bad tokens.
    agrees(loss, lambda x, a, adv: slow.clipped(x, a, adv, low, high, dual), batch)


# Where A < 0 the surrogate is max(min(rho A, bounded A), c A), the loss its negative.
@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (5.0, -1.0, 3.0, 0.0, True),  # max(-5, -3)
        (2.5, -2.0, 5.0, 5.0, False),  # max(-5, -6): not yet
        (5.0, 1.0, -1.3, 0.0, True),  # a good token: the usual clip, not c
        (0.5, -1.0, 0.8, 0.0, True),  # the lower bound stays
        (5.0, 0.0, 0.0, 0.0, False),
    ],
)
def test_dual_clip_bounds_bad_tokens_by_hand(ratio, advantage, loss, gradient, clipped):
    token, found = gradient_of(LOSSES["dual clip"], [math.log(ratio) - 2.0], [-2.0], [advantage])
    assert token.loss.item() == pytest.approx(loss, rel=1e-12)
    assert found == pytest.approx([gradient], rel=1e-12)
    assert token.clipped.tolist() == [clipped]


def test_dual_clip_of_one_or_less_is_refused():
    one = torch.zeros(1)
    with pytest.raises(ValueError, match=r"dual_clip must be above 1, got 1.0"):
        clipped_policy_loss(one, one, one, **CLIP, dual_clip=1.0)


# clip_high 1 and log pi -0.5: weight min(rho, 2), loss weight A / 2, gradient -weight A.
@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (1.5, 1.0, 0.75, -1.5, False),
        (3.0, 1.0, 1.0, -2.0, True),
        (3.0, -1.0, -1.0, 2.0, True),  # capped for bad tokens as well, and never dropped
        (0.1, -1.0, -0.05, 0.1, False),  # no bound below
        (3.0, 0.0, 0.0, 0.0, False),
    ],
)
def test_cispo_by_hand(ratio, advantage, loss, gradient, clipped):
    cispo = partial(cispo_loss, clip_high=1.0)
    token, found = gradient_of(cispo, [-0.5], [-0.5 - math.log(ratio)], [advantage])
    assert token.loss.item() == pytest.approx(loss, rel=1e-12)
    assert found == pytest.approx([gradient], rel=1e-12)
    assert token.clipped.tolist() == [clipped]
    assert token.ratio.item() == pytest.approx(ratio, rel=1e-12)


@few
@given(tokens, st.floats(0.1, 5))
def test_cispo_agrees_with_plain_python(batch, high):
    agrees(partial(cispo_loss, clip_high=high), lambda *one: slow.cispo(*one, high), batch)


# p = sigmoid(tau (rho - 1)); loss -4 p A / tau; gradient -4 p (1 - p) rho A.
@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.0, 1.0, -2.0, -1.0),  # p 1/2, tau 1
        (1.0, -1.0, 1.9047619047619047, 1.0),  # p 1/2, tau 1.05: 2 / 1.05
        (3.0, 1.0, -3.5231883119115293, -1.2599230248420783),  # p = sigmoid(2) = 0.8807970780
        # p = sigmoid(1.05) = 0.7407748992: 8 p / 1.05 and 16 p (1 - p)
        (2.0, -2.0, 5.64399923186403, 3.072439166781177),
        (3.0, 0.0, 0.0, 0.0),
    ],
)
def test_sapo_by_hand(ratio, advantage, loss, gradient):
    token, found = gradient_of(sapo_loss, [-1.0], [-1.0 - math.log(ratio)], [advantage])
    assert token.loss.item() == pytest.approx(loss, rel=1e-9)
    assert found == pytest.approx([gradient], rel=1e-9)
    assert token.clipped.tolist() == [False]


@few
@given(tokens, st.floats(0.3, 3), st.floats(0.3, 3))
def test_sapo_agrees_with_plain_python(batch, positive, negative):
    loss = partial(sapo_loss, tau_positive=positive, tau_negative=negative)
    # The oracle's slope is a difference quotient, with an error near 1e-9 of the loss.
    agrees(loss, lambda *one: slow.sapo(*one, positive, negative), batch, abs_gradient=1e-6)


def test_sapo_pulls_less_the_further_a_token_has_gone_and_least_at_bad_ones():
    # -4 p (1 - p) rho A at rho 1, 4, 8: 1, 4 x 4 x 0.0451767, 4 x 8 x 0.000910221.
    logprobs = [math.log(x) - 5.0 for x in (1.0, 4.0, 8.0)]
    _, good = gradient_of(sapo_loss, logprobs, [-5.0] * 3, [1.0] * 3)
    _, bad = gradient_of(sapo_loss, logprobs, [-5.0] * 3, [-1.0] * 3)
    assert good == pytest.approx([-1.0, -0.722827, -0.029127], rel=1e-4)
    assert bad[1] < -good[1]
    assert bad[2] < -good[2]


# delta 0.15, cap 5: weight min(pi / mu, 5), loss -weight A log pi, gradient -weight A.
@pytest.mark.parametrize(
    ("pi", "mu", "advantage", "gradient", "dropped"),
    [
        (0.50, 0.40, 1.0, -1.25, False),  # moved by 0.1
        (0.60, 0.40, 1.0, 0.0, True),  # up by 0.2, and A pushes further up
        (0.60, 0.40, -1.0, 1.5, False),  # up by 0.2, and A brings it back
        (0.20, 0.40, -1.0, 0.0, True),  # down by 0.2, and A pushes further down
        (0.20, 0.40, 1.0, -0.5, False),
        (0.12, 0.01, 1.0, -5.0, False),  # a ratio of 12 but only 0.11 of probability; capped
        (0.01, 0.12, -1.0, 1 / 12, False),
        (0.60, 0.40, 0.0, 0.0, False),
    ],
)
def test_dppo_by_hand(pi, mu, advantage, gradient, dropped):
    token, found = gradient_of(LOSSES["dppo"], [math.log(pi)], [math.log(mu)], [advantage])
    assert found == pytest.approx([gradient], rel=1e-12)
    assert token.loss.item() == pytest.approx(gradient * math.log(pi), rel=1e-12)
    assert token.clipped.tolist() == [dropped]
    assert token.ratio.item() == pytest.approx(pi / mu, rel=1e-12)


@few
@given(tokens, st.floats(0.01, 0.6), st.floats(1, 8))
def test_dppo_agrees_with_plain_python(batch, delta, cap):
    loss = partial(dppo_loss, delta=delta, cap=cap)
    agrees(loss, lambda *one: slow.dppo(*one, delta, cap), batch)


@every_loss
def test_at_ratio_one_every_loss_is_the_plain_policy_gradient(loss):
    # -A, and not half of it where minimum and maximum tie. SAPO: 4 / tau x tau x 1/4 = 1.
    advantages = [1.0, -1.0, 0.5, -2.0, 0.0]
    anchors = [-0.1, -1.0, -2.0, -3.0, -4.0]
    token, gradient = gradient_of(loss, anchors, anchors, advantages)
    assert gradient == pytest.approx([-1.0, 1.0, -0.5, 2.0, 0.0], rel=1e-15)
    assert token.ratio.tolist() == [1.0] * 5
    assert not token.clipped.any()


@every_loss
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_descending_makes_a_good_token_likelier_and_a_bad_one_rarer(loss, advantage):
    # Token 1 of a vocabulary of three, whose policy is already a little off its anchor.
    logits = torch.tensor([0.1, 0.0, -0.1], requires_grad=True)
    before = logits.log_softmax(0)[1]
    anchor = (before - 0.05).detach().reshape(1)
    loss(before.reshape(1), anchor, torch.tensor([advantage])).loss.sum().backward()
    with torch.no_grad():
        after = (logits - 0.01 * logits.grad).log_softmax(0)[1]
    assert (after - before).item() * advantage > 1e-3


@every_loss
def test_what_untrained_tokens_hold_changes_nothing(loss):
    trained = torch.tensor([True, False, True, False, True])
    weights = torch.tensor([0.5, 0.0, 0.25, 0.0, 0.25])

    def weighted(garbage):
        columns = []
        for clean, dirt in zip(
            [(-1.0, -2.0, -0.5), (-1.2, -1.0, -0.4), (1.0, -1.0, 0.0)], garbage, strict=True
        ):
            column = torch.full((5,), dirt)
            column[trained] = torch.tensor(clean)
            columns.append(column)
        columns[0].requires_grad_()
        total = (loss(*columns).loss * weights).sum()
        total.backward()
        assert columns[0].grad[~trained].tolist() == [0.0, 0.0]
        return total.item(), columns[0].grad[trained].tolist()

    clean = weighted((0.0, 0.0, 0.0))
    assert clean[0] != 0.0
    for garbage in [(100.0, 0.0, -7.0), (-100.0, 100.0, 7.0), (1e4, -1e4, -1e4), (-1e4, 1e4, 1e4)]:
        assert weighted(garbage) == clean


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distance", [100.0, -100.0, 1000.0, -1000.0])
def test_a_huge_difference_never_makes_nan(loss, distance, dtype):
    # e^100 is infinite in float32, and infinity times 0 is NaN.
    anchors = [-1001.0, -1001.0, -1001.0]
    logprobs = [x + distance for x in anchors]
    token, gradient = gradient_of(loss, logprobs, anchors, [0.0, 1.0, -1.0], dtype)
    assert token.loss[0].item() == 0.0
    assert gradient[0] == 0.0
    assert token.loss.isfinite().all()
    assert token.ratio.isfinite().all()
    assert all(map(math.isfinite, gradient))
    assert not token.clipped[0]


def test_a_ratio_is_held_at_e_to_the_twentieth_where_its_token_counts_as_clipped():
    token, gradient = gradient_of(
        LOSSES["clipped"], [-1.0, -1.0, -1.0], [-20.0, -22.0, -22.0], [-1.0, -1.0, 0.0]
    )
    held = 485165195.40979  # e^20
    assert token.ratio.tolist() == pytest.approx([math.exp(19), held, held], rel=1e-12)
    assert token.loss.tolist() == pytest.approx([math.exp(19), held, 0.0], rel=1e-12)
    assert gradient == pytest.approx([math.exp(19), 0.0, 0.0], rel=1e-12)
    assert token.clipped.tolist() == [False, True, False]
