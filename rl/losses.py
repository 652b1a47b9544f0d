"""Policy losses, importance weights and KL estimates per token. Pure: tensors in, tensors out.

Shapes: T tokens. Every function takes and gives [T]; who is summed, and divided by what, is
the batch's `token_weights`. pi is the policy now (`logprobs`), mu the one that drew the tokens
(`behaviour_logprobs`), pi_old the trainer before the round's first update (`old_logprobs`); the
anchor of a ratio is one of the last two. Only `logprobs` carry a gradient.

A ratio is the exponential of a difference and is held at e^20 from there on, without gradient:
an infinite one would make NaN of a token whose weight or advantage is 0.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0
Membership = tuple[Tensor, Tensor]
"""(sequences, sampled), as `sequence_mean` takes them."""


@dataclass(frozen=True, kw_only=True)
class TokenLoss:
    """A loss for each token, where the loss cut its gradient, and the ratio, all [T]."""

    loss: Tensor
    clipped: Tensor
    ratio: Tensor


def sequence_mean(values: Tensor, sequences: Tensor, sampled: Tensor) -> Tensor:
    """The mean of `values` over the sampled tokens of a token's own sequence; 0 where not sampled.

    `sequences` [T] int64 holds the number of each token's sequence, any where not sampled.
    Differentiable in `values`. Example: values (9, 1, 3, 5), sequences (-1, 0, 0, 7), sampled
    (F, T, T, T): (0, 2, 2, 5).
    """
    numbers, member = sequences[sampled].unique(return_inverse=True)
    totals = values.new_zeros(len(numbers)).index_add(0, member, values[sampled])
    means = totals / member.bincount(minlength=len(numbers))
    return torch.zeros_like(values).masked_scatter(sampled, means[member])


def clipped_policy_loss(
    logprobs: Tensor,
    anchor_logprobs: Tensor,
    advantages: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> TokenLoss:
    """GRPO's clipped surrogate, negated to be minimised.

    -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), rho = pi / pi_anchor
    (DeepSeekMath, Eq. 3; DeepSeek-R1, Eq. 1; the two bounds apart: DAPO, Eq. 10)

    `dual_clip` c > 1 bounds a bad token too: where A < 0 the loss is at most -c A
    (Ye et al. 2020, arXiv 1912.09729, dual-clip PPO; TRL's `delta` above 1 + clip_high).

    Example: rho 1.5, A 1, clip_high 0.2: loss -1.2, clipped, gradient 0; with A -1: loss 1.5, not
    clipped; rho 5, A -1: loss 5, and with dual_clip 3 loss 3, clipped.
    """
    if dual_clip is not None and dual_clip <= 1.0:
        raise ValueError(
            f"dual_clip must be above 1, got {dual_clip}: 3 is usual, None leaves it out"
        )
    return _clipped(logprobs - anchor_logprobs, advantages, clip_low, clip_high, dual_clip)


def gspo_loss(
    logprobs: Tensor,
    anchor_logprobs: Tensor,
    advantages: Tensor,
    sequences: Tensor,
    sampled: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> TokenLoss:
    """GSPO: the clipped surrogate of one ratio a sequence, given to each of its tokens.

    -min(s A, clip(s, 1 - clip_low, 1 + clip_high) A), s = exp(mean_t(log pi - log pi_anchor))
    (Zheng et al. 2025, arXiv 2507.18071, Eqs. 5 and 7)

    With weights 1 / (G |o_i|) the sum is the paper's objective, and log pi of each token has
    gradient -s A / (G |o_i|). The advantage is one a sequence (GSPO-token, Eq. 13, is then the
    same); so should be any importance weight, for what one token is given all of them share.

    Example: ratios 1.2 and 1 / 1.2 in one sequence: s 1, loss -A at both tokens.
    """
    log_ratio = sequence_mean(logprobs - anchor_logprobs, sequences, sampled)
    return _clipped(log_ratio, advantages, clip_low, clip_high, None)


def cispo_loss(
    logprobs: Tensor, anchor_logprobs: Tensor, advantages: Tensor, *, clip_high: float
) -> TokenLoss:
    """CISPO: a policy gradient whose weight is capped; no token is dropped.

    -sg(min(rho, 1 + clip_high)) A log pi, rho = pi / pi_anchor
    (MiniMax-M1, arXiv 2506.13585, Eqs. 4 and 5, without a lower bound as in its experiments)

    TRL's `epsilon_high` is the cap itself (ScaleRL), ours the paper's: 4 here is 5 there.
    `clipped` is where the cap held. Example: rho 3, A 1, clip_high 1, log pi -0.5: weight 2,
    loss 1, gradient -2.
    """
    ratio = _ratio(logprobs, anchor_logprobs).detach()
    weight = ratio.clamp(max=1.0 + clip_high)
    clipped = (weight < ratio) & (advantages != 0)
    return TokenLoss(loss=-weight * advantages * logprobs, clipped=clipped, ratio=ratio)


def sapo_loss(
    logprobs: Tensor,
    anchor_logprobs: Tensor,
    advantages: Tensor,
    *,
    tau_positive: float = 1.0,
    tau_negative: float = 1.05,
) -> TokenLoss:
    """SAPO: a soft gate instead of a clip; nothing is ever cut, so `clipped` is False.

    -(4 / tau) sigmoid(tau (rho - 1)) A, tau = tau_positive where A > 0, else tau_negative
    (Gao et al. 2025, arXiv 2511.20347, the objective and its gate)

    The gradient by log pi is -4 p (1 - p) rho A with p the sigmoid: -A at rho 1.
    Example: rho 1, A 1: loss -2, gradient -1; rho 3: p 0.8808, loss -3.5232, gradient -1.2599.
    """
    ratio = _ratio(logprobs, anchor_logprobs)
    tau = torch.full_like(ratio, tau_negative).masked_fill(advantages > 0, tau_positive)
    gate = 4.0 / tau * torch.sigmoid(tau * (ratio - 1.0))
    clipped = torch.zeros_like(advantages, dtype=torch.bool)
    return TokenLoss(loss=-gate * advantages, clipped=clipped, ratio=ratio.detach())


def dppo_loss(
    logprobs: Tensor, behaviour_logprobs: Tensor, advantages: Tensor, *, delta: float, cap: float
) -> TokenLoss:
    """DPPO, Binary-TV: drop tokens whose probability has gone further than delta the way A pushes.

    -sg(min(pi / mu, cap)) A log pi, and 0 where A > 0 and pi - mu > delta,
    or A < 0 and pi - mu < -delta
    (Qi et al. 2026, arXiv 2602.04879; the weight detached and capped as in the authors' code)

    Probabilities and no ratios: a rare token may move by a large ratio. The anchor is mu.
    Example: pi 0.5, mu 0.4, A 1, delta 0.15, cap 5: weight 1.25, gradient -1.25; with mu 0.3
    the token is dropped.
    """
    ratio = _ratio(logprobs, behaviour_logprobs).detach()
    moved = logprobs.detach().exp() - behaviour_logprobs.exp()
    dropped = ((advantages > 0) & (moved > delta)) | ((advantages < 0) & (moved < -delta))
    loss = -ratio.clamp(max=cap) * advantages * logprobs
    return TokenLoss(loss=loss.masked_fill(dropped, 0.0), clipped=dropped, ratio=ratio)


def truncated_importance(
    old_logprobs: Tensor,
    behaviour_logprobs: Tensor,
    cap: float,
    *,
    within: Membership | None = None,
) -> Tensor:
    """Constant weight min(pi_old / mu, cap) for tokens that another policy drew.

    (truncated importance sampling, Yao et al. 2025.) With `within`, pi_old/mu is the geometric
    mean over each sequence (1 where not sampled); Liu et al. 2025 (richardli.xyz/rl-collapse) and
    TRL take the product there, which shrinks or grows with length. Example: pi_old/mu 3 and cap 2
    give 2.
    """
    return _importance(old_logprobs, behaviour_logprobs, within).clamp(max=cap)


def masked_importance(
    old_logprobs: Tensor,
    behaviour_logprobs: Tensor,
    *,
    low: float,
    high: float,
    within: Membership | None = None,
) -> Tensor:
    """Constant weight pi_old / mu where low <= pi_old / mu <= high, else 0.

    (IcePop: Ring-1T, arXiv 2510.18855, Eqs. 1 and 2: what is kept weighs the ratio, not 1; there
    [0.5, 5].) With `within`, by the geometric mean over each sequence, and a whole one is kept or
    goes. TRL's masks have no lower bound by default. Example, bounds 0.5 and 2: pi_old/mu 3 gives
    0, 1.5 gives 1.5.
    """
    ratio = _importance(old_logprobs, behaviour_logprobs, within)
    return ratio.masked_fill((ratio < low) | (ratio > high), 0.0)


def importance_mask(
    old_logprobs: Tensor,
    behaviour_logprobs: Tensor,
    *,
    low: float,
    high: float,
    within: Membership | None = None,
) -> Tensor:
    """Constant weight 1 where `masked_importance` keeps a token, else 0.

    For a loss whose ratio is pi / mu already, with pi for `old_logprobs`. By sequence this is
    geometric rejection (Liu et al. 2025, part 3). Example, bounds 0.5 and 2: pi_old/mu 3 gives 0,
    1.5 gives 1.
    """
    ratio = _importance(old_logprobs, behaviour_logprobs, within)
    return ((ratio >= low) & (ratio <= high)).to(ratio.dtype)


def k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Schulman's plain estimate of KL(pi || pi_ref): log pi - log pi_ref.

    (Schulman 2020, "Approximating KL divergence".) To be measured or taken from the reward; in
    the loss its gradient is 1 for every token, which is 0 on average, whatever the reference.
    Example: pi 0.5, pi_ref 0.25: 0.6931; the other way round -0.6931.
    """
    return logprobs - reference_logprobs


def k2(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Half the squared log ratio: (log pi - log pi_ref)^2 / 2.

    (Schulman 2020.) A biased value, but for tokens drawn from pi its gradient, log pi - log pi_ref,
    is on average that of KL(pi || pi_ref). Example: a ratio of 2 or 1/2 gives 0.2402.
    """
    return 0.5 * (logprobs - reference_logprobs).square()


def k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Schulman's estimate of KL(pi || pi_ref), in the loss: r - log r - 1, r = pi_ref / pi.

    (DeepSeekMath, Eq. 4; DeepSeek-R1, Eq. 2.) Its gradient, 1 - r, is on average that of
    KL(pi_ref || pi). Example: r = 2 gives 2 - 0.6931 - 1 = 0.3069.
    """
    log_ratio = (reference_logprobs - logprobs).clamp(max=MAX_LOG_RATIO)
    return torch.exp(log_ratio) - log_ratio - 1.0


def unbiased_k3(logprobs: Tensor, old_logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """k3 of a token drawn from pi_old, unbiased in value and gradient.

    w (r - log r - 1), w = pi / pi_old, r = pi_ref / pi   (DeepSeek-V3.2, arXiv 2512.02556, Eq. 7)

    The gradient flows through w, or it would not be unbiased as the paper has it: it is
    w (log pi - log pi_ref). Computed as pi_ref / pi_old + w (-log r - 1), the same and finite
    where r is not. Example: pi 0.5, pi_old 0.25, pi_ref 0.25: 2 (0.5 + 0.6931 - 1) = 0.3863,
    gradient 1.3863.
    """
    policy = (logprobs - old_logprobs).clamp(max=MAX_LOG_RATIO)
    reference = (reference_logprobs - old_logprobs).clamp(max=MAX_LOG_RATIO)
    return torch.exp(reference) + torch.exp(policy) * (policy - reference - 1.0)


def _ratio(logprobs: Tensor, anchor_logprobs: Tensor) -> Tensor:
    return torch.exp((logprobs - anchor_logprobs).clamp(max=MAX_LOG_RATIO))


def _clipped(
    log_ratio: Tensor,
    advantages: Tensor,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
) -> TokenLoss:
    ratio = torch.exp(log_ratio.clamp(max=MAX_LOG_RATIO))
    bounded = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    surrogate = torch.minimum(ratio * advantages, bounded * advantages)
    clipped = (bounded * advantages) < (ratio * advantages)
    clipped = clipped | ((log_ratio > MAX_LOG_RATIO) & (advantages < 0))
    if dual_clip is not None:
        floor = dual_clip * advantages
        below = (advantages < 0) & (surrogate < floor)
        surrogate, clipped = torch.where(below, floor, surrogate), clipped | below
    return TokenLoss(loss=-surrogate, clipped=clipped, ratio=ratio.detach())


def _importance(
    old_logprobs: Tensor, behaviour_logprobs: Tensor, within: Membership | None
) -> Tensor:
    log_ratio = (old_logprobs - behaviour_logprobs).detach()
    if within is not None:
        log_ratio = sequence_mean(log_ratio, *within)
    return torch.exp(log_ratio.clamp(max=MAX_LOG_RATIO))
