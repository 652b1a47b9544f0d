"""Estimates of KL(pi || pi_ref) per token: k1, k2, k3 and k3 weighted for tokens from pi_old."""

import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.losses import k1, k2, k3, unbiased_k3

slow = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("slow_losses.py"))))
few = settings(deadline=None, derandomize=True, max_examples=60)
double = {"dtype": torch.float64}
ESTIMATES = {
    "k1": lambda logprobs, old, reference: k1(logprobs, reference),
    "k2": lambda logprobs, old, reference: k2(logprobs, reference),
    "k3": lambda logprobs, old, reference: k3(logprobs, reference),
    "unbiased k3": unbiased_k3,
}
every_estimate = pytest.mark.parametrize("estimate", ESTIMATES.values(), ids=ESTIMATES.keys())

# A vocabulary of three tokens.
PI, OLD, REFERENCE = [0.5, 0.3, 0.2], [0.25, 0.45, 0.3], [0.2, 0.2, 0.6]
# 0.5 ln 2.5 + 0.3 ln 1.5 + 0.2 ln (1/3) and, for each token, pi_j (log ratio_j - KL).
DIVERGENCE = 0.36006244  # 0.45814537 + 0.12163953 - 0.21972246
SLOPE = [0.27811415, 0.01362080, -0.29173495]  # of KL(pi || ref) by the logits of pi


def gradient_of(estimate, *probabilities):
    """Value and slope by log pi of each token, of lists of probabilities (pi, pi_old, pi_ref)."""
    tensors = [torch.tensor(x, **double).log() for x in probabilities]
    tensors[0].requires_grad_()
    value = estimate(*tensors)
    value.sum().backward()
    return value.tolist(), tensors[0].grad.tolist()


@pytest.mark.parametrize(
    ("name", "values", "slopes"),
    [
        # pi 1/4, pi_ref 1/2; then the other way round. log 2 = 0.693147.
        ("k1", [-0.693147180559945, 0.693147180559945], [1.0, 1.0]),
        # (log 2)^2 / 2 = 0.240227; its slope is the log ratio.
        ("k2", [0.240226506959101] * 2, [-0.693147180559945, 0.693147180559945]),
        # r = 2: 2 - log 2 - 1; r = 1/2: 1/2 + log 2 - 1; slope 1 - r.
        ("k3", [0.306852819440055, 0.193147180559945], [-1.0, 0.5]),
        # pi_old 1/2, then 1/4: w 1/2, then 2, times k3; slope w log(pi / pi_ref).
        ("unbiased k3", [0.153426409720027, 0.386294361119891], [-0.346573590279973, 1.38629436111989]),
    ],
)  # fmt: skip
def test_by_hand_with_slopes(name, values, slopes):
    found = gradient_of(ESTIMATES[name], [0.25, 0.5], [0.5, 0.25], [0.5, 0.25])
    assert found[0] == pytest.approx(values, rel=1e-12)
    assert found[1] == pytest.approx(slopes, rel=1e-12)


@pytest.mark.parametrize("name", ["k2", "k3", "unbiased k3"])
def test_descending_brings_a_token_back_to_the_reference(name):
    # Token 0 is likelier than under the reference, token 1 rarer.
    _, slopes = gradient_of(ESTIMATES[name], [0.5, 0.1], [0.4, 0.2], [0.2, 0.3])
    assert slopes[0] > 0 > slopes[1]


@few
@given(st.lists(st.tuples(*[st.floats(-6, -0.01)] * 3), max_size=5))
def test_agrees_with_plain_python_and_its_slopes(batch):
    oracles = {
        "k1": lambda x, old, reference: x - reference,
        "k2": lambda x, old, reference: (x - reference) ** 2 / 2,
        "k3": lambda x, old, reference: slow.k3(x, reference),
        "unbiased k3": slow.unbiased_k3,
    }
    for name, oracle in oracles.items():
        columns = [torch.tensor(x, **double) for x in zip(*batch, strict=True)]
        columns = columns or [torch.zeros(0, **double)] * 3
        logprobs = columns[0].clone().requires_grad_()
        value = ESTIMATES[name](logprobs, *columns[1:])
        value.sum().backward()
        expected = [oracle(*one) for one in batch]
        slopes = [
            slow.slope(lambda x, o=o, r=r, oracle=oracle: oracle(x, o, r), x) for x, o, r in batch
        ]
        assert value.tolist() == pytest.approx(expected, rel=1e-10, abs=1e-11)
        assert logprobs.grad.tolist() == pytest.approx(slopes, rel=1e-5, abs=1e-6)


@few
@given(*[st.floats(-20, 0)] * 3)
def test_all_but_k1_are_never_negative_and_zero_where_policies_are_equal(logprob, old, reference):
    now, then, base = (torch.tensor([x], **double) for x in (logprob, old, reference))
    assert k2(now, base).item() >= 0.0
    # Rounding: r - log r - 1 loses about 1e-16 of its largest part near r = 1, w times that.
    assert k3(now, base).item() >= -1e-15
    assert unbiased_k3(now, then, base).item() >= -1e-14 * math.exp(abs(logprob - old))
    assert k1(now, now).item() == k2(now, now).item() == k3(now, now).item() == 0.0
    assert unbiased_k3(now, now, now).item() == 0.0


def averages(estimate, drawn_from):
    """Mean value, and mean slope by the logits of pi, over tokens drawn from a distribution."""
    logits = torch.tensor(PI, **double).log().requires_grad_()
    old, reference = (torch.tensor(x, **double).log() for x in (OLD, REFERENCE))
    value = estimate(logits.log_softmax(0), old, reference)
    mean = (torch.tensor(drawn_from, **double) * value).sum()
    mean.backward()
    return mean.item(), logits.grad.tolist()


def test_the_divergence_and_its_slope_by_hand():
    terms = [p * math.log(p / q) for p, q in zip(PI, REFERENCE, strict=True)]
    assert sum(terms) == pytest.approx(DIVERGENCE, rel=1e-7)
    # By logit j the slope of sum p log(p / q) is p_j (log(p_j / q_j) - KL).
    slopes = [term - p * sum(terms) for term, p in zip(terms, PI, strict=True)]
    assert slopes == pytest.approx(SLOPE, rel=1e-6)


def test_for_tokens_from_pi_k1_and_k3_average_to_the_divergence_and_k2_to_its_slope():
    assert averages(ESTIMATES["k1"], PI)[0] == pytest.approx(DIVERGENCE, rel=1e-7)
    assert averages(ESTIMATES["k3"], PI)[0] == pytest.approx(DIVERGENCE, rel=1e-7)
    assert averages(ESTIMATES["k2"], PI)[1] == pytest.approx(SLOPE, rel=1e-6)


def test_in_the_loss_k1_pulls_nowhere_and_k3_towards_the_other_divergence():
    assert averages(ESTIMATES["k1"], PI)[1] == pytest.approx([0.0] * 3, abs=1e-15)
    # KL(ref || pi) = const - sum ref log pi: by logit j its slope is pi_j - ref_j.
    assert averages(ESTIMATES["k3"], PI)[1] == pytest.approx([0.3, 0.1, -0.4], rel=1e-12)


def test_for_tokens_from_pi_old_the_weighted_k3_averages_to_the_divergence_and_its_slope():
    value, slopes = averages(unbiased_k3, OLD)
    assert value == pytest.approx(DIVERGENCE, rel=1e-7)
    assert slopes == pytest.approx(SLOPE, rel=1e-6)
    # Unweighted neither holds: old_j (1 - r_j) is 0.15, 0.15, -0.6, its sum -0.3, and by logit 1
    # the slope 0.15 - pi_1 x -0.3.
    value, slopes = averages(ESTIMATES["k3"], OLD)
    assert abs(value - DIVERGENCE) > 0.02
    assert slopes[1] == pytest.approx(0.24, rel=1e-12)


def test_with_pi_old_the_policy_now_the_weight_is_one_and_its_slope_stays():
    logprobs = torch.tensor(PI, **double).log().requires_grad_()
    reference = torch.tensor(REFERENCE, **double).log()
    value = unbiased_k3(logprobs, logprobs.detach(), reference)
    assert value.tolist() == pytest.approx(k3(logprobs, reference).tolist(), rel=1e-12)
    value.sum().backward()
    # 1 x log(pi / pi_ref): ln 2.5, ln 1.5, ln 1/3.
    assert logprobs.grad.tolist() == pytest.approx([0.9162907, 0.4054651, -1.0986123], rel=1e-6)


@every_estimate
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_huge_difference_never_makes_nan(estimate, dtype):
    for logprob, old, reference in [
        (-1.0, -101.0, -101.0), (-101.0, -1.0, -1.0), (-101.0, -101.0, -1.0),
        (-1.0, -101.0, -1.0), (-1.0, -1.0, -101.0), (-1001.0, -1.0, 1000.0), (1000.0, -1.0, -1e4),
    ]:  # fmt: skip
        logprobs = torch.tensor([logprob], dtype=dtype, requires_grad=True)
        rest = [torch.tensor([x], dtype=dtype) for x in (old, reference)]
        value = estimate(logprobs, *rest)
        assert value.isfinite().all()
        (value * 0.0).sum().backward()
        assert logprobs.grad.tolist() == [0.0]


def test_a_token_that_the_reference_holds_far_likelier_is_pulled_by_the_log_ratio_held_at_20():
    # w 1 and log(pi / pi_ref) -19.5 and -30. The slope of the plain k3, 1 - e^19.5, is not held
    # before 20, and is 0 from there on.
    logprobs = torch.tensor([-31.0, -31.0], **double, requires_grad=True)
    reference = torch.tensor([-11.5, -1.0], **double)
    weighted = torch.autograd.grad(
        unbiased_k3(logprobs, logprobs.detach(), reference).sum(), logprobs
    )
    assert weighted[0].tolist() == pytest.approx([-19.5, -20.0], rel=1e-12)
    plain = torch.autograd.grad(k3(logprobs, reference).sum(), logprobs)
    assert plain[0].tolist() == pytest.approx([1 - math.exp(19.5), 0.0], rel=1e-12)


@every_estimate
def test_what_untrained_tokens_hold_changes_nothing(estimate):
    weights = torch.tensor([0.5, 0.0, 0.5])

    def weighted(garbage):
        logprobs = torch.tensor([-1.0, garbage[0], -2.0], requires_grad=True)
        total = estimate(
            logprobs, torch.tensor([-1.1, garbage[1], -1.8]), torch.tensor([-0.5, garbage[2], -3.0])
        )
        total = (total * weights).sum()
        total.backward()
        return total.item(), logprobs.grad.tolist()

    clean = weighted((0.0, 0.0, 0.0))
    assert clean[1][1] == 0.0
    for garbage in [(100.0, 0.0, -100.0), (-1e4, 1e4, 0.0), (0.0, -1e4, 1e4), (1e4, -1e4, -1e4)]:
        assert weighted(garbage) == clean
