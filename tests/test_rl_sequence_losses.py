"""Means over a token's own sequence, and the loss with one ratio a sequence (GSPO)."""

import itertools
import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rl.losses import clipped_policy_loss, gspo_loss, sequence_mean

slow = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("slow_losses.py"))))
few = settings(deadline=None, derandomize=True, max_examples=60)
double = {"dtype": torch.float64}
number = st.floats(-3, 3).map(lambda x: round(x, 3))
# Per token: value, number of its sequence, whether it is sampled. Sequences lie mixed.
tokens = st.lists(st.tuples(number, st.sampled_from([0, 1, 5, 10**12]), st.booleans()), max_size=12)
# A group: per completion an advantage and, per token, log pi and its distance from the anchor.
completion = st.tuples(
    st.lists(st.tuples(st.floats(-4, -0.1), st.floats(-0.3, 0.3)), min_size=1, max_size=4), number
)
groups = st.lists(completion, min_size=1, max_size=4)


def test_mean_over_the_sampled_tokens_of_a_tokens_own_sequence_by_hand():
    # Sequence 4: tokens 1, 2 and 5 are sampled, 3 + 5 + 1 over 3; token 3 of it is not.
    # Sequence 9: token 4 alone. Token 0 is a shared prompt.
    values = torch.tensor([99.0, 3.0, 5.0, 77.0, -2.0, 1.0], requires_grad=True)
    sequences = torch.tensor([-1, 4, 4, 4, 9, 4])
    sampled = torch.tensor([False, True, True, False, True, True])
    means = sequence_mean(values, sequences, sampled)
    assert means.tolist() == [0.0, 3.0, 3.0, 0.0, -2.0, 3.0]
    # Weights 1, 10 and 100 at the tokens of sequence 4: each of them has (1 + 10 + 100) / 3.
    (means * torch.tensor([7.0, 1.0, 10.0, 7.0, 5.0, 100.0])).sum().backward()
    assert values.grad.tolist() == [0.0, 37.0, 37.0, 0.0, 5.0, 37.0]


@pytest.mark.parametrize("size", [0, 3])
def test_mean_where_nothing_is_sampled_is_zero(size):
    values = torch.full((size,), 5.0, requires_grad=True)
    means = sequence_mean(values, torch.full((size,), -1), torch.zeros(size, dtype=torch.bool))
    assert means.tolist() == [0.0] * size
    means.sum().backward()
    assert values.grad.tolist() == [0.0] * size


@few
@given(tokens)
def test_mean_agrees_with_two_loops(batch):
    values, sequences, sampled = [list(x) for x in zip(*batch, strict=True)] or ([], [], [])
    means = sequence_mean(
        torch.tensor(values, **double),
        torch.tensor(sequences, dtype=torch.int64),
        torch.tensor(sampled, dtype=torch.bool),
    )
    expected = slow.sequence_mean(values, sequences, sampled)
    assert means.tolist() == pytest.approx(expected, rel=1e-12, abs=1e-14)


def packed(group):
    """Tensors of a group behind a shared prompt of two tokens, and the weights 1 / (G |o_i|)."""
    logprobs, anchors, advantages, sequences, weights = ([0.0] * 2 for _ in range(5))
    sequences = [-1, -1]
    for index, (own, advantage) in enumerate(group):
        logprobs += [logprob for logprob, _ in own]
        anchors += [logprob - moved for logprob, moved in own]
        advantages += [advantage] * len(own)
        sequences += [index] * len(own)
        weights += [1 / (len(group) * len(own))] * len(own)
    sequences = torch.tensor(sequences)
    floats = [torch.tensor(x, **double) for x in (logprobs, anchors, advantages, weights)]
    return *floats, sequences, sequences >= 0


def test_gspo_by_hand():
    # Completion 0: log ratios 0.3 and 0.1, s = e^0.2 = 1.221403, A 1, inside 0.6..1.5.
    # Completion 1: log ratio -0.7, s = 0.496585, A -1: max(s, 0.6) binds.
    group = [([(-1.0, 0.3), (-2.0, 0.1)], 1.0), ([(-1.5, -0.7)], -1.0)]
    logprobs, anchors, advantages, weights, sequences, sampled = packed(group)
    logprobs.requires_grad_()
    token = gspo_loss(
        logprobs, anchors, advantages, sequences, sampled, clip_low=0.4, clip_high=0.5
    )
    s = 1.2214027581601699
    assert token.loss[2:].tolist() == pytest.approx([-s, -s, 0.6], rel=1e-12)
    assert token.ratio[2:].tolist() == pytest.approx([s, s, 0.49658530379140947], rel=1e-12)
    assert token.clipped.tolist() == [False, False, False, False, True]
    assert not token.ratio.requires_grad
    total = (token.loss * weights).sum()
    # 1/2 (-s + 0.6); by each token of completion 0: -s A / (G |o|) = -s / 4.
    assert total.item() == pytest.approx((0.6 - s) / 2, rel=1e-12)
    total.backward()
    assert logprobs.grad.tolist() == pytest.approx([0, 0, -s / 4, -s / 4, 0], rel=1e-12)


@few
@given(groups, st.floats(0.05, 0.5), st.floats(0.05, 0.5))
def test_gspo_is_the_papers_objective_in_value_and_slope(group, low, high):
    *tensors, weights, sequences, sampled = packed(group)
    tensors[0].requires_grad_()
    token = gspo_loss(*tensors, sequences, sampled, clip_low=low, clip_high=high)
    total = (token.loss * weights).sum()
    total.backward()

    def objective(place, moved):
        flat = [logprob for own, _ in group for logprob, _ in own]
        flat[place] += moved
        rest = iter(flat)
        completions = [
            ([next(rest) for _ in own], [logprob - gap for logprob, gap in own], advantage)
            for own, advantage in group
        ]
        return slow.gspo_objective(completions, low, high)

    # No difference quotient across a kink.
    ratios = [math.exp(sum(gap for _, gap in own) / len(own)) for own, _ in group]
    assume(all(abs(s - bound) > 1e-4 for s in ratios for bound in (1 - low, 1 + high)))
    assert total.item() == pytest.approx(objective(0, 0.0), rel=1e-11, abs=1e-12)
    places = range(sum(len(own) for own, _ in group))
    slopes = [slow.slope(lambda x, place=place: objective(place, x), 0.0) for place in places]
    assert tensors[0].grad[2:].tolist() == pytest.approx(slopes, rel=1e-6, abs=1e-8)
    assert tensors[0].grad[:2].tolist() == [0.0, 0.0]
    cut = [
        (s > 1 + high and advantage > 0) or (s < 1 - low and advantage < 0)
        for s, (own, advantage) in zip(ratios, group, strict=True)
        for _ in own
    ]
    assert token.clipped.tolist() == [False, False, *cut]


def test_gspo_of_one_token_a_sequence_is_the_clipped_loss():
    logprobs = torch.tensor([-1.0, -0.2, -3.0], **double)
    anchors = torch.tensor([-1.5, -0.3, -2.0], **double)
    advantages = torch.tensor([1.0, -1.0, -1.0], **double)
    clip = {"clip_low": 0.2, "clip_high": 0.3}
    everyone = torch.ones(3, dtype=torch.bool)
    by_sequence = gspo_loss(logprobs, anchors, advantages, torch.arange(3), everyone, **clip)
    by_token = clipped_policy_loss(logprobs, anchors, advantages, **clip)
    assert by_sequence.loss.tolist() == by_token.loss.tolist()
    assert by_sequence.clipped.tolist() == by_token.clipped.tolist() == [True, False, True]


def test_gspo_keeps_neighbours_and_untrained_tokens_apart():
    sequences = torch.tensor([-1, 0, 0, 0, 1, 1])
    sampled = torch.tensor([False, True, True, False, True, True])
    weights = torch.tensor([0.0, 0.25, 0.25, 0.0, 0.25, 0.25])

    def weighted(garbage, neighbour):
        logprobs = torch.tensor([garbage, -1.0, -2.0, -garbage, neighbour, -1.0])
        anchors = torch.tensor([-garbage, -1.1, -2.2, garbage, -2.0, -1.0])
        advantages = torch.tensor([garbage, 1.0, 1.0, -garbage, -1.0, -1.0])
        logprobs.requires_grad_()
        token = gspo_loss(
            logprobs, anchors, advantages, sequences, sampled, clip_low=0.2, clip_high=0.2
        )
        (token.loss * weights).sum().backward()
        return token.loss[sampled].tolist(), logprobs.grad.tolist()

    clean = weighted(0.0, -2.0)
    assert clean[1][0] == clean[1][3] == 0.0
    for garbage in (100.0, -100.0, 1e4, -1e4):
        assert weighted(garbage, -2.0) == clean
    moved = weighted(0.0, -1.0)
    assert moved[0][:2] == clean[0][:2]
    assert moved[1][:4] == clean[1][:4]
    assert moved[0][2:] != clean[0][2:]


def test_gspo_is_the_same_sum_however_sequences_are_cut_apart_or_ordered():
    group = [([(-1.0, 0.1), (-2.0, 0.05)], 1.0), ([(-1.5, -0.1), (-0.3, 0.2), (-2.0, 0.0)], -0.5)]
    *tensors, weights, sequences, sampled = packed(group)
    clip = {"clip_low": 0.2, "clip_high": 0.2}

    def total(*parts):
        return sum(
            (gspo_loss(*(x[part] for x in (*tensors, sequences, sampled)), **clip).loss
             * weights[part]).sum().item()
            for part in parts
        )  # fmt: skip

    whole = total(torch.arange(7))
    assert total(torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5, 6])) == pytest.approx(whole)
    for order in itertools.islice(itertools.permutations(range(7)), 0, 5040, 700):
        assert total(torch.tensor(order)) == pytest.approx(whole, rel=1e-12)
