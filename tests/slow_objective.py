"""A whole objective in plain Python: the token losses of tests/slow_losses.py joined with loops.

A draft is a list of groups, each a list of completions; places are (group, sample, position), and
the prompt of group g has g + 2 tokens.
"""

from statistics import fmean, stdev
from typing import NamedTuple

from tests import slow_losses as slow

LIMIT = 7  # tokens that a completion could have had


class Token(NamedTuple):
    """What stands at a token behind the prompt: logprobs by each policy, and the entropy."""

    drawn: bool
    behaviour: float
    old: float
    now: float
    reference: float
    entropy: float


class Completion(NamedTuple):
    reward: float
    tokens: list[Token]


class Term(NamedTuple):
    """A token's part of the loss, its slopes by log pi and entropy, and whether it was clipped."""

    loss: float
    slope: float
    entropy_slope: float
    clipped: bool
    importance: float


def advantages_of(members):
    rewards = [completion.reward for completion in members]
    if len(set(rewards)) == 1:
        return [0.0] * len(rewards)
    return [(r - fmean(rewards)) / (stdev(rewards) + 1e-6) for r in rewards]


def policy_terms(config, now, anchor, advantage):
    """(loss, slope, cut) of each token of a completion."""
    low, high = config.clip_low, config.clip_high
    match config.objective:
        case "gspo":  # one ratio for all, a mean of logprobs, whose slope by each is 1 / n
            return [slow.clipped(fmean(now), fmean(anchor), advantage, low, high)] * len(now)
        case "cispo":
            return [slow.cispo(x, a, advantage, high) for x, a in zip(now, anchor, strict=True)]
        case "sapo":
            taus = config.sapo_temperatures
            return [slow.sapo(x, a, advantage, *taus) for x, a in zip(now, anchor, strict=True)]
        case "dppo":
            more = (config.dppo_delta, config.importance_cap)
            return [slow.dppo(x, a, advantage, *more) for x, a in zip(now, anchor, strict=True)]
    return [
        slow.clipped(x, a, advantage, low, high, config.dual_clip)
        for x, a in zip(now, anchor, strict=True)
    ]


def importance_weights(config, old, behaviour):
    own = [0] * len(old), [True] * len(old)
    ratios = slow.importance(
        old, behaviour, *(own if config.importance_level == "sequence" else ())
    )
    kept = [config.importance_low <= ratio <= config.importance_cap for ratio in ratios]
    match config.anchor, config.importance:
        case "trainer", "truncate":
            return [min(ratio, config.importance_cap) for ratio in ratios]
        case "trainer", "mask":
            return [ratio if keep else 0.0 for ratio, keep in zip(ratios, kept, strict=True)]
        case "sampler", "mask":
            return [float(keep) for keep in kept]
    return [1.0] * len(ratios)


def divergence(config, anchor, reference):
    """The estimate as a function of log pi."""
    match config.kl:
        case "k3":
            return lambda x: slow.k3(x, reference)
        case "unbiased_k3":
            return lambda x: slow.unbiased_k3(x, anchor, reference)
        case "k2":
            return lambda x: (x - reference) ** 2 / 2


def terms_of(config, completion, advantage, several):
    own = [t for t in completion.tokens if t.drawn]
    now, behaviour = [t.now for t in own], [t.behaviour for t in own]
    old = [t.old for t in own] if several and config.anchor == "trainer" else now
    anchor = behaviour if config.anchor == "sampler" else old
    weights = importance_weights(config, old, behaviour)
    policy = policy_terms(config, now, anchor, advantage)
    found = []
    for t, a, weight, (loss, slope, clipped) in zip(own, anchor, weights, policy, strict=True):
        slope *= fmean(weights) if config.objective == "gspo" else weight
        kl = divergence(config, a, t.reference)
        loss = loss * weight + config.kl_coefficient * kl(t.now)
        slope += config.kl_coefficient * slow.slope(kl, t.now)
        by = config.entropy_coefficient
        found.append(Term(loss - by * t.entropy, slope, -by, clipped, weight))
    return found


def mean_of(values, normalise):
    """Of numbers by group, completion and token."""
    if normalise == "token":
        return fmean(x for group in values for completion in group for x in completion)
    return fmean(
        fmean(sum(own) / (LIMIT if normalise == "constant" else len(own)) for own in group)
        for group in values
    )


def objective(draft, config, normalise, several):
    """The loss, and by place the Term of each sampled token, its slopes those of the whole loss."""
    terms = [
        [
            terms_of(config, completion, advantage, several)
            for completion, advantage in zip(members, advantages_of(members), strict=True)
        ]
        for members in draft
    ]
    loss = mean_of([[[t.loss for t in own] for own in group] for group in terms], normalise)
    by_place = {}
    for g, group in enumerate(terms):
        for s, own in enumerate(group):
            drawn = [at for at, t in enumerate(draft[g][s].tokens) if t.drawn]
            for index, (at, term) in enumerate(zip(drawn, own, strict=True)):
                share = share_of(terms, g, s, index, normalise)
                by_place[g, s, g + 2 + at] = term._replace(
                    slope=share * term.slope, entropy_slope=share * term.entropy_slope
                )
    return loss, by_place


def share_of(terms, g, s, index, normalise):
    """How much the whole loss grows with one token's: the mean of a 1 there and 0 elsewhere."""
    values = [[[0.0] * len(own) for own in group] for group in terms]
    values[g][s][index] = 1.0
    return mean_of(values, normalise)
