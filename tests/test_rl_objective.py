"""Whole batches under every objective, against the slow token losses joined by hand."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.preflight import check_config
from recipes.presets import PRESETS
from rewards.problem import Problem, Response, Score, Verdict
from rl.objective import LossConfig, batch_loss, loss_fault, penalised
from rl.packing import PackingConfig, micro_batches, pack
from rollouts.rollout import Group, Rollout
from tests.slow_objective import LIMIT, Completion, Token, objective

few = settings(deadline=None, derandomize=True, max_examples=12)

# Bounds whose logarithms are no hundredths, nor halves, thirds or quarters of them: what is drawn
# below never stands on a kink.
BOUNDS = {
    "clip_low": 0.23,
    "clip_high": 0.33,
    "sapo_temperatures": (1.0, 1.4),
    "importance_cap": 1.7,
    "importance_low": 0.6,
}
OBJECTIVES = {
    "clip": {},
    "dual clip": {"dual_clip": 1.45},
    "gspo": {"objective": "gspo"},
    "cispo": {"objective": "cispo"},
    "sapo": {"objective": "sapo"},
    "dppo": {"objective": "dppo"},
}
BY_SEQUENCE = PackingConfig(normalise="sequence")
EVERYTHING = {
    f"{name}-{anchor}-{importance}-{level}": LossConfig(
        anchor=anchor, importance=importance, importance_level=level, **OBJECTIVES[name], **BOUNDS
    )
    for name, anchor, importance, level in product(
        OBJECTIVES, ("trainer", "sampler"), ("truncate", "mask", "none"), ("token", "sequence")
    )
}
ALLOWED = {name: c for name, c in EVERYTHING.items() if loss_fault(c, BY_SEQUENCE) is None}
every_combination = pytest.mark.parametrize("config", ALLOWED.values(), ids=ALLOWED.keys())
every_objective = pytest.mark.parametrize("name", OBJECTIVES)


def hundredths(low, high):
    return st.integers(round(100 * low), round(100 * high)).map(lambda n: n / 100)


def token(drawn, behaviour, drift, move, off, entropy):
    """Logprobs by their distances."""
    old = behaviour + drift
    return Token(drawn, behaviour, old, old + move, old + move + off, entropy)


tokens = st.builds(
    token,
    st.sampled_from([True, True, True, False]),  # now and then a tool's
    hundredths(-3, -0.05),
    hundredths(-0.9, 0.9),
    hundredths(-0.9, 0.9),
    hundredths(-0.9, 0.9),
    hundredths(0, 2),
)
completions = st.builds(
    lambda reward, first, others: Completion(reward, [first._replace(drawn=True), *others]),
    st.sampled_from([0.0, 0.5, 1.0]),
    tokens,
    st.lists(tokens, max_size=3),
)
drafts = st.lists(st.lists(completions, min_size=2, max_size=3), min_size=1, max_size=3)
additions = st.fixed_dictionaries(
    {
        "kl": st.sampled_from(["k3", "unbiased_k3", "k2"]),
        "kl_coefficient": st.sampled_from([0.0, 0.4]),
        "entropy_coefficient": st.sampled_from([0.0, 0.3]),
    }
)
GARBAGE = Token(False, 0.0, 1.5, -7.0, 2.5, 9.0)  # at prompts


def groups_of(draft):
    """Rollouts behind prompts of 2, 3, 4 ... tokens."""
    return [
        Group(
            problem=Problem(id=f"p{index}", prompt="?", answer="!", source="task"),
            rollouts=tuple(rollout(index + 2, completion) for completion in members),
        )
        for index, members in enumerate(draft)
    ]


def rollout(num_prompt, completion):
    own, num_tokens = completion.tokens, num_prompt + len(completion.tokens)
    return Rollout(
        token_ids=tuple(range(num_tokens)),
        sampled=(False,) * num_prompt + tuple(t.drawn for t in own),
        logprobs=(0.0,) * num_prompt + tuple(t.behaviour if t.drawn else 0.0 for t in own),
        response=Response(text="", num_tokens=len(own), max_tokens=LIMIT),
        score=Score(value=completion.reward, verdict=Verdict.WRONG, parts={"accuracy": 0.25}),
        versions=((0, num_prompt, num_tokens),),
    )


def packed(draft, config, *, normalise="sequence", several=True, keep_no_signal=None):
    """Batch, logprobs and entropy; pi_old is there in a round of several updates by the trainer."""
    keep = config.keeps_no_signal if keep_no_signal is None else keep_no_signal
    batch = pack(groups_of(draft), PackingConfig(normalise=normalise), keep_no_signal=keep)
    known = [draft_token(draft, *place) for place in places(batch)]

    def column(name):
        return torch.tensor([getattr(t, name) for t in known])

    if several and config.anchor == "trainer":
        batch = replace(batch, old_logprobs=column("old"))
    if config.kl_coefficient and config.kl != "k1_reward":
        batch = replace(batch, reference_logprobs=column("reference"))
    return batch, column("now").requires_grad_(), column("entropy").requires_grad_()


def places(batch):
    """(group, sample, position) of each token."""
    return [
        (*segment, position)
        for segment, position in zip(batch.segments.tolist(), batch.positions.tolist(), strict=True)
    ]


def draft_token(draft, group, sample, position):
    at = position - (group + 2)
    return draft[group][sample].tokens[at] if at >= 0 else GARBAGE


def near(values):
    return pytest.approx(values, rel=2e-5, abs=2e-6)


def test_what_is_allowed():
    # Of 6 x 2 x 6 combinations dppo has no trainer and gspo no sampler.
    assert len(ALLOWED) == 72 - 12
    assert {c.anchor for c in ALLOWED.values() if c.objective == "dppo"} == {"sampler"}
    assert {c.anchor for c in ALLOWED.values() if c.objective == "gspo"} == {"trainer"}


@every_combination
@few
@given(drafts, additions, st.sampled_from(["sequence", "token", "constant"]), st.booleans())
def test_a_batch_is_the_slow_losses_joined_by_hand(config, draft, more, normalise, several):
    config = replace(config, **more)
    if config.objective == "gspo":
        normalise = "sequence"
    batch, logprobs, entropy = packed(draft, config, normalise=normalise, several=several)
    loss, seen = batch_loss(logprobs, entropy, batch, config)
    loss.backward()
    wanted, by_place = objective(draft, config, normalise, several)
    assert loss.item() == near(wanted)
    terms = [by_place.get(place) for place in places(batch)]
    assert [t is not None for t in terms] == batch.sampled.tolist()
    assert logprobs.grad.tolist() == near([t.slope if t else 0.0 for t in terms])
    if config.entropy_coefficient:
        assert entropy.grad.tolist() == near([t.entropy_slope if t else 0.0 for t in terms])
    own = [t for t in terms if t]
    assert seen["clipped_frac"][batch.sampled].tolist() == [float(t.clipped) for t in own]
    weights = seen.get("importance", torch.ones(len(batch)))[batch.sampled]
    assert weights.tolist() == near([t.importance for t in own])
    assert not any(array.requires_grad for array in seen.values())


@every_objective
@few
@given(drafts, additions, st.integers(1, 25), st.data())
def test_micro_batches_add_up(name, draft, more, budget, data):
    mine = [config for key, config in ALLOWED.items() if key.startswith(f"{name}-")]
    config = replace(data.draw(st.sampled_from(mine)), **more)
    batch, logprobs, entropy = packed(draft, config)
    loss, seen = batch_loss(logprobs, entropy, batch, config)
    loss.backward()
    parts, start, losses, kept = logprobs.detach().clone().requires_grad_(), 0, [], []
    for part in micro_batches(batch, budget):
        stop = start + len(part)
        one, observed = batch_loss(parts[start:stop], entropy[start:stop], part, config)
        one.backward()
        losses.append(one.item())
        kept.append(observed)
        start = stop
    assert start == len(batch)
    assert sum(losses) == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    if losses:
        torch.testing.assert_close(parts.grad, logprobs.grad, rtol=1e-5, atol=1e-7)
        for key, array in seen.items():
            joined = torch.cat([observed[key] for observed in kept])[batch.sampled]
            torch.testing.assert_close(joined, array[batch.sampled])


@every_combination
@pytest.mark.parametrize("garbage", [1e4, -1e4, 3.0])
def test_what_stands_at_untrained_tokens_has_no_effect(config, garbage):
    own = [
        token(True, -1.0, 0.2, 0.4, 0.3, 1.0),
        token(False, -1.0, 0.0, 0.0, 0.0, 0.0),
        token(True, -2.0, -0.5, 0.1, -0.3, 0.5),
    ]
    draft = [[Completion(1.0, own), Completion(0.0, own[:1]), Completion(0.0, own[::-1][:1])]]

    def result(value, kl):
        full = replace(config, kl=kl, kl_coefficient=0.4, entropy_coefficient=0.3)
        batch, logprobs, entropy = packed(draft, full)
        marks = {
            field: torch.where(batch.sampled, getattr(batch, field), value * sign)
            for field, sign in (("behaviour_logprobs", -1), ("advantages", 1))
        }
        for field, sign in (("old_logprobs", 1), ("reference_logprobs", -1)):
            if (held := getattr(batch, field)) is not None:
                marks[field] = torch.where(batch.sampled, held, value * sign)
        batch = replace(batch, **marks)
        with torch.no_grad():
            logprobs[~batch.sampled], entropy[~batch.sampled] = value, -value
        loss, _ = batch_loss(logprobs, entropy, batch, full)
        loss.backward()
        return loss.item(), logprobs.grad.tolist(), entropy.grad.tolist()

    for kl in ("k3", "unbiased_k3", "k2"):
        assert result(garbage, kl) == result(0.0, kl)
        assert math.isfinite(result(garbage, kl)[0])


def one_token(reference, config, *, pi=0.5, mu=0.25, old=0.25, entropy=0.0, rewards=(1.0, 1.0)):
    """The loss of two completions of one token each, its slopes by the first's log pi and entropy."""
    own = Token(True, math.log(mu), math.log(old), math.log(pi), math.log(reference), entropy)
    draft = [[Completion(reward, [own]) for reward in rewards]]
    batch, logprobs, entropies = packed(draft, config, keep_no_signal=True)
    loss, seen = batch_loss(logprobs, entropies, batch, config)
    loss.backward()
    first = int(batch.sampled.nonzero()[0])
    by_entropy = 0.0 if entropies.grad is None else entropies.grad[first].item()
    seen = {name: array[batch.sampled].tolist() for name, array in seen.items()}
    return loss.item(), logprobs.grad[first].item(), by_entropy, seen


@pytest.mark.parametrize(
    ("kl", "reference", "value", "slope"),
    [
        # r = pi_ref / pi = 2: 2 - 0.6931 - 1, slope 1 - 2. r = 1/2: 0.5 + 0.6931 - 1, 1 - 1/2.
        ("k3", 1.0, 0.306853, -1.0),
        ("k3", 0.25, 0.193147, 0.5),
        # (log 2)^2 / 2 either way, slope log pi - log pi_ref.
        ("k2", 1.0, 0.240227, -0.693147),
        ("k2", 0.25, 0.240227, 0.693147),
        # w = pi / anchor = 2 times k3, slope w (log pi - log pi_ref).
        ("unbiased_k3", 1.0, 0.613706, -1.386294),
        ("unbiased_k3", 0.25, 0.386294, 1.386294),
    ],
)
def test_divergences_by_hand(kl, reference, value, slope):
    # Equal rewards: nothing but the divergence is in the loss. Each completion weighs 1/2.
    config = LossConfig(kl=kl, kl_coefficient=0.1)
    loss, by_logprob, _, seen = one_token(reference, config)
    assert loss == pytest.approx(0.1 * value, rel=1e-5)
    assert by_logprob == pytest.approx(0.1 * slope / 2, rel=1e-5)
    assert seen["kl"] == pytest.approx([value] * 2, rel=1e-5)


def test_the_unbiased_estimate_weighs_by_the_anchor():
    # pi 0.5, mu 0.25, pi_old 0.125, reference 0.25: k3 is 0.1931, times pi / mu or pi / pi_old.
    for anchor, weight in (("sampler", 2.0), ("trainer", 4.0)):
        config = LossConfig(kl="unbiased_k3", kl_coefficient=1.0, anchor=anchor)
        loss, *_ = one_token(0.25, config, old=0.125)
        assert loss == pytest.approx(weight * 0.193147, rel=1e-5)


def test_the_importance_weight_is_the_policy_losss_alone():
    # pi_old / mu is 4, capped at 2; the divergence is 0.1931 with or without it.
    for importance in ("truncate", "none"):
        config = LossConfig(kl_coefficient=1.0, entropy_coefficient=0.5, importance=importance)
        loss, *_ = one_token(0.25, config, mu=0.125, old=0.5, entropy=1.5)
        assert loss == pytest.approx(0.193147 - 0.5 * 1.5, rel=1e-5)
    # With rewards 1 and 0, advantages +-0.7071 at ratio 1: slope -0.7071 / 2 times 2, or 1.
    for importance, weight in (("truncate", 2.0), ("none", 1.0)):
        config = LossConfig(importance=importance)
        _, slope, _, _ = one_token(0.25, config, mu=0.125, old=0.5, rewards=(1.0, 0.0))
        assert slope == pytest.approx(-weight * math.sqrt(0.5) / 2, rel=1e-5)


@pytest.mark.parametrize("coefficient", [0.01, -0.2])
def test_entropy_is_raised_by_a_positive_coefficient(coefficient):
    # Equal rewards and no divergence: the loss is -coefficient * 1.5, its slope by each of two
    # entropies -coefficient / 2.
    config = LossConfig(entropy_coefficient=coefficient)
    loss, slope, by_entropy, seen = one_token(0.25, config, entropy=1.5)
    assert loss == pytest.approx(-1.5 * coefficient, rel=1e-5)
    assert (slope, by_entropy) == (0.0, pytest.approx(-coefficient / 2, rel=1e-5))
    assert seen["entropy"] == [1.5] * 2


def test_what_is_seen():
    # pi 0.5, mu 0.25, pi_old 0.4: ratio 1.25 and gap log 2; pi_old / mu 1.6.
    _, _, _, seen = one_token(0.25, LossConfig(), old=0.4, rewards=(1.0, 0.0))
    assert seen == {
        "gap": pytest.approx([math.log(2)] * 2),
        "clipped_frac": [1.0, 0.0],  # only the good one is above 1.2
        "ratio": pytest.approx([1.25] * 2),
        "importance": pytest.approx([1.6] * 2),
        "entropy": [0.0, 0.0],
    }


def test_the_kl_taken_from_the_reward_by_hand():
    # log mu - log pi_ref: 0.5 and 0.25 at the first completion's tokens, -1 at the second's only
    # one; a tool's token between does not count. At coefficient 0.2 the rewards 1 and 0 become
    # 1 - 0.2 * 0.75 and 0 + 0.2.
    first = [
        Token(True, -1.0, 0.0, 0.0, -1.5, 0.0),
        Token(False, -1.0, 0.0, 0.0, -9.0, 0.0),
        Token(True, -2.0, 0.0, 0.0, -2.25, 0.0),
    ]
    second = [Token(True, -2.0, 0.0, 0.0, -1.0, 0.0)]
    other = [Token(True, -1.0, 0.0, 0.0, -1.5, 0.0)]
    # The shorter completion of the larger group comes first here and last in the batch.
    draft = [
        [Completion(0.5, other), Completion(0.5, other)],
        [Completion(0.0, second), Completion(1.0, first)],
    ]
    groups = groups_of(draft)
    packing = PackingConfig(advantage_scale="none")
    whole = pack(groups, packing, keep_no_signal=True)
    reference = torch.tensor([draft_token(draft, *place).reference for place in places(whole)])
    found = penalised(groups, reference, whole, 0.2)
    assert [group.rewards for group in found] == [
        pytest.approx((0.4, 0.4)),
        pytest.approx((0.2, 0.85)),
    ]
    assert [group.rewards for group in groups] == [(0.5, 0.5), (0.0, 1.0)]
    scores = [r.score for group in found for r in group.rollouts]
    assert {s.verdict for s in scores} == {Verdict.WRONG}
    assert all(s.parts == {"accuracy": 0.25} for s in scores)
    # Advantages about the mean 0.525; equal costs leave a group without signal.
    batch = pack(found, packing, keep_no_signal=False)
    assert batch.segments[batch.sampled].tolist() == [[1, 1], [1, 1], [1, 0]]
    assert batch.advantages[batch.sampled].tolist() == pytest.approx([0.325, 0.325, -0.325])


def test_the_kl_gives_signal_to_equal_rewards():
    # Costs 0.2 * 0.5 and 0.2 * 0.1: rewards 0.9 and 0.98, advantages about 0.94.
    draft = [
        [
            Completion(1.0, [Token(True, -1.0, 0.0, 0.0, -1.5, 0.0)]),
            Completion(1.0, [Token(True, -1.0, 0.0, 0.0, -1.1, 0.0)]),
        ]
    ]
    packing = PackingConfig(advantage_scale="none")
    whole = pack(groups_of(draft), packing, keep_no_signal=True)
    reference = torch.tensor([draft_token(draft, *place).reference for place in places(whole)])
    batch = pack(penalised(groups_of(draft), reference, whole, 0.2), packing, keep_no_signal=False)
    assert batch.advantages[batch.sampled].tolist() == pytest.approx([-0.04, 0.04])


@pytest.mark.parametrize(
    ("values", "keeps"),
    [
        ({}, False),
        ({"kl_coefficient": 0.1}, True),
        ({"kl_coefficient": 0.1, "kl": "k2"}, True),
        ({"kl_coefficient": 0.1, "kl": "unbiased_k3"}, True),
        ({"kl_coefficient": 0.1, "kl": "k1_reward"}, False),
        ({"kl_coefficient": 0.1, "kl": "k1_reward", "entropy_coefficient": 0.1}, True),
        ({"entropy_coefficient": 0.1}, True),
        ({"entropy_coefficient": -0.1}, True),
    ],
)
def test_what_moves_a_group_of_equal_rewards(values, keeps):
    config = LossConfig(**values)
    assert config.keeps_no_signal is keeps
    _, slope, by_entropy, _ = one_token(0.3, config)  # equal rewards, no advantage
    assert bool(slope or by_entropy) is keeps


FAULTS = [
    (
        {"objective": "dppo"},
        {},
        "loss.objective dppo weighs tokens by pi/mu: set loss.anchor to sampler",
    ),
    (
        {"objective": "gspo", "anchor": "sampler"},
        {},
        "loss.objective gspo clips so near to 1 that pi/mu is noise to it: set loss.anchor to trainer",
    ),
    *(
        (
            {"objective": "gspo"},
            {"normalise": normalise},
            "loss.objective gspo averages by completion: set packing.normalise to sequence",
        )
        for normalise in ("token", "constant")
    ),
    (
        {"objective": "cispo", "dual_clip": 3.0},
        {},
        "loss.dual_clip is 3.0 with loss.objective cispo: it is for clip and above 1, or none",
    ),
    (
        {"kl": "k1_reward", "kl_coefficient": 0.1},
        {"advantage_scale": "maxrl"},
        "loss.kl k1_reward takes rewards out of 0..1, which packing.advantage_scale maxrl needs: "
        "set loss.kl to k3 or choose another scale",
    ),
    (
        {"kl": "k1_reward", "kl_coefficient": 0.1},
        {"truncated": "zero"},
        "loss.kl k1_reward lowers rewards, but packing.truncated zero would give completions that "
        "were cut off 0 all the same: set packing.truncated to score or mask",
    ),
    (
        {"dual_clip": 1.0},
        {},
        "loss.dual_clip is 1.0 with loss.objective clip: it is for clip and above 1, or none",
    ),
]


@pytest.mark.parametrize(("loss", "packing", "line"), FAULTS)
def test_what_contradicts_itself_is_refused_with_its_remedy(loss, packing, line):
    assert loss_fault(LossConfig(**loss), PackingConfig(**packing)) == line
    config = PRESETS["quickstart"]()
    check_config(config)
    config = replace(
        config, loss=replace(config.loss, **loss), packing=replace(config.packing, **packing)
    )
    with pytest.raises(ValueError) as caught:
        check_config(config)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("loss", "packing"),
    [
        ({"objective": "dppo", "anchor": "sampler"}, {"normalise": "token"}),
        ({"objective": "gspo"}, {}),
        ({"dual_clip": 1.1}, {"normalise": "constant"}),
        ({"objective": "cispo", "anchor": "sampler"}, {"normalise": "token"}),
        ({"objective": "sapo"}, {"normalise": "constant"}),
        ({"kl": "k1_reward", "kl_coefficient": 0.1}, {"truncated": "mask"}),
        ({"kl": "k1_reward"}, {"truncated": "zero", "advantage_scale": "maxrl"}),
        ({"kl_coefficient": 0.1}, {"truncated": "zero", "advantage_scale": "maxrl"}),
    ],
)
def test_the_remedies_are_no_faults(loss, packing):
    assert loss_fault(LossConfig(**loss), PackingConfig(**packing)) is None
