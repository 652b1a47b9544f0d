"""One optimizer step: micro-batches forward and backward, clip, step; with its metrics."""

import math
from collections.abc import Iterable
from dataclasses import replace

from rl.metrics import Totals, sum_totals
from rl.objective import LossConfig, batch_loss
from rl.optimizer import NonFiniteGradientError
from rl.packing import Batch
from rl.policy import Policy
from rl.recording import Seen, sequences_seen


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
    if config.kl_coefficient > 0 and config.kl != "k1_reward":
        batches = [
            replace(b, reference_logprobs=policy.reference_logprobs(b, temperature))
            for b in batches
        ]
    return batches


def update(
    policy: Policy,
    batch: Batch,
    config: LossConfig,
    *,
    temperature: float,
    rate: float,
    seen: list[Seen] | None = None,
) -> dict[str, float]:
    """One optimizer step on one packed batch; gives its metrics.

    The loss is the plain sum of token losses times `batch.token_weights`. An empty batch (no
    group had signal) still steps the optimizer. Several processes take a share of the
    micro-batches each, and step and tell alike; `seen`, if given, gets the sequences of this
    process's share with the logprobs before the step. Raises NonFiniteGradientError with the
    parameters unchanged.
    """
    totals = Totals()
    for part in policy.micro_batches(batch):
        part = part.to(policy.device)
        logprobs, entropy = policy.logprobs(part, temperature)
        loss, observed = batch_loss(logprobs, entropy, part, config)
        (loss * policy.optimizer.loss_scale).backward()
        totals.add(observed, part.token_weights > 0, loss.item(), part.ages)
        if seen is not None:
            seen += sequences_seen(part, logprobs)
    totals = sum_totals(policy.ranks.gather([totals]))
    if not math.isfinite(totals.loss):
        policy.optimizer.zero_grad()
        raise NonFiniteGradientError(f"the loss is {totals.loss}")
    norm = policy.optimizer.step(rate)
    return totals.means() | {"update/gradient_norm": norm, "update/learning_rate": rate}
