"""One optimizer step: micro-batches forward and backward, clip, step; with its metrics."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from rl.losses import clipped_policy_loss, k3, truncated_importance
from rl.metrics import Totals
from rl.optimizer import NonFiniteGradientError
from rl.packing import Batch, micro_batches
from rl.policy import Policy


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Which ratio is clipped, where, and what else is in the loss."""

    anchor: Literal["sampler", "trainer"] = "trainer"
    """sampler: the clipped ratio is pi/mu, and no other weight. trainer: it is pi/pi_old, times
    the constant min(pi_old/mu, importance_cap)."""
    clip_low: float = 0.2
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: float = 0.2
    """The ratio is clipped above at 1 + clip_high."""
    importance_cap: float = 2.0
    """Of pi_old/mu when the anchor is the trainer."""
    kl_coefficient: float = 0.0
    """Weight of k3 against the reference, in the loss."""
    reference_every: int = 400
    """The reference becomes the policy of now every so many updates, between rounds (if the KL term is on)."""


def prepare(
    policy: Policy, batches: Iterable[Batch], config: LossConfig, temperature: float
) -> list[Batch]:
    """Add to a round's batches what later updates must not change: old and reference logprobs.

    pi_old is computed only where a round feeds several updates and the anchor is the trainer;
    with one update it is pi itself, detached, at no cost.
    """
    batches = list(batches)
    if config.anchor == "trainer" and len(batches) > 1:
        batches = [replace(b, old_logprobs=policy.frozen_logprobs(b, temperature)) for b in batches]
    if config.kl_coefficient > 0:
        batches = [
            replace(b, reference_logprobs=policy.reference_logprobs(b, temperature))
            for b in batches
        ]
    return batches


def update(
    policy: Policy, batch: Batch, config: LossConfig, *, temperature: float, rate: float
) -> dict[str, float]:
    """One optimizer step on one packed batch; gives its metrics.

    The loss is the plain sum of token losses times `batch.token_weights`. An empty batch (no
    group had signal) still steps the optimizer. Raises NonFiniteGradientError with the
    parameters unchanged.
    """
    totals = Totals()
    for part in micro_batches(batch, policy.config.micro_batch_tokens):
        part = part.to(policy.device)
        logprobs, entropy = policy.logprobs(part, temperature)
        loss, seen = batch_loss(logprobs, part, config)
        if not torch.isfinite(loss):
            policy.optimizer.zero_grad()
            raise NonFiniteGradientError(f"the loss is {loss.item()}")
        loss.backward()
        totals.add(seen | {"entropy": entropy}, part.sampled, loss.item())
    norm = policy.optimizer.step(rate)
    return totals.means() | {"update/gradient_norm": norm, "update/learning_rate": rate}


def batch_loss(
    logprobs: Tensor, batch: Batch, config: LossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The scalar loss of a batch (or a part of one) and per-token observations, each [T]."""
    behaviour = batch.behaviour_logprobs
    old = batch.old_logprobs if batch.old_logprobs is not None else logprobs.detach()
    anchor = behaviour if config.anchor == "sampler" else old
    token = clipped_policy_loss(
        logprobs,
        anchor,
        batch.advantages,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
    )
    loss = token.loss
    gap = logprobs.detach() - behaviour
    seen = {"clipped_frac": token.clipped.float(), "ratio": token.ratio, "gap": gap}
    if config.anchor == "trainer":
        weight = truncated_importance(old, behaviour, config.importance_cap)
        loss = loss * weight
        seen["importance"] = weight
    if batch.reference_logprobs is not None:
        penalty = k3(logprobs, batch.reference_logprobs)
        loss = loss + config.kl_coefficient * penalty
        seen["kl"] = penalty.detach()
    return (loss * batch.token_weights).sum(), seen
