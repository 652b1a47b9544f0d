"""Losses, weights and divergences of single tokens in plain Python: slow oracles for rl/losses.py.

Each follows its paper by cases or by products of probabilities, where the code under test works
on tensors of log ratios. A token loss gives (loss, its slope by log pi, whether that was cut).
"""

import math
from collections.abc import Callable, Sequence


def slope(function: Callable[[float], float], at: float, step: float = 1e-5) -> float:
    """The central difference quotient."""
    return (function(at + step) - function(at - step)) / (2 * step)


def clipped(logprob, anchor, advantage, low, high, dual=None):
    """PPO's clip as three cases in which the loss is flat, and one in which it is not."""
    ratio = math.exp(logprob) / math.exp(anchor)
    if advantage > 0 and ratio > 1 + high:
        return -(1 + high) * advantage, 0.0, True
    if advantage < 0 and ratio < 1 - low:
        return -(1 - low) * advantage, 0.0, True
    if advantage < 0 and dual is not None and ratio > dual:
        return -dual * advantage, 0.0, True
    return -ratio * advantage, -ratio * advantage, False


def cispo(logprob, anchor, advantage, high):
    """MiniMax-M1, Eqs. 4 and 5."""
    ratio = math.exp(logprob) / math.exp(anchor)
    weight = ratio if ratio <= 1 + high else 1 + high
    return -weight * advantage * logprob, -weight * advantage, ratio > 1 + high and advantage != 0


def sapo(logprob, anchor, advantage, tau_positive, tau_negative):
    """The slope is a difference quotient of the loss, not the paper's formula for it."""
    tau = tau_positive if advantage > 0 else tau_negative

    def loss(x):
        ratio = math.exp(x) / math.exp(anchor)
        return -4 / tau / (1 + math.exp(-tau * (ratio - 1))) * advantage

    return loss(logprob), slope(loss, logprob), False


def dppo(logprob, behaviour, advantage, delta, cap):
    """Binary-TV: how far the probability itself has moved, in the direction that A asks for."""
    pi, mu = math.exp(logprob), math.exp(behaviour)
    if (advantage > 0 and pi - mu > delta) or (advantage < 0 and mu - pi > delta):
        return 0.0, 0.0, True
    weight = min(pi / mu, cap)
    return -weight * advantage * logprob, -weight * advantage, False


def gspo_objective(
    completions: Sequence[tuple[Sequence[float], Sequence[float], float]], low, high
):
    """Negated GSPO objective (Eq. 5) of one group of (logprobs, anchor logprobs, advantage)."""
    total = 0.0
    for logprobs, anchors, advantage in completions:
        likelihood = math.prod(
            math.exp(x) / math.exp(a) for x, a in zip(logprobs, anchors, strict=True)
        )
        ratio = likelihood ** (1 / len(logprobs))
        bounded = min(max(ratio, 1 - low), 1 + high)
        total += min(ratio * advantage, bounded * advantage)
    return -total / len(completions)


def sequence_mean(values, sequences, sampled):
    """Two loops over the tokens."""
    means = []
    for sequence, drawn in zip(sequences, sampled, strict=True):
        own = [
            value
            for value, other, counts in zip(values, sequences, sampled, strict=True)
            if counts and other == sequence
        ]
        means.append(sum(own) / len(own) if drawn else 0.0)
    return means


def importance(old, behaviour, sequences=None, sampled=None):
    """pi_old / mu of each token, or the geometric mean of its sequence (1 where not sampled)."""
    ratios = [math.exp(o) / math.exp(b) for o, b in zip(old, behaviour, strict=True)]
    if sequences is None:
        return ratios
    geometric = []
    for sequence, drawn in zip(sequences, sampled, strict=True):
        own = [
            ratio
            for ratio, other, counts in zip(ratios, sequences, sampled, strict=True)
            if counts and other == sequence
        ]
        geometric.append(math.prod(own) ** (1 / len(own)) if drawn else 1.0)
    return geometric


def k3(logprob, reference):
    ratio = math.exp(reference) / math.exp(logprob)
    return ratio - math.log(ratio) - 1


def unbiased_k3(logprob, old, reference):
    """DeepSeek-V3.2, Eq. 7, as a product."""
    return math.exp(logprob) / math.exp(old) * k3(logprob, reference)
