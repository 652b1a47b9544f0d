"""Keeps, over a round's updates, what its second file holds: advantages and the trainer's logprobs.

The logprobs are those that an update computes anyway, before its step; or, if asked for, those of
one more forward pass when the round's last update is done.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from rl.packing import Batch
from rl.policy import Policy
from rl.trained import Trained
from rollouts.rollout import Group

KeptLogprobs = Literal["none", "update", "after"]


class Seen(NamedTuple):
    """One sequence of a batch: its place in the update's groups, its advantage and logprobs."""

    group: int
    sample: int
    advantage: float
    logprobs: np.ndarray


def sequences_seen(part: Batch, logprobs: Tensor) -> list[Seen]:
    """The sequences of a batch, or a part of one, that weigh something; `logprobs` is [T]."""
    lengths, found = part.lengths, []
    values = logprobs.detach().float().cpu().split(lengths)
    cut = [array.cpu().split(lengths) for array in (part.sampled, part.advantages)]
    weights, segments = part.token_weights.cpu().split(lengths), part.segments.cpu().split(lengths)
    for value, sampled, advantage, weight, segment in zip(
        values, *cut, weights, segments, strict=True
    ):
        if weight.any():
            group, sample = segment[0].tolist()
            found.append(Seen(group, sample, advantage[sampled][0].item(), value[sampled].numpy()))
    return found


class Recording:
    """One round's; `rows` gives what to write."""

    def __init__(self, groups: Sequence[Group], keep: KeptLogprobs):
        """`groups` are the round's, as its file holds them."""
        self.keep = keep
        # Groups change on their way into a batch (ungraded members, scores); responses never do.
        self._places = {
            id(rollout.response): (g, s)
            for g, group in enumerate(groups)
            for s, rollout in enumerate(group.rollouts)
        }
        self._updates: list[tuple[Sequence[Group], Batch, list[Seen]]] = []

    def begin(self, share: Sequence[Group], batch: Batch) -> list[Seen] | None:
        """An update begins; gives what it has to fill, or None if nothing is asked of it."""
        self._updates.append((share, batch, []))
        return self._updates[-1][2] if self.keep == "update" else None

    def rows(self, policy: Policy, temperature: float) -> list[Trained]:
        """Everything trained on, in the order of the round file; the same in every process."""
        kept = []
        for number, (share, batch, seen) in enumerate(self._updates):
            if self.keep == "after" and len(batch):
                seen = sequences_seen(batch, policy.frozen_logprobs(batch, temperature))
            elif self.keep == "update":
                seen = policy.ranks.gather(seen)
            for group, sample, advantage, logprobs in seen:
                place = self._places[id(share[group].rollouts[sample].response)]
                kept.append(
                    Trained(
                        group=place[0],
                        sample=place[1],
                        update=number,
                        advantage=advantage,
                        logprobs=logprobs,
                    )
                )
        return sorted(kept, key=lambda row: (row.group, row.sample))
