"""From groups and advantages to one packed batch, and from that to micro-batches.

The batch carries its own denominator: `token_weights` hold every division of the loss, counted
over the whole update, so that the loss is a plain sum however the batch is cut.

Shapes: G group, T tokens (all sequences of the update one after another, no padding).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from rl.advantages import group_advantages, has_signal
from rollouts.rollout import Group, Rollout

Normalise = Literal["sequence", "token"]
Truncated = Literal["score", "zero", "mask"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Packed sequences of one update, every array aligned to `token_ids`.

    Example: two completions (8, 2) and (9,) of the prompt (5, 6), rewards 1 and 0, normalised
    by sequence: token_ids (5, 6, 8, 2, 5, 6, 9), positions (0, 1, 2, 3, 0, 1, 2), segments
    ((0, 0) x 4, (0, 1) x 3), sampled (F, F, T, T, F, F, T), advantages (0, 0, .71, .71, 0, 0, -.71),
    token_weights (0, 0, 1/4, 1/4, 0, 0, 1/2).

    Attributes:
        token_ids, positions: [T] int64.
        segments: [T, 2] int64, (group, sample) of each token.
        sampled: [T] bool, tokens that are trained.
        behaviour_logprobs: [T], of the policy that drew the token (mu).
        old_logprobs: [T] or None, of the trainer when the round's first update starts (pi_old).
        reference_logprobs: [T] or None.
        advantages: [T].
        token_weights: [T], zero where not trained.
    """

    token_ids: Tensor
    positions: Tensor
    segments: Tensor
    sampled: Tensor
    behaviour_logprobs: Tensor
    advantages: Tensor
    token_weights: Tensor
    old_logprobs: Tensor | None = None
    reference_logprobs: Tensor | None = None

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence, in row order."""
        starts = (self.positions == 0).nonzero().squeeze(-1).tolist()
        return [stop - start for start, stop in pairwise([*starts, len(self)])]

    def __len__(self) -> int:
        return len(self.token_ids)

    def cut(self, start: int, stop: int) -> "Batch":
        """The tokens [start, stop) of every array."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: a[start:stop] for name, a in held.items() if a is not None})

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: a.to(device) for name, a in held.items() if a is not None})


@dataclass(frozen=True, kw_only=True)
class PackingConfig:
    """How rewards become advantages and how tokens are weighed."""

    advantage_scale: Literal["std", "none"] = "std"
    """Divide a group's centred rewards by their standard deviation, or not (Dr. GRPO)."""
    advantage_epsilon: float = 1e-6
    """Added to the standard deviation."""
    normalise: Normalise = "sequence"
    """sequence: mean over a completion's tokens, then completions, then groups (GRPO);
    token: mean over all trained tokens of the update (DAPO)."""
    truncated: Truncated = "score"
    """Completions cut off by the limit: score them as they are, score them zero, or mask them
    (out of loss and denominator, their reward kept in the group's mean)."""


def pack(groups: Sequence[Group], config: PackingConfig, *, keep_no_signal: bool) -> Batch:
    """One update's batch of whole groups, longest sequences first.

    Groups without signal count in every denominator; their tokens are left out unless
    `keep_no_signal` (a KL term would still move them).
    """
    rows: list[tuple[int, int, Rollout, float, float]] = []
    trained = [[r for r in group.rollouts if not _masked(r, config)] for group in groups]
    num_groups = sum(bool(members) for members in trained)
    num_tokens = sum(sum(r.sampled) for members in trained for r in members)
    for index, (group, members) in enumerate(zip(groups, trained, strict=True)):
        rewards = torch.tensor(_rewards(group, config), dtype=torch.float64)
        if not (keep_no_signal or has_signal(rewards)):
            continue
        advantages = group_advantages(
            rewards, scale=config.advantage_scale, epsilon=config.advantage_epsilon
        ).tolist()
        for sample, (rollout, advantage) in enumerate(zip(group.rollouts, advantages, strict=True)):
            if not _masked(rollout, config):
                share = num_groups * len(members) * sum(rollout.sampled)
                weight = 1.0 / (share if config.normalise == "sequence" else num_tokens)
                rows.append((index, sample, rollout, advantage, weight))
    rows.sort(key=lambda row: -len(row[2].token_ids))
    return _concatenate(rows)


def micro_batches(batch: Batch, max_tokens: int) -> Iterator[Batch]:
    """Cut between sequences into parts of at most `max_tokens`; the loss stays the same sum."""
    start = end = 0
    for length in batch.lengths:
        if end > start and end + length - start > max_tokens:
            yield batch.cut(start, end)
            start = end
        end += length
    if end > start:
        yield batch.cut(start, end)


def _masked(rollout: Rollout, config: PackingConfig) -> bool:
    return config.truncated == "mask" and rollout.response.finish == "length"


def _rewards(group: Group, config: PackingConfig) -> list[float]:
    zero = config.truncated == "zero"
    return [
        0.0 if zero and rollout.response.finish == "length" else rollout.score.value
        for rollout in group.rollouts
    ]


def _concatenate(rows: Sequence[tuple[int, int, Rollout, float, float]]) -> Batch:
    ids, positions, segments, sampled, logprobs, advantages, weights = ([] for _ in range(7))
    for index, sample, rollout, advantage, weight in rows:
        size = len(rollout.token_ids)
        ids += rollout.token_ids
        positions += range(size)
        segments += [(index, sample)] * size
        sampled += rollout.sampled
        logprobs += rollout.logprobs
        advantages += [advantage * drawn for drawn in rollout.sampled]
        weights += [weight * drawn for drawn in rollout.sampled]
    return Batch(
        token_ids=torch.tensor(ids, dtype=torch.int64),
        positions=torch.tensor(positions, dtype=torch.int64),
        segments=torch.tensor(segments, dtype=torch.int64).reshape(-1, 2),
        sampled=torch.tensor(sampled, dtype=torch.bool),
        behaviour_logprobs=torch.tensor(logprobs, dtype=torch.float32),
        advantages=torch.tensor(advantages, dtype=torch.float32),
        token_weights=torch.tensor(weights, dtype=torch.float32),
    )
