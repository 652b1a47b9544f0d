"""Constant weights for tokens that another policy drew: truncated, masked, by token, by sequence."""

import math
import runpy
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.losses import importance_mask, masked_importance, truncated_importance

slow = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("slow_losses.py"))))
few = settings(deadline=None, derandomize=True, max_examples=60)
BOUNDS = {"low": 0.5, "high": 2.0}
WEIGHTS = {
    "truncated": partial(truncated_importance, cap=2.0),
    "masked": partial(masked_importance, **BOUNDS),
    "mask": partial(importance_mask, **BOUNDS),
}
every_weight = pytest.mark.parametrize("weigh", WEIGHTS.values(), ids=WEIGHTS.keys())
logprob = st.floats(-3, 0)
tokens = st.lists(st.tuples(logprob, logprob, st.integers(0, 3), st.booleans()), max_size=12)

# Behind an unsampled token two sequences: ratios 4 and 1/4, mean 1; ratios 8, 8 and 1, mean 4.
RATIOS = [9.0, 4.0, 0.25, 8.0, 8.0, 1.0]
WITHIN = (torch.tensor([-1, 2, 2, 3, 3, 3]), torch.tensor([False, True, True, True, True, True]))


def logs(ratios):
    """pi_old and mu in float64 with these ratios, pi_old with a gradient."""
    behaviour = torch.full((len(ratios),), -2.5, dtype=torch.float64)
    old = behaviour + torch.tensor(ratios, dtype=torch.float64).log()
    return old.requires_grad_(), behaviour


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("truncated", [2.0, 2.0, 0.25, 2.0, 2.0, 1.0]),  # min(ratio, 2): no bound below
        ("masked", [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]),
        ("mask", [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]),
    ],
)
def test_by_token_by_hand(name, expected):
    weight = WEIGHTS[name](*logs(RATIOS))
    assert weight.tolist() == pytest.approx(expected, rel=1e-12)
    assert not weight.requires_grad


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Geometric means sqrt(4 / 4) = 1 and cbrt(64) = 4; the unsampled token has 1.
        ("truncated", [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]),
        ("masked", [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]),
        ("mask", [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]),
    ],
)
def test_by_sequence_by_hand(name, expected):
    weight = WEIGHTS[name](*logs(RATIOS), within=WITHIN)
    assert weight.tolist() == pytest.approx(expected, rel=1e-12)
    assert not weight.requires_grad


def test_what_icepop_keeps_weighs_its_ratio_and_what_the_mask_keeps_weighs_one():
    pair = logs([0.4, 0.6, 1.5, 2.5])
    assert masked_importance(*pair, **BOUNDS).tolist() == pytest.approx([0.0, 0.6, 1.5, 0.0])
    assert importance_mask(*pair, **BOUNDS).tolist() == [0.0, 1.0, 1.0, 0.0]


def test_bounds_themselves_are_kept():
    # Ratios exactly 1/2, 2 and 1: differences of -log 2, log 2 and 0.
    old = torch.tensor([0.0, math.log(2), 0.0], dtype=torch.float64)
    behaviour = torch.tensor([math.log(2), 0.0, 0.0], dtype=torch.float64)
    assert masked_importance(old, behaviour, **BOUNDS).tolist() == [0.5, 2.0, 1.0]
    assert importance_mask(old, behaviour, low=1.0, high=1.0).tolist() == [0.0, 0.0, 1.0]


@few
@given(tokens, st.floats(0.2, 1), st.floats(1, 4), st.booleans())
def test_agrees_with_plain_python(batch, low, high, by_sequence):
    old, behaviour, sequences, sampled = [list(x) for x in zip(*batch, strict=True)] or [[]] * 4
    pair = [torch.tensor(x, dtype=torch.float64) for x in (old, behaviour)]
    members = (torch.tensor(sequences, dtype=torch.int64), torch.tensor(sampled, dtype=torch.bool))
    within = {"within": members} if by_sequence else {}
    ratios = slow.importance(old, behaviour, *((sequences, sampled) if by_sequence else ()))
    # Off the bounds: two ways to compute a mean agree to rounding only.
    near = [min(abs(ratio - low), abs(ratio - high)) < 1e-9 for ratio in ratios]
    ratios = [1.0 if close else ratio for close, ratio in zip(near, ratios, strict=True)]

    def check(weight, expected):
        found = [1.0 if close else x for close, x in zip(near, weight.tolist(), strict=True)]
        assert found == pytest.approx(expected, rel=1e-10)

    kept = [low <= ratio <= high for ratio in ratios]
    check(truncated_importance(*pair, high, **within), [min(ratio, high) for ratio in ratios])
    masked = [ratio if keep else 0.0 for ratio, keep in zip(ratios, kept, strict=True)]
    check(masked_importance(*pair, low=low, high=high, **within), masked)
    check(importance_mask(*pair, low=low, high=high, **within), [float(keep) for keep in kept])


@every_weight
@pytest.mark.parametrize("within", [None, WITHIN], ids=["token", "sequence"])
def test_what_untrained_tokens_hold_changes_nothing(weigh, within):
    sampled = WITHIN[1]
    old, behaviour = (x.detach().float() for x in logs(RATIOS))
    clean = weigh(old, behaviour, within=within)[sampled].tolist()
    for garbage in (100.0, -100.0, 1e4, -1e4):
        dirty = torch.where(sampled, old, torch.tensor(garbage))
        weight = weigh(dirty, behaviour, within=within)
        assert weight[sampled].tolist() == clean
        # Whatever the weight is, 0 times it is 0.
        assert weight.isfinite().all()


@every_weight
def test_a_token_that_its_sampler_held_impossible_is_capped_or_masked(weigh):
    expected = 2.0 if weigh is WEIGHTS["truncated"] else 0.0
    assert weigh(torch.tensor([-1.0]), torch.tensor([-math.inf])).tolist() == [expected]


@pytest.mark.parametrize("within", [None, (torch.tensor([0]), torch.tensor([True]))])
def test_without_an_upper_bound_a_ratio_is_held_at_e_to_the_twentieth(within):
    pair = torch.tensor([-1.0]), torch.tensor([-101.0])
    for weight in (
        truncated_importance(*pair, math.inf, within=within),
        masked_importance(*pair, low=0.5, high=math.inf, within=within),
    ):
        assert weight.tolist() == pytest.approx([485165195.40979], rel=1e-6)


@every_weight
def test_nothing_in_nothing_out(weigh):
    none = torch.zeros(0)
    within = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))
    assert weigh(none, none).tolist() == weigh(none, none, within=within).tolist() == []
