"""Metrics of updates, summed over micro-batches: flat names with slashes.

Means are over trained tokens and carry their count, since groups without signal are left out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rl.packing import Batch
from rollouts.rollout import Group


@dataclass(kw_only=True)
class Totals:
    """Sums of per-token observations over the micro-batches of an update.

    Attributes:
        by_age: Where tokens have ages: of each age its tokens, their sum of pi/mu and of k3.
    """

    sums: dict[str, float] = field(default_factory=dict)
    by_age: dict[int, tuple[float, float, float]] = field(default_factory=dict)
    largest_gap: float = 0.0
    num_tokens: int = 0
    loss: float = 0.0

    def add(
        self, seen: dict[str, Tensor], trained: Tensor, loss: float, ages: Tensor | None = None
    ) -> None:
        """Add one micro-batch; `seen` are [T], counted where `trained`; `gap` is log pi - log mu.

        `ages` [T] are in rounds, where sampling runs ahead.
        """
        self.loss += loss
        self.num_tokens += int(trained.sum())
        picked = {name: values.detach()[trained].double() for name, values in seen.items()}
        gap = picked.pop("gap")
        if ages is not None:
            self._add_ages(ages[trained], gap)
        picked |= {"gap_abs": gap.abs(), "gap_k3": torch.exp(gap) - gap - 1}
        for name, values in picked.items():
            self.sums[name] = self.sums.get(name, 0.0) + values.sum().item()
        self.largest_gap = max(self.largest_gap, gap.abs().max().item() if len(gap) else 0.0)

    def _add_ages(self, ages: Tensor, gap: Tensor) -> None:
        for age in ages.unique().tolist():
            held = gap[ages == age]
            sums = float(len(held)), held.exp().sum().item(), (held.exp() - held - 1).sum().item()
            self.by_age[age] = _added(self.by_age.get(age), sums)

    def means(self) -> dict[str, float]:
        """Means over trained tokens under `update/`, with their count."""
        count = max(1, self.num_tokens)
        means = {f"update/{name}": total / count for name, total in self.sums.items()}
        for age, (tokens, ratio, k3) in sorted(self.by_age.items()):
            means |= {
                f"age/{age}/tokens_frac": tokens / count,
                f"age/{age}/ratio": ratio / tokens,
                f"age/{age}/k3": k3 / tokens,
            }
        return means | {
            "update/loss": self.loss,
            "update/trained_tokens": float(self.num_tokens),
            "update/gap_max": self.largest_gap,
        }


def sum_totals(parts: Iterable[Totals]) -> Totals:
    """The observations of several processes together."""
    whole = Totals()
    for part in parts:
        whole.loss += part.loss
        whole.num_tokens += part.num_tokens
        whole.largest_gap = max(whole.largest_gap, part.largest_gap)
        for name, value in part.sums.items():
            whole.sums[name] = whole.sums.get(name, 0.0) + value
        for age, sums in part.by_age.items():
            whole.by_age[age] = _added(whole.by_age.get(age), sums)
    return whole


def _added(
    before: tuple[float, float, float] | None, more: tuple[float, float, float]
) -> tuple[float, float, float]:
    return more if before is None else tuple(a + b for a, b in zip(before, more, strict=True))


def round_metrics(updates: list[dict[str, float]]) -> dict[str, float]:
    """One round's update metrics: means over its updates, mismatch and drift apart.

    Mismatch is the trainer against the sampler on the first minibatch, before it changed;
    drift is the same on the last one, after the earlier updates (0 with one update a round).
    """
    names = sorted({name for metrics in updates for name in metrics})
    merged = {
        name: sum(m[name] for m in updates if name in m) / sum(name in m for m in updates)
        for name in names
        if "gap" not in name
    }
    merged["update/trained_tokens"] = sum(m["update/trained_tokens"] for m in updates)
    for key in ("gap_abs", "gap_k3", "gap_max"):
        first, last = updates[0].get(f"update/{key}"), updates[-1].get(f"update/{key}")
        if first is not None:
            merged[f"mismatch/{key.removeprefix('gap_')}"] = first
        if first is not None and last is not None and len(updates) > 1:
            merged[f"drift/{key.removeprefix('gap_')}"] = last
    return merged


def token_ages(batch: Batch, groups: Sequence[Group], updates: int, per_round: int) -> Tensor:
    """By how many rounds the policy is newer than what drew each token, rounded up, [T] int64.

    Args:
        batch: Packed of `groups`.
        updates: Before the round.
    """
    ages = torch.zeros(len(batch), dtype=torch.int64)
    start = 0
    for length in batch.lengths:
        group, sample = batch.segments[start].tolist()
        for version, begin, stop in groups[group].rollouts[sample].versions:
            ages[start + begin : start + stop] = -(-(updates - version) // per_round)
        start += length
    return ages


def ages_of(groups: Sequence[Group], updates: int) -> dict[str, float]:
    """By how many updates the policy is newer than what drew a round's tokens: mean and largest."""
    ages = [
        (updates - version, stop - start)
        for group in groups
        for rollout in group.rollouts
        for version, start, stop in rollout.versions
    ]
    count = sum(tokens for _, tokens in ages)
    return {
        "rollouts/age_mean": sum(age * tokens for age, tokens in ages) / max(1, count),
        "rollouts/age_max": float(max((age for age, _ in ages), default=0)),
    }
