"""A round's sampling and an evaluation's, split over processes that have an engine each.

What comes out is in the order of one process, wherever it was sampled.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rewards.problem import Problem
from rl.ranks import Ranks
from rollouts.rollout import Completion, Group, Request
from rollouts.sampler import Sampler
from rollouts.timeline import Timeline


@dataclass(frozen=True, kw_only=True)
class SplitCollector:
    """Collects as `collector` does: each process samples and scores its share of the problems."""

    collector: Any
    ranks: Ranks

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.collector.seed

    @property
    def timeline(self) -> Timeline:
        """Of this process's share."""
        return self.collector.timeline

    def collect(
        self, problems: Sequence[Problem], *args: Any, first_row: int = 0, **kw: Any
    ) -> list[Group]:
        """The groups of all processes, in draw order; request seeds are those of one process."""
        start, mine = self.ranks.share(problems)
        groups = self.collector.collect(mine, *args, first_row=first_row + start, **kw)
        return self.ranks.gather(groups)


@dataclass(frozen=True, kw_only=True)
class SplitSampler:
    """What the first process asks for is sampled by all; it alone is given the completions."""

    sampler: Sampler
    ranks: Ranks

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """All completions of the first process's requests, its own as they finish."""
        _, mine = self.ranks.share(self.ranks.from_first(lambda: requests))
        others: list[Completion] = []
        for completion in self.sampler.sample(mine):
            if self.ranks.is_first:
                yield completion
            else:
                others.append(completion)
        yield from self.ranks.gather(others)

    def help(self) -> None:
        """Sample this process's share of what the first process asks for."""
        for _ in self.sample(()):
            pass
