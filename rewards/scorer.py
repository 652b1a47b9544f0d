"""What scores responses, now or later: the protocol, and the scorer that uses no other process."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

from rewards.adapters import FORMS, adapted
from rewards.problem import Problem, Response, RewardFn, Score, Verdict
from rewards.supervisor import Outcome, control

logger = logging.getLogger(__name__)

MAX_PENDING = 1024
"""Items that `scored_in_order` reads ahead of the first that is not scored yet."""


class TimedFuture(Future[list[Score]]):
    """Scores to come, that will tell when they were worked on.

    Attributes:
        began, ended: When the work was done, by `time.perf_counter`; `began` is None before, and
            where none was needed.
    """

    began: float | None = None
    ended: float | None = None

    def set_running_or_notify_cancel(self) -> bool:
        """Note the time too."""
        self.began = time.perf_counter()
        return super().set_running_or_notify_cancel()

    def set_result(self, result: list[Score]) -> None:
        """Note the time too."""
        self.ended = time.perf_counter()
        super().set_result(result)


@runtime_checkable
class Scorer(Protocol):
    """Scores responses now or later; called with one response it waits."""

    @property
    def takes_group(self) -> bool:
        """True if the responses to a problem must be submitted together."""
        ...

    def submit(self, problem: Problem, responses: Sequence[Response]) -> Future[list[Score]]:
        """One Score a response, as soon as they are there; a `TimedFuture` tells the time too."""
        ...

    def check(self, problem: Problem) -> None:
        """Raise ValueError if the reward does not work on a problem's own answer."""
        ...

    def __call__(self, problem: Problem, response: Response) -> Score: ...


class Inline:
    """A scorer in the caller's own thread: the reward is trusted to return."""

    def __init__(self, reward: Callable[..., Any]):
        """Raises ValueError if the reward has no known form."""
        self.reward = adapted(reward)

    @property
    def takes_group(self) -> bool:
        """As the reward does."""
        return self.reward.takes_group

    def submit(self, problem: Problem, responses: Sequence[Response]) -> TimedFuture:
        """A future that is done; what the reward raises is logged and becomes grader_error."""
        future = TimedFuture()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(self.reward.score(problem, responses))
        except Exception as error:  # noqa: BLE001  the boundary: a reward is anyone's code
            _log_once(f"{type(error).__name__}: {error}")
            future.set_result([Score(value=0.0, verdict=Verdict.GRADER_ERROR)] * len(responses))
        return future

    def check(self, problem: Problem) -> None:
        """As `rewards.pool.RewardPool.check`."""
        try:
            scores = self.reward.score(problem, [control(problem)])
            outcome = Outcome(scores=scores)
        except Exception as error:  # noqa: BLE001  the boundary again
            outcome = Outcome(scores=[], failure=f"raised {type(error).__name__}: {error}")
        check_outcome(outcome, problem)

    def __call__(self, problem: Problem, response: Response) -> Score:
        return self.submit(problem, [response]).result()[0]


def scored_in_order(
    score: RewardFn | Scorer, items: Iterable[tuple[str, Problem, Response]]
) -> Iterator[tuple[str, Response, Score]]:
    """(name, response, score) of (name, problem, response), in their order, as both get ready.

    An item is submitted as it comes, before the one after it is asked for; a plain function is
    called at once. At most `MAX_PENDING` are waited for at a time.
    """
    pending: deque[tuple[str, Response, Future[list[Score]]]] = deque()
    try:
        for name, problem, response in items:
            if isinstance(score, Scorer):
                future = score.submit(problem, [response])
            else:
                future = Future()
                future.set_result([score(problem, response)])
            pending.append((name, response, future))
            while pending and (pending[0][2].done() or len(pending) == MAX_PENDING):
                name, response, future = pending.popleft()
                yield name, response, future.result()[0]
        for name, response, future in pending:
            yield name, response, future.result()[0]
    finally:
        for _, _, future in pending:
            future.cancel()


def check_outcome(outcome: Outcome, problem: Problem) -> None:
    """Raise ValueError if a first try, on the text of the problem's own answer, was no score."""
    if outcome.is_ours:
        said = outcome.failure or f"gave the verdict {outcome.scores[0].verdict}"
        raise ValueError(
            f"the reward {said} on problem {problem.id}, tried with the text of its own "
            f"answer {problem.answer[:80]!r}; mend it first. {FORMS[0].upper()}{FORMS[1:]}"
        )


@lru_cache(maxsize=1024)  # bounded: a message can hold model text
def _log_once(message: str) -> None:
    """Log the exception being handled; the cache makes a second call with `message` a no-op."""
    logger.error("a reward failed: %s", message, exc_info=True)
