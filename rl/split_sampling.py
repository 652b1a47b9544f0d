"""A round's sampling and an evaluation's, split over the engines of several processes.

What comes out is in the order of one process, wherever it was sampled. Processes that share an
engine ask it for the same and are given the same; one of them scores and is counted.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from rewards.problem import Problem, Response, Score, Verdict
from rl.ranks import Ranks
from rollouts.exchange import EngineError
from rollouts.rollout import Completion, Group, Request
from rollouts.sampler import Sampler
from rollouts.timeline import Timeline

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class SplitCollector:
    """Collects as `collector` does: each engine samples its share of the problems, scored by one."""

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
        """The groups of all engines, in draw order; request seeds are those of one process.

        Raises EngineError if processes that share an engine were given different tokens.
        """
        start, mine = self.ranks.share(problems)
        collector = (
            self.collector if self.ranks.speaks else replace(self.collector, score=Unscored())
        )
        groups = collector.collect(mine, *args, first_row=first_row + start, **kw)
        sampled = (rollout.token_ids for group in groups for rollout in group.rollouts)
        return gather_shares(self.ranks, groups, sampled)


class Unscored:
    """Scores nothing, where another process scores the same completions."""

    takes_group = False

    def submit(self, problem: Problem, responses: Sequence[Response]) -> Future[list[Score]]:
        """A future that is done, with scores that nobody reads."""
        future: Future[list[Score]] = Future()
        future.set_result([Score(value=0.0, verdict=Verdict.WRONG)] * len(responses))
        return future


@dataclass(frozen=True, kw_only=True)
class SplitSampler:
    """What the first process asks for is sampled by all; it alone is given the completions."""

    sampler: Sampler
    ranks: Ranks

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """All completions of the first process's requests, its own as they finish."""
        _, mine = self.ranks.share(self.ranks.from_first(lambda: requests))
        found: list[Completion] = []
        for completion in self.sampler.sample(mine):
            found.append(completion)
            if self.ranks.is_first:
                yield completion
        sampled = sorted((completion.request_id, completion.token_ids) for completion in found)
        yield from gather_shares(self.ranks, [] if self.ranks.is_first else found, sampled)

    def help(self) -> None:
        """Sample this process's share of what the first process asks for."""
        for _ in self.sample(()):
            pass


def gather_shares(ranks: Ranks, rows: Sequence[Item], sampled: Iterable[Any]) -> list[Item]:
    """The rows of all engines in their order, each engine's by the process that speaks for it.

    Raises EngineError unless what was `sampled` is the same in all processes of an engine.
    """
    if ranks.per_engine == 1:
        return ranks.gather(rows)
    digest = hashlib.blake2b(repr(list(sampled)).encode()).hexdigest()
    found = ranks.gather([(digest, rows if ranks.speaks else ())])
    for place, (digest, _) in enumerate(found):
        if digest != found[place - place % ranks.per_engine][0]:
            raise EngineError(
                f"process {place} was given other tokens than the process that it shares its engine "
                "with: leave engine.tensor_parallel out, and report this model and machine"
            )
    return [row for _, share in found for row in share]
