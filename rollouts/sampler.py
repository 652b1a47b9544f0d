"""The two protocols that the loop is written against: something that samples, and a task."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, Protocol

from rewards.problem import Problem, Response, Score
from rollouts.rollout import Completion, Request

Split = Literal["train", "validation", "test"]


class Sampler(Protocol):
    """A source of completions whose weights can be replaced."""

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Yield one completion a request, as they finish, in no promised order."""
        ...

    def publish(self, weights: Iterable[tuple[str, Any]], version: int) -> None:
        """Replace the weights by (checkpoint name, tensor) pairs and prove them."""
        ...


class Task(Protocol):
    """A data set with its reward. Problems of different splits never meet."""

    @property
    def name(self) -> str:
        """The first part of its problems' ids and sources."""
        ...

    def problems(self, split: Split) -> list[Problem]:
        """All problems of a split, in an order that never changes."""
        ...

    def score(self, problem: Problem, response: Response) -> Score:
        """Grade a response to one of its problems; never raises on model text."""
        ...
