"""Whole groups to one batch: weights, advantages, order; and the cuts into micro-batches."""

import pickle
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.problem import Problem, Response, Score, Verdict
from rl.packing import PackingConfig, micro_batches, pack
from rl.rows import make_row
from rollouts.records import encode_groups, read_groups
from rollouts.rollout import Group, Rollout

PROMPT = (5, 6)


def rollout(completion, reward, finish="stop", prompt=PROMPT, max_tokens=0):
    num_prompt, num_sampled = len(prompt), len(completion)
    return Rollout(
        token_ids=(*prompt, *completion),
        sampled=(False,) * num_prompt + (True,) * num_sampled,
        logprobs=(0.0,) * num_prompt + tuple(-0.5 - i / 8 for i in range(num_sampled)),
        response=Response(text="", num_tokens=num_sampled, max_tokens=max_tokens, finish=finish),
        score=Score(value=reward, verdict=Verdict.CORRECT if reward else Verdict.WRONG),
        versions=((0, num_prompt, num_prompt + num_sampled),),
    )


def group(*rollouts):
    problem = Problem(id="p", prompt="?", answer="!", source="task")
    return Group(problem=problem, rollouts=rollouts)


def packed(*groups, keep_no_signal=False, **config):
    return pack(groups, PackingConfig(**config), keep_no_signal=keep_no_signal)


def weights_of(batch):
    """The weights of trained tokens by (group, sample)."""
    found = {}
    rows = zip(batch.segments.tolist(), batch.sampled.tolist(), batch.token_weights, strict=True)
    for segment, drawn, weight in rows:
        if drawn:
            found.setdefault(tuple(segment), []).append(weight.item())
    return found


def test_the_example_of_the_docstring():
    batch = packed(group(rollout((8, 2), 1.0), rollout((9,), 0.0)))
    assert batch.token_ids.tolist() == [5, 6, 8, 2, 5, 6, 9]
    assert batch.positions.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert batch.segments.tolist() == [[0, 0]] * 4 + [[0, 1]] * 3
    assert batch.sampled.tolist() == [False, False, True, True, False, False, True]
    assert batch.behaviour_logprobs.tolist() == [0.0, 0.0, -0.5, -0.625, 0.0, 0.0, -0.5]
    # 0.5 / (1/sqrt(2) + 1e-6) = 0.70710578.
    high = 0.70710578
    assert batch.advantages.tolist() == pytest.approx([0, 0, high, high, 0, 0, -high])
    # One group of two completions: 1 / (1 * 2 * 2) and 1 / (1 * 2 * 1).
    assert batch.token_weights.tolist() == [0, 0, 0.25, 0.25, 0, 0, 0.5]
    assert batch.lengths == [4, 3]
    assert len(batch) == 7
    assert batch.old_logprobs is None
    assert batch.reference_logprobs is None


def test_dtypes():
    batch = packed(group(rollout((8, 2), 1.0), rollout((9,), 0.0)))
    integers = (batch.token_ids, batch.positions, batch.segments)
    floats = (batch.behaviour_logprobs, batch.advantages, batch.token_weights)
    assert {a.dtype for a in integers} == {torch.int64}
    assert {a.dtype for a in floats} == {torch.float32}
    assert batch.sampled.dtype == torch.bool


def test_by_sequence_each_completion_weighs_alike_and_each_group_too():
    batch = packed(
        group(rollout((8, 2), 1.0), rollout((9,), 0.0)),
        group(rollout((7, 7, 7, 7), 0.0), rollout((7,), 1.0), rollout((3, 2), 0.0)),
    )
    # Two groups, of two and of three completions: 1 / (2 * 2 * tokens), 1 / (2 * 3 * tokens).
    assert weights_of(batch) == {
        (0, 0): [pytest.approx(1 / 8)] * 2,
        (0, 1): [pytest.approx(1 / 4)],
        (1, 0): [pytest.approx(1 / 24)] * 4,
        (1, 1): [pytest.approx(1 / 6)],
        (1, 2): [pytest.approx(1 / 12)] * 2,
    }
    assert batch.token_weights.sum().item() == pytest.approx(1.0)


def test_by_token_every_trained_token_weighs_alike():
    batch = packed(
        group(rollout((8, 2), 1.0), rollout((9,), 0.0)),
        group(rollout((7, 7, 7, 7), 0.0), rollout((7,), 1.0)),
        normalise="token",
    )
    # 2 + 1 + 4 + 1 sampled tokens.
    assert [w for ws in weights_of(batch).values() for w in ws] == [0.125] * 8


def test_by_a_constant_each_token_weighs_alike_whatever_its_completion():
    batch = packed(
        group(rollout((8, 2), 1.0, max_tokens=10), rollout((9,), 0.0, max_tokens=10)),
        group(
            rollout((7, 7, 7, 7), 0.0, max_tokens=10),
            rollout((7,), 1.0, max_tokens=5),  # where the limit was another
            rollout((3, 2), 0.0, max_tokens=10),
        ),
        normalise="constant",
    )
    # Two groups, of two and of three completions: 1 / (2 * 2 * 10), 1 / (2 * 3 * 10).
    assert weights_of(batch) == {
        (0, 0): [pytest.approx(1 / 40)] * 2,
        (0, 1): [pytest.approx(1 / 40)],
        (1, 0): [pytest.approx(1 / 60)] * 4,
        (1, 1): [pytest.approx(1 / 30)],
        (1, 2): [pytest.approx(1 / 60)] * 2,
    }


def test_by_a_constant_masked_completions_and_groups_without_signal_count_as_by_sequence():
    groups = [
        group(
            rollout((8, 2), 1.0, "length", max_tokens=4),
            rollout((9,), 0.0, max_tokens=4),
            rollout((9,), 1.0, max_tokens=4),
        ),
        group(rollout((7,), 1.0, max_tokens=4), rollout((7,), 1.0, max_tokens=4)),
    ]
    batch = packed(*groups, normalise="constant", truncated="mask")
    # Two groups; of the first, two completions are trained: 1 / (2 * 2 * 4).
    assert weights_of(batch) == {(0, 1): [1 / 16], (0, 2): [1 / 16]}


def test_by_a_constant_rollouts_carry_the_limit():
    old = group(rollout((8, 2), 1.0, max_tokens=10), rollout((9,), 0.0))
    with pytest.raises(ValueError, match="constant divides by the token limit, which these"):
        packed(old, normalise="constant")
    assert len(packed(old, normalise="sequence")) == 7


# Rewards of two groups with signal and one without, and what each scale makes of the first two.
REWARDS = [(0.0, 1.0, 0.0, 0.0), (1.0, 0.5), (1.0, 1.0)]


@pytest.mark.parametrize(
    ("scale", "first", "second"),
    [
        # Means 1/4 and 3/4, sample deviations 1/2 and 0.35355.
        ("std", [-0.5, 1.5, -0.5, -0.5], [0.70711, -0.70711]),
        ("none", [-0.25, 0.75, -0.25, -0.25], [0.25, -0.25]),
        # Means of the others: 1/3 or 0, and 1/2 or 1.
        ("leave_one_out", [-1 / 3, 1.0, -1 / 3, -1 / 3], [0.5, -0.5]),
        # All eight: mean 4.5 / 8 = 0.5625, squares 4.25 - 8 * 0.5625^2 = 1.71875, over 7:
        # 0.245536, whose root is 0.495516. Without the third group it would be 0.491596.
        ("batch_std", [-0.504525, 1.513574, -0.504525, -0.504525], [0.504525, -0.504525]),
        ("maxrl", [-1.0, 3.0, -1.0, -1.0], [1 / 3, -1 / 3]),
    ],
)
def test_every_scale_by_hand(scale, first, second):
    groups = [group(*(rollout((8,), reward) for reward in rewards)) for rewards in REWARDS]
    batch = packed(*groups, advantage_scale=scale)
    rows = zip(batch.segments.tolist(), batch.sampled.tolist(), batch.advantages, strict=True)
    found = {tuple(place): advantage.item() for place, drawn, advantage in rows if drawn}
    expected = dict(zip([(0, i) for i in range(4)] + [(1, 0), (1, 1)], first + second, strict=True))
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_epsilon_is_the_configs():
    one = group(rollout((8,), 1.0), rollout((9,), 0.0))
    # 1/2 over sqrt(1/2) + 1/2, which is sqrt(2) - 1; the deviation of the batch is the same.
    for scale in ("std", "batch_std"):
        batch = packed(one, advantage_scale=scale, advantage_epsilon=0.5)
        assert batch.advantages[batch.sampled].tolist() == pytest.approx([2**0.5 - 1, 1 - 2**0.5])


def test_scales_see_completions_scored_zero():
    # Rewards 1 (cut off), 0 and 1 become 0, 0 and 1; the other group's are 0 and 1 as they are.
    cut = group(rollout((8, 2), 1.0, "length"), rollout((9,), 0.0), rollout((9,), 1.0))
    other = group(rollout((8,), 1.0), rollout((9,), 0.0))
    batch = packed(cut, other, truncated="zero", advantage_scale="batch_std")
    # Five rewards of mean 2/5 and squares 2 - 4/5 over 4: 0.3, whose root is 0.547723.
    assert batch.advantages[batch.sampled].tolist() == pytest.approx(
        [-0.608581, -0.608581, -0.608581, 1.217161, 0.912871, -0.912871], abs=1e-5
    )


def test_the_largest_group_first_in_it_the_longest_and_prompts_never_weigh():
    batch = packed(
        group(rollout((8,), 1.0), rollout((9, 9, 2), 0.0)),
        group(rollout((7, 7), 0.0), rollout((7, 7), 1.0)),
    )
    # Groups of 3 + 5 and 4 + 4 tokens: equals in the order given.
    assert batch.lengths == [5, 3, 4, 4]
    firsts = batch.segments[batch.positions == 0].tolist()
    assert firsts == [[0, 1], [0, 0], [1, 0], [1, 1]]
    assert batch.sequences.tolist() == [0] * 5 + [1] * 3 + [2] * 4 + [3] * 4
    assert batch.prompt_lengths == [2, 2, 2, 2]
    assert not batch.token_weights[~batch.sampled].any()
    assert not batch.advantages[~batch.sampled].any()


@pytest.mark.parametrize("normalise", ["sequence", "token"])
def test_groups_without_signal_are_left_out_but_counted(normalise):
    live = group(rollout((8, 2), 1.0), rollout((9,), 0.0))
    dead = group(rollout((7, 7, 7, 7), 1.0), rollout((7,), 1.0))
    batch = packed(live, dead, normalise=normalise)
    assert {tuple(s) for s in batch.segments.tolist()} == {(0, 0), (0, 1)}
    # By sequence two groups halve 1/4 and 1/2; by token 2 + 1 + 4 + 1 count, not 3.
    expected = {"sequence": [1 / 8, 1 / 8, 1 / 4], "token": [1 / 8] * 3}[normalise]
    assert batch.token_weights[batch.sampled].tolist() == expected


def test_keep_no_signal_keeps_their_tokens_with_advantage_zero_and_the_same_weights():
    live = group(rollout((8, 2), 1.0), rollout((9,), 0.0))
    dead = group(rollout((7, 7, 7, 7), 1.0), rollout((7,), 1.0))
    kept, left = packed(live, dead, keep_no_signal=True), packed(live, dead)
    assert weights_of(kept) == weights_of(left) | {(1, 0): [1 / 16] * 4, (1, 1): [1 / 4]}
    is_dead = kept.segments[:, 0] == 1
    assert kept.advantages[is_dead].tolist() == [0.0] * 9
    assert kept.advantages[~is_dead].tolist() == left.advantages.tolist()


def test_truncated_completions_are_scored_as_they_are():
    batch = packed(group(rollout((8, 2), 1.0, "length"), rollout((9,), 0.0)))
    assert batch.advantages[:4].tolist() == pytest.approx([0, 0, 0.70710578, 0.70710578])


def test_truncated_completions_score_zero_and_stay():
    # Rewards 1 (cut off), 0 and 1 become 0, 0 and 1: unscaled advantages -1/3, -1/3, 2/3.
    batch = packed(
        group(rollout((8, 2), 1.0, "length"), rollout((9,), 0.0), rollout((9,), 1.0)),
        truncated="zero",
        advantage_scale="none",
    )
    found = batch.advantages[batch.sampled].tolist()
    assert found == pytest.approx([-1 / 3, -1 / 3, -1 / 3, 2 / 3])
    # The cut one is right and the only right one: scored zero, its group has no signal.
    assert (
        len(packed(group(rollout((8,), 1.0, "length"), rollout((9,), 0.0)), truncated="zero")) == 0
    )


def test_masked_completions_leave_loss_and_denominators_but_not_the_mean():
    cut = rollout((8, 2, 4), 1.0, "length")
    batch = packed(
        group(cut, rollout((9,), 0.0), rollout((9, 2), 0.0)),
        group(rollout((9,), 0.0), rollout((7,), 1.0)),
        truncated="mask",
        advantage_scale="none",
    )
    # Two groups, two trained members in each: 1 / (2 * 2 * tokens).
    assert weights_of(batch) == {
        (0, 1): [1 / 4],
        (0, 2): [1 / 8] * 2,
        (1, 0): [1 / 4],
        (1, 1): [1 / 4],
    }
    # The first group's mean is 1/3 with the masked reward in it.
    advantages = dict(
        zip(map(tuple, batch.segments.tolist()), batch.advantages.tolist(), strict=True)
    )
    assert advantages == {
        (0, 1): pytest.approx(-1 / 3),
        (0, 2): pytest.approx(-1 / 3),
        (1, 0): -0.5,
        (1, 1): 0.5,
    }


def test_masked_tokens_do_not_count_by_token():
    batch = packed(
        group(rollout((8, 2, 4), 1.0, "length"), rollout((9,), 0.0)),
        group(rollout((9, 9), 0.0), rollout((7,), 1.0)),
        truncated="mask",
        normalise="token",
    )
    # 1 + 2 + 1 tokens; with the masked ones they would be 7.
    assert batch.token_weights[batch.sampled].tolist() == [1 / 4] * 4


def test_a_group_masked_whole_is_not_counted():
    batch = packed(
        group(rollout((8, 2), 1.0, "length"), rollout((9,), 0.0, "length")),
        group(rollout((9,), 0.0), rollout((7,), 1.0)),
        truncated="mask",
    )
    assert weights_of(batch) == {(1, 0): [1 / 2], (1, 1): [1 / 2]}


@pytest.mark.parametrize("max_tokens", [1, 100])
def test_a_batch_without_signal_is_empty_and_has_no_micro_batches(max_tokens):
    batch = packed(group(rollout((8, 2), 1.0), rollout((9,), 1.0)))
    assert len(batch) == 0
    assert batch.lengths == []
    assert batch.segments.shape == (0, 2)
    assert list(micro_batches(batch, max_tokens)) == []


def test_tokens_between_sampled_ones_are_not_trained():
    # A tool's output amid the completion: ids 8 and 2 sampled, 50 and 51 not.
    base = rollout((8, 50, 51, 2), 1.0)
    mixed = Rollout(
        token_ids=base.token_ids,
        sampled=(False, False, True, False, False, True),
        logprobs=(0.0, 0.0, -0.5, 0.0, 0.0, -0.25),
        response=base.response,
        score=base.score,
        versions=base.versions,
    )
    batch = packed(group(mixed, rollout((9,), 0.0)))
    assert batch.token_weights[:6].tolist() == [0, 0, 0.25, 0, 0, 0.25]
    assert (batch.advantages[:6] > 0).tolist() == list(mixed.sampled)


def slow_batch(groups):
    """Token by token, without a tensor: advantages not scaled, weighed by sequence."""
    means = [sum(g.rewards) / len(g.rewards) for g in groups]
    order = sorted(
        (-sum(len(r.token_ids) for r in g.rollouts), i, -len(r.token_ids), s)
        for i, g in enumerate(groups)
        if g.has_signal
        for s, r in enumerate(g.rollouts)
    )
    tokens = []
    for _, i, _, s in order:
        one = groups[i].rollouts[s]
        advantage = one.score.value - means[i]
        weight = 1 / (len(groups) * len(groups[i].rollouts) * sum(one.sampled))
        for t, drawn in enumerate(one.sampled):
            behaviour = one.logprobs[t]
            trained = (advantage, weight) if drawn else (0.0, 0.0)
            tokens.append((one.token_ids[t], t, i, s, drawn, behaviour, *trained))
    return tokens


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(1, 5), st.sampled_from([0.0, 0.5, 1.0])), min_size=2, max_size=5
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_groups_pack_as_token_by_token(shapes):
    groups = [
        group(
            *(
                rollout(range(10 * i, 10 * i + size), reward, prompt=(5,) * (i + 1))
                for size, reward in members
            )
        )
        for i, members in enumerate(shapes)
    ]
    batch = packed(*groups, advantage_scale="none")
    found = zip(
        batch.token_ids.tolist(),
        batch.positions.tolist(),
        *batch.segments.t().tolist(),
        batch.sampled.tolist(),
        batch.behaviour_logprobs.tolist(),
        batch.advantages.tolist(),
        batch.token_weights.tolist(),
        strict=True,
    )
    for token, expected in zip(found, slow_batch(groups), strict=True):
        assert token == pytest.approx(expected, abs=1e-6)


def bits(batch):
    """Every array of a batch as bytes: zeros of either sign are told apart."""
    held = [getattr(batch, field.name) for field in fields(batch)]
    return [array.numpy().tobytes() for array in held if array is not None]


def test_a_round_read_from_its_file_packs_to_the_same_bits(tmp_path):
    groups = [
        group(rollout((8, 2), 1.0), rollout((9,), 0.0)),
        group(*(rollout((7,) * (i + 1), i / 3) for i in range(4))),
    ]
    groups = [  # logprobs that float32 has to round
        replace(
            g,
            rollouts=tuple(
                replace(r, logprobs=tuple(p / 3 for p in r.logprobs)) for r in g.rollouts
            ),
        )
        for g in groups
    ]
    path = tmp_path / "round"
    path.write_bytes(encode_groups(groups))
    fresh = packed(*groups)
    assert bits(packed(*read_groups(path))) == bits(fresh)
    assert bits(packed(*pickle.loads(pickle.dumps(groups)))) == bits(fresh)


def test_another_score_keeps_the_arrays_of_the_tokens():
    one = rollout((8, 2), 1.0)
    arrays = one.arrays
    other = one.rescored(Score(value=0.25, verdict=Verdict.WRONG))
    assert other.arrays is arrays
    assert other.score.value == 0.25
    assert replace(other, score=one.score) == one  # arrays are no part of what a rollout is
    changed = replace(one, token_ids=(5, 6, 8, 3))
    assert changed.arrays.token_ids.tolist() == [5, 6, 8, 3]


def test_cut_and_to_carry_every_array():
    batch = packed(group(rollout((8, 2), 1.0), rollout((9,), 0.0)))
    part = batch.cut(4, 7).to(torch.device("cpu"))
    assert part.token_ids.tolist() == [5, 6, 9]
    assert part.segments.tolist() == [[0, 1]] * 3
    assert part.token_weights.tolist() == [0, 0, 0.5]
    assert part.old_logprobs is None


def test_pick_takes_the_same_places_of_every_array():
    batch = packed(group(rollout((8, 2), 1.0), rollout((9,), 0.0)))
    batch = replace(batch, old_logprobs=torch.arange(7.0))
    picked = batch.pick(torch.tensor([6, 2, 2]))
    assert picked.token_ids.tolist() == [9, 8, 8]
    assert picked.positions.tolist() == [2, 2, 2]
    assert picked.segments.tolist() == [[0, 1], [0, 0], [0, 0]]
    assert picked.sampled.tolist() == [True] * 3
    assert picked.behaviour_logprobs.tolist() == [-0.5, -0.5, -0.5]
    assert picked.advantages.tolist() == pytest.approx([-0.70710578, 0.70710578, 0.70710578])
    assert picked.token_weights.tolist() == [0.5, 0.25, 0.25]
    assert picked.old_logprobs.tolist() == [6.0, 2.0, 2.0]
    assert picked.reference_logprobs is None
    assert len(batch.pick(torch.tensor([], dtype=torch.int64))) == 0


def test_a_group_that_is_split_repeats_its_prompt():
    # A prompt of 4 with completions of 3, 3, 2 and 1: together 4 + 9, cut at 10 as 4 + 6 and 4 + 3.
    prompt = (5, 6, 7, 8)
    completions = [(1, 2, 3), (3, 2, 1), (9, 9), (4,)]
    batch = packed(
        group(*(rollout(c, float(c[0] == 1), prompt=prompt) for c in completions)),
        keep_no_signal=True,
    )
    first, second = micro_batches(batch, 10)
    assert [row_of(part) for part in (first, second)] == [
        [*prompt, 1, 2, 3, 3, 2, 1],
        [*prompt, 9, 9, 4],
    ]
    assert [row_of(part) for part in micro_batches(batch, 13)] == [
        [*prompt, 1, 2, 3, 3, 2, 1, 9, 9, 4]
    ]
    # The loss is the same sum: no token is weighed anew.
    losses = torch.arange(len(batch), dtype=torch.float32)
    split = losses.split([len(first), len(second)])
    parts = [
        (own * part.token_weights).sum() for own, part in zip(split, (first, second), strict=True)
    ]
    assert sum(parts).item() == pytest.approx((losses * batch.token_weights).sum().item())
    assert first.prompt_lengths + second.prompt_lengths == batch.prompt_lengths == [4] * 4


def row_of(batch):
    """Ids of the packed row without its filling."""
    row = make_row(batch)
    return row.token_ids[row.layout.family >= 0].tolist()


def test_micro_batches_by_hand():
    # Prompts of 2 with completions of 3 and 1, and of 2 and 2: rows of 6 and 6.
    batch = packed(
        group(rollout((8,), 1.0), rollout((9, 9, 2), 0.0)),
        group(rollout((7, 7), 0.0), rollout((7, 7), 1.0)),
    )
    assert [part.lengths for part in micro_batches(batch, 12)] == [[5, 3, 4, 4]]
    # Room for 11: not for both prompts' groups, but for one sequence of the second, 2 + 2.
    assert [part.lengths for part in micro_batches(batch, 11)] == [[5, 3, 4], [4]]
    assert [part.lengths for part in micro_batches(batch, 8)] == [[5, 3], [4, 4]]
    assert [part.lengths for part in micro_batches(batch, 5)] == [[5], [3], [4], [4]]
    # A sequence above the budget stands alone.
    assert [part.lengths for part in micro_batches(batch, 3)] == [[5], [3], [4], [4]]


def row_tokens(batch):
    """Tokens with each group's prompt once."""
    groups = batch.segments[batch.positions == 0][:, 0].tolist()
    prompts = dict(zip(groups, batch.prompt_lengths, strict=True))
    return sum(prompts.values()) + sum(batch.lengths) - sum(batch.prompt_lengths)


completions = st.tuples(
    st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from([0, 1.0])
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(completions, min_size=2, max_size=4), min_size=1, max_size=4),
    st.integers(1, 40),
    st.sampled_from(["sequence", "token"]),
    st.booleans(),
)
def test_micro_batches_cover_the_batch_within_the_budget(groups, budget, normalise, keep):
    groups = [group(*(rollout(tuple(c), r) for c, r in members)) for members in groups]
    batch = packed(*groups, normalise=normalise, keep_no_signal=keep)
    parts = list(micro_batches(batch, budget))
    assert [length for part in parts for length in part.lengths] == batch.lengths
    assert torch.cat([p.token_ids for p in [*parts, batch.cut(0, 0)]]).equal(batch.token_ids)
    for part in parts:
        assert part.positions[0] == 0
        assert row_tokens(part) <= budget or len(part.lengths) == 1
    total = sum(part.token_weights.double().sum().item() for part in parts)
    assert total == pytest.approx(batch.token_weights.double().sum().item(), abs=1e-12)
    if keep:  # every group is there: the weights are a mean's
        assert total == pytest.approx(1.0, rel=1e-5)
