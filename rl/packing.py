"""From groups and advantages to one packed batch, and from that to micro-batches.

The batch carries its own denominator: `token_weights` hold every division of the loss, counted
over the whole update, so that the loss is a plain sum however the batch is cut.

Shapes: G group, T tokens (all sequences of the update one after another, no padding).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rl.advantages import (
    AdvantageScale,
    batch_standard_deviation,
    group_advantages,
    has_signal,
)
from rollouts.rollout import Group, Rollout

Normalise = Literal["sequence", "token", "constant"]
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
        ages: [T] int64 or None, where sampling runs ahead: by how many rounds the policy is newer
            than the one that drew the token.
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
    ages: Tensor | None = None

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence, in row order."""
        starts = (self.positions == 0).nonzero().squeeze(-1).tolist()
        return [stop - start for start, stop in pairwise([*starts, len(self)])]

    @property
    def sequences(self) -> Tensor:
        """[T] which sequence of the batch each token belongs to."""
        return (self.positions == 0).cumsum(0) - 1

    @property
    def prompt_lengths(self) -> list[int]:
        """Tokens of each sequence before its first sampled one, in row order."""
        parts = self.sampled.to(torch.uint8).split(self.lengths)
        return [int(part.argmax()) for part in parts]

    def __len__(self) -> int:
        return len(self.token_ids)

    def cut(self, start: int, stop: int) -> "Batch":
        """The tokens [start, stop) of every array."""
        return self._map(lambda array: array[start:stop])

    def pick(self, places: Tensor) -> "Batch":
        """The tokens at these places of every array."""
        return self._map(lambda array: array[places])

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return self._map(lambda array: array.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(a) for name, a in held.items() if a is not None})


@dataclass(frozen=True, kw_only=True)
class PackingConfig:
    """How rewards become advantages and how tokens are weighed."""

    advantage_scale: AdvantageScale = "std"
    """What becomes of a group's centred rewards (rl/advantages.py)."""
    advantage_epsilon: float = 1e-6
    """Added to a standard deviation."""
    normalise: Normalise = "sequence"
    """sequence: mean over a completion's tokens, then completions, then groups (GRPO);
    token: mean over all trained tokens of the update (DAPO); constant: sum over a completion's
    tokens divided by the token limit in force, then mean over completions and groups (Dr. GRPO)."""
    truncated: Truncated = "score"
    """Completions cut off by the limit: score them as they are, score them zero, or mask them
    (out of loss and denominator, their reward kept in the group's mean)."""


def pack(groups: Sequence[Group], config: PackingConfig, *, keep_no_signal: bool) -> Batch:
    """One update's batch of whole groups, the largest first and in each the longest first.

    Groups without signal count in every denominator; their tokens are left out unless
    `keep_no_signal` (a KL term would still move them).
    """
    rows: list[tuple[int, int, Rollout, float, float]] = []
    trained = [[r for r in group.rollouts if not _masked(r, config)] for group in groups]
    num_groups = sum(bool(members) for members in trained)
    num_tokens = sum(r.arrays.num_sampled for members in trained for r in members)
    rewards = [torch.tensor(_rewards(group, config), dtype=torch.float64) for group in groups]
    batch_std = batch_standard_deviation(rewards)
    for index, (group, members) in enumerate(zip(groups, trained, strict=True)):
        if not (keep_no_signal or has_signal(rewards[index])):
            continue
        advantages = group_advantages(
            rewards[index],
            scale=config.advantage_scale,
            epsilon=config.advantage_epsilon,
            batch_std=batch_std,
        ).tolist()
        for sample, (rollout, advantage) in enumerate(zip(group.rollouts, advantages, strict=True)):
            if not _masked(rollout, config):
                share = num_groups * len(members) * _divisor(rollout, config)
                weight = 1.0 / (num_tokens if config.normalise == "token" else share)
                rows.append((index, sample, rollout, advantage, weight))
    sizes = [sum(len(rollout.token_ids) for rollout in group.rollouts) for group in groups]
    rows.sort(key=lambda row: (-sizes[row[0]], row[0], -len(row[2].token_ids)))
    return _concatenate(rows)


def micro_batches(batch: Batch, max_tokens: int) -> Iterator[Batch]:
    """Cut between sequences into parts of at most `max_tokens`; the loss stays the same sum.

    A prompt counts once for the sequences of its group that follow one another.
    """
    start = end = size = 0
    before = None
    groups = batch.segments[:, 0].tolist()
    for length, prompt in zip(batch.lengths, batch.prompt_lengths, strict=True):
        shares = end > start and groups[end] == before
        more = length - prompt if shares else length
        if end > start and size + more > max_tokens:
            yield batch.cut(start, end)
            start, size, more = end, 0, length
        before = groups[end]
        end, size = end + length, size + more
    if end > start:
        yield batch.cut(start, end)


def _divisor(rollout: Rollout, config: PackingConfig) -> int:
    """Of a completion's own sum: its sampled tokens, or the most that it could have had."""
    if config.normalise != "constant":
        return rollout.arrays.num_sampled
    if rollout.response.max_tokens < 1:
        raise ValueError(
            "packing.normalise constant divides by the token limit, which these rollouts do not "
            "carry: choose sequence or token"
        )
    return rollout.response.max_tokens


def _masked(rollout: Rollout, config: PackingConfig) -> bool:
    return config.truncated == "mask" and rollout.response.finish == "length"


def _rewards(group: Group, config: PackingConfig) -> list[float]:
    zero = config.truncated == "zero"
    return [
        0.0 if zero and rollout.response.finish == "length" else rollout.score.value
        for rollout in group.rollouts
    ]


def _concatenate(rows: Sequence[tuple[int, int, Rollout, float, float]]) -> Batch:
    """One batch of (group, sample, rollout, advantage, weight), in this order."""
    if not rows:
        return Batch(
            token_ids=torch.zeros(0, dtype=torch.int64),
            positions=torch.zeros(0, dtype=torch.int64),
            segments=torch.zeros(0, 2, dtype=torch.int64),
            sampled=torch.zeros(0, dtype=torch.bool),
            behaviour_logprobs=torch.zeros(0),
            advantages=torch.zeros(0),
            token_weights=torch.zeros(0),
        )
    groups, samples, rollouts, advantages, weights = zip(*rows, strict=True)
    arrays = [rollout.arrays for rollout in rollouts]
    sizes = torch.tensor([len(a.token_ids) for a in arrays])
    sampled = torch.from_numpy(np.concatenate([a.sampled for a in arrays]))
    starts = sizes.cumsum(0) - sizes
    return Batch(
        token_ids=torch.from_numpy(np.concatenate([a.token_ids for a in arrays])),
        positions=torch.arange(len(sampled)) - starts.repeat_interleave(sizes),
        segments=torch.stack(
            [torch.tensor(n).repeat_interleave(sizes) for n in (groups, samples)], 1
        ),
        sampled=sampled,
        behaviour_logprobs=torch.from_numpy(np.concatenate([a.logprobs for a in arrays])),
        advantages=torch.tensor(advantages, dtype=torch.float32).repeat_interleave(sizes) * sampled,
        token_weights=torch.tensor(weights, dtype=torch.float32).repeat_interleave(sizes) * sampled,
    )
