"""Policy losses and KL estimates per token. Pure: tensors in, tensors out.

Shapes: T tokens. Every function takes and gives [T]; who is summed, and divided by what, is
the batch's `token_weights`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TokenLoss:
    """A loss for each token, and where the clip cut its gradient, both [T]."""

    loss: Tensor
    clipped: Tensor
    ratio: Tensor


def clipped_policy_loss(
    logprobs: Tensor,
    anchor_logprobs: Tensor,
    advantages: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> TokenLoss:
    """GRPO's clipped surrogate, negated to be minimised.

    -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), rho = pi / pi_anchor
    (DeepSeekMath, Eq. 3; DeepSeek-R1, Eq. 1; the two bounds apart: DAPO, Eq. 10)

    `anchor_logprobs` carry no gradient. Example: rho 1.5, A 1, clip_high 0.2: loss -1.2, clipped,
    gradient 0; with A -1: loss 1.5, not clipped.
    """
    ratio = torch.exp(logprobs - anchor_logprobs)
    bounded = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    surrogate = torch.minimum(ratio * advantages, bounded * advantages)
    clipped = (bounded * advantages) < (ratio * advantages)
    return TokenLoss(loss=-surrogate, clipped=clipped, ratio=ratio.detach())


def truncated_importance(old_logprobs: Tensor, behaviour_logprobs: Tensor, cap: float) -> Tensor:
    """Constant weight min(pi_old / mu, cap) for tokens that another policy drew.

    (truncated importance sampling, Yao et al. 2025.) Example: pi_old/mu 3 and cap 2 give 2.
    """
    return torch.exp(old_logprobs - behaviour_logprobs).clamp(max=cap).detach()


def k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Schulman's estimate of KL(pi || pi_ref), in the loss: r - log r - 1, r = pi_ref / pi.

    (DeepSeekMath, Eq. 4; DeepSeek-R1, Eq. 2.) Example: r = 2 gives 2 - 0.6931 - 1 = 0.3069.
    """
    log_ratio = reference_logprobs - logprobs
    return torch.exp(log_ratio) - log_ratio - 1.0
