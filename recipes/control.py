"""A control: the same run with rewards that say nothing about the samples."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from rewards.problem import Problem
from rollouts.collect import Collector
from rollouts.rollout import Group
from rollouts.timeline import Timeline


@dataclass(frozen=True)
class ShuffledCollector:
    """Collects as `collector` does, then lets the scores of each group change places.

    Every group keeps its rewards, so that advantages and step sizes are those of a real run,
    but no sample is more likely to be rewarded for what it says.
    """

    collector: Collector

    @property
    def timeline(self) -> Timeline:
        """The collector's."""
        return self.collector.timeline

    def with_timeline(self, timeline: Timeline) -> "ShuffledCollector":
        """As the collector's."""
        return ShuffledCollector(self.collector.with_timeline(timeline))

    def collect(
        self,
        problems: Sequence[Problem],
        *args: Any,
        round_index: int,
        first_row: int = 0,
        **kw: Any,
    ) -> list[Group]:
        """Groups in draw order with shuffled scores."""
        groups = self.collector.collect(
            problems, *args, round_index=round_index, first_row=first_row, **kw
        )
        place = f"{round_index}/{first_row}" if first_row else f"{round_index}"
        random = Random(f"{self.collector.seed}/shuffle/{place}")
        return [shuffled(group, random) for group in groups]


def shuffled(group: Group, random: Random) -> Group:
    """The same rollouts with their scores permuted."""
    scores = [rollout.score for rollout in group.rollouts]
    random.shuffle(scores)
    rollouts = tuple(r.rescored(s) for r, s in zip(group.rollouts, scores, strict=True))
    return replace(group, rollouts=rollouts)
