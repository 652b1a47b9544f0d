"""Which loss: the policy's, its importance weight, KL and entropy, joined into one number.

The formulas are in `rl.losses`; what they are summed with, and divided by, is in the batch.

Shapes: T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from rl import losses
from rl.losses import TokenLoss
from rl.packing import Batch, PackingConfig
from rollouts.rollout import Group


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Which ratio is clipped, where, and what else is in the loss."""

    objective: Literal["clip", "gspo", "cispo", "sapo", "dppo"] = "clip"
    """clip: GRPO, R1, Dr. GRPO and DAPO; the others by their papers' names (rl/losses.py)."""
    anchor: Literal["sampler", "trainer"] = "trainer"
    """sampler: the ratio is pi/mu, with masks at most. trainer: it is pi/pi_old, times a constant
    weight that makes up for pi_old/mu."""
    clip_low: float = 0.2
    """clip, gspo: the ratio is clipped below at 1 - clip_low."""
    clip_high: float = 0.2
    """clip, gspo, cispo: the ratio is clipped above at 1 + clip_high."""
    dual_clip: float | None = None
    """clip: a bad token's loss is at most so many times its advantage (above 1; 3 is usual)."""
    sapo_temperatures: tuple[float, float] = (1.0, 1.05)
    """sapo: tau of good tokens and of bad ones."""
    dppo_delta: float = 0.15
    """dppo: a token that moved further than this in probability, and would go on, is masked."""
    importance: Literal["truncate", "mask", "none"] = "truncate"
    """With the anchor trainer, the weight pi_old/mu: at most importance_cap, or 0 outside
    importance_low to importance_cap. With the anchor sampler the ratio holds it already: truncate
    does nothing, and mask is of pi/mu, 0 or 1."""
    importance_level: Literal["token", "sequence"] = "token"
    """sequence: the geometric mean of a completion's ratios, given to all its tokens."""
    importance_cap: float = 2.0
    """Of the weight; dppo: of pi/mu."""
    importance_low: float = 0.5
    """mask: the smallest weight that is kept."""
    kl: Literal["k3", "unbiased_k3", "k2", "k1_reward"] = "k3"
    """Estimate of the KL to the reference, in the loss; k1_reward: k1, taken from the reward."""
    kl_coefficient: float = 0.0
    """Its weight; 0 leaves it out, and no reference is kept."""
    reference_every: int = 400
    """The reference becomes the policy of now every so many updates, between rounds (if the KL term is on)."""
    reference_model: str | None = None
    """A checkpoint of the same architecture and vocabulary that the KL term holds to throughout;
    None: the policy as it was at the start, and then as reference_every says."""
    entropy_coefficient: float = 0.0
    """Weight of the entropy, which is raised; 0 leaves it out."""

    @property
    def keeps_no_signal(self) -> bool:
        """True where a group of equal rewards still moves the policy."""
        return self.entropy_coefficient != 0 or (self.kl_coefficient > 0 and self.kl != "k1_reward")


def loss_fault(loss: LossConfig, packing: PackingConfig) -> str | None:
    """What contradicts itself, and the remedy; None if nothing does."""
    named = f"loss.objective {loss.objective}"
    if loss.objective == "dppo" and loss.anchor != "sampler":
        return f"{named} weighs tokens by pi/mu: set loss.anchor to sampler"
    if loss.objective == "gspo" and loss.anchor != "trainer":
        return f"{named} clips so near to 1 that pi/mu is noise to it: set loss.anchor to trainer"
    if loss.objective == "gspo" and packing.normalise != "sequence":
        return f"{named} averages by completion: set packing.normalise to sequence"
    if loss.dual_clip is not None and (loss.objective != "clip" or loss.dual_clip <= 1):
        return (
            f"loss.dual_clip is {loss.dual_clip} with {named}: it is for clip and above 1, or none"
        )
    if loss.kl == "k1_reward" and loss.kl_coefficient > 0:
        return _k1_fault(packing)
    return None


def _k1_fault(packing: PackingConfig) -> str | None:
    """What cannot be told of rewards from which the KL is taken."""
    if packing.advantage_scale == "maxrl":
        return (
            "loss.kl k1_reward takes rewards out of 0..1, which packing.advantage_scale maxrl "
            "needs: set loss.kl to k3 or choose another scale"
        )
    if packing.truncated == "zero":
        return (
            "loss.kl k1_reward lowers rewards, but packing.truncated zero would give completions "
            "that were cut off 0 all the same: set packing.truncated to score or mask"
        )
    return None


def batch_loss(
    logprobs: Tensor, entropy: Tensor, batch: Batch, config: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The scalar loss of a batch (or a part of one) and per-token observations, each [T]."""
    behaviour = batch.behaviour_logprobs
    old = batch.old_logprobs if batch.old_logprobs is not None else logprobs.detach()
    anchor = behaviour if config.anchor == "sampler" else old
    token = policy_loss(logprobs, anchor, batch, config)
    loss = token.loss
    gap = logprobs.detach() - behaviour
    seen = {"gap": gap, "clipped_frac": token.clipped.float(), "ratio": token.ratio}
    weight = importance(old, batch, config)
    if weight is not None:
        loss = loss * weight
        seen["importance"] = weight
    if batch.reference_logprobs is not None:
        penalty = kl_penalty(logprobs, anchor, batch.reference_logprobs, config)
        loss = loss + config.kl_coefficient * penalty
        seen["kl"] = penalty.detach()
    if config.entropy_coefficient != 0:
        loss = loss - config.entropy_coefficient * entropy
    return (loss * batch.token_weights).sum(), seen | {"entropy": entropy.detach()}


def policy_loss(logprobs: Tensor, anchor: Tensor, batch: Batch, config: LossConfig) -> TokenLoss:
    """The objective's loss of each token."""
    advantages, bounds = (
        batch.advantages,
        {"clip_low": config.clip_low, "clip_high": config.clip_high},
    )
    match config.objective:
        case "clip":
            return losses.clipped_policy_loss(
                logprobs, anchor, advantages, dual_clip=config.dual_clip, **bounds
            )
        case "gspo":
            return losses.gspo_loss(
                logprobs, anchor, advantages, batch.sequences, batch.sampled, **bounds
            )
        case "cispo":
            return losses.cispo_loss(logprobs, anchor, advantages, clip_high=config.clip_high)
        case "sapo":
            good, bad = config.sapo_temperatures
            return losses.sapo_loss(
                logprobs, anchor, advantages, tau_positive=good, tau_negative=bad
            )
        case "dppo":
            return losses.dppo_loss(
                logprobs,
                batch.behaviour_logprobs,
                advantages,
                delta=config.dppo_delta,
                cap=config.importance_cap,
            )


def importance(old: Tensor, batch: Batch, config: LossConfig) -> Tensor | None:
    """The constant weight of each token that another policy drew; None for 1."""
    within = (batch.sequences, batch.sampled) if config.importance_level == "sequence" else None
    behaviour, cap = batch.behaviour_logprobs, config.importance_cap
    bounds = {"low": config.importance_low, "high": cap}
    match config.anchor, config.importance:
        case "trainer", "truncate":
            return losses.truncated_importance(old, behaviour, cap, within=within)
        case "trainer", "mask":
            return losses.masked_importance(old, behaviour, **bounds, within=within)
        case "sampler", "mask":
            return losses.importance_mask(old, behaviour, **bounds, within=within)
    return None


def kl_penalty(logprobs: Tensor, anchor: Tensor, reference: Tensor, config: LossConfig) -> Tensor:
    """The estimate that is in the loss."""
    if config.kl == "unbiased_k3":
        return losses.unbiased_k3(logprobs, anchor, reference)
    return (losses.k2 if config.kl == "k2" else losses.k3)(logprobs, reference)


def penalised(
    groups: Sequence[Group], reference: Tensor, batch: Batch, coefficient: float
) -> list[Group]:
    """Groups whose rewards are lower by the KL to the reference, k1 summed over each completion.

    r_i - coefficient * sum_t (log mu - log pi_ref), mu being the policy that drew the tokens.

    Args:
        batch: All sequences of `groups`; `reference` [T] are its logprobs by the reference.
    """
    gaps = losses.k1(batch.behaviour_logprobs, reference) * batch.sampled
    costs: dict[tuple[int, int], float] = {}
    for (group, sample), gap in zip(batch.segments.tolist(), gaps.tolist(), strict=True):
        costs[group, sample] = costs.get((group, sample), 0.0) + coefficient * gap
    changed = []
    for index, group in enumerate(groups):
        rollouts = [
            r.rescored(replace(r.score, value=r.score.value - costs.get((index, sample), 0.0)))
            for sample, r in enumerate(group.rollouts)
        ]
        changed.append(replace(group, rollouts=tuple(rollouts)))
    return changed
