"""From problems to scored groups: sample G completions each, score each as it finishes.

What is scored is made into arrays meanwhile, by one thread of its own. Groups come back in the
order their problems were drawn, never in the order they finished.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple

from rewards.problem import Problem, Response, Score
from rewards.scorer import Scorer, TimedFuture
from rollouts.rollout import Completion, Group, Request, Rollout, Sampling
from rollouts.sampler import Sampler
from rollouts.seeds import request_seed
from rollouts.timeline import Timeline

MIN_GROUP = 2


class GraderFailureError(RuntimeError):
    """Too many scores failed by our own fault; the samples say nothing about the policy."""


@dataclass(kw_only=True)
class GraderHealth:
    """Stops the run when graders fail: above 1% of the last 1,000 scores and at least 5 of them.

    Example: four grader errors in the first round pass; the fifth among fewer than 500 stops.
    """

    window: int = 1000
    max_frac: float = 0.01
    min_count: int = 5
    recent: deque[bool] = field(default_factory=deque)

    def record(self, problem: Problem, response: Response, score: Score) -> None:
        """Count one score; raises GraderFailureError with this example when there are too many."""
        self.recent.append(score.verdict.is_ours)
        if len(self.recent) > self.window:
            self.recent.popleft()
        failed = sum(self.recent)
        if failed >= self.min_count and failed > self.max_frac * len(self.recent):
            raise GraderFailureError(
                f"{failed} of the last {len(self.recent)} scores failed in the grader "
                f"({score.verdict}); the last one: problem {problem.id}, "
                f"response {response.text[:200]!r}. Mend the reward, then resume."
            )


@dataclass(frozen=True, kw_only=True)
class Collector:
    """All that turns problems into scored groups.

    Attributes:
        render: A problem's prompt as ids.
        prefill: What the template wrote of the answer.
        score: The reward, at work beside the sampling (rewards.scorer).
        group_size: Completions for each problem, G.
        seed: Of the run; request seeds derive from (seed, round, problem, sample).
        timeline: Spans since somebody last took them: engine (the sampler at work), score (each
            call of the reward), flatten (rollouts made into arrays), and in this thread
            score_wait and flatten_wait.
    """

    sampler: Sampler
    render: Callable[[Problem], tuple[int, ...]]
    score: Scorer
    group_size: int
    seed: int
    prefill: str = ""
    health: GraderHealth = field(default_factory=GraderHealth)
    timeline: Timeline = field(default_factory=Timeline)

    def with_timeline(self, timeline: Timeline) -> "Collector":
        """The same collector, to be used beside it, whose spans go elsewhere."""
        return replace(self, timeline=timeline)

    def collect(
        self,
        problems: Sequence[Problem],
        sampling: Sampling,
        *,
        round_index: int,
        version: int,
        first_row: int = 0,
    ) -> list[Group]:
        """Sample, and score what is finished meanwhile; groups in draw order, with every member.

        Scores are looked at in the order of the samples, however long each took. `first_row`
        counts the groups that the round has already.
        """
        origin: dict[str, tuple[int, int]] = {}
        requests = []
        for row, problem in enumerate(problems):
            for sample in range(self.group_size):
                place = first_row + row
                request = self._request(problem, sampling, round_index, place, sample, version)
                origin[request.id] = (row, sample)
                requests.append(request)
        by_id = {request.id: request for request in requests}
        scoring = _Pending(
            score=self.score,
            health=self.health,
            group_size=self.group_size,
            timeline=self.timeline,
        )
        try:
            for completion in self._sampled(requests):
                row, sample = origin.pop(completion.request_id)
                request = by_id[completion.request_id]
                response = self._response(request, completion)
                scoring.add(problems[row], _Sampled(row, sample, request, completion, response))
            if origin:
                raise AssertionError(
                    f"the sampler left {len(origin)} requests without a completion"
                )
            rollouts = scoring.rollouts()
        finally:
            scoring.close()
        return [
            Group(
                problem=problem,
                rollouts=tuple(rollouts[row, sample] for sample in range(self.group_size)),
            )
            for row, problem in enumerate(problems)
        ]

    def _sampled(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """The sampler's completions; the time until each is the engine's."""
        completions = iter(self.sampler.sample(requests))
        while True:
            with self.timeline("engine"):
                completion = next(completions, None)
            if completion is None:
                return
            yield completion

    def _request(
        self,
        problem: Problem,
        sampling: Sampling,
        round_index: int,
        row: int,
        sample: int,
        version: int,
    ) -> Request:
        return Request(
            id=f"{round_index}/{row}/{sample}",
            token_ids=self.render(problem),
            sampling=sampling,
            seed=request_seed(self.seed, round_index, row, problem.id, sample),
            min_version=version,
        )

    def _response(self, request: Request, completion: Completion) -> Response:
        return Response(
            text=completion.text,
            prefill=self.prefill,
            num_tokens=len(completion.token_ids),
            max_tokens=request.sampling.max_tokens,
            finish=completion.finish,
        )


class _Sampled(NamedTuple):
    row: int
    sample: int
    request: Request
    completion: Completion
    response: Response


@dataclass(kw_only=True)
class _Pending:
    """What is being scored, in the order in which it was submitted, and then made into arrays."""

    score: Scorer
    health: GraderHealth
    group_size: int
    timeline: Timeline
    queue: deque[tuple[Problem, list[_Sampled], Future[list[Score]]]] = field(default_factory=deque)
    members: dict[int, list[_Sampled]] = field(default_factory=dict)
    done: dict[tuple[int, int], Rollout] = field(default_factory=dict)
    flattened: SimpleQueue[Rollout | None] = field(default_factory=SimpleQueue)
    thread: Thread | None = None

    def add(self, problem: Problem, sampled: _Sampled) -> None:
        """Submit a completion, or its whole group once that is there; take what is scored."""
        members = [sampled]
        if self.score.takes_group:
            members = self.members.setdefault(sampled.row, [])
            members.append(sampled)
            if len(members) < self.group_size:
                return
            members.sort(key=lambda member: member.sample)
        with self.timeline("score_wait"):  # a scorer without processes of its own works here
            future = self.score.submit(problem, [member.response for member in members])
        self.queue.append((problem, members, future))
        while self.queue and self.queue[0][2].done():
            self._take()

    def rollouts(self) -> dict[tuple[int, int], Rollout]:
        """All of them by (row, sample), once the last is scored and flattened."""
        while self.queue:
            with self.timeline("score_wait"):
                wait([self.queue[0][2]])
            self._take()
        with self.timeline("flatten_wait"):
            self._end_flattening()
        return self.done

    def close(self) -> None:
        """Let go of what is left, if something went wrong."""
        for _, _, future in self.queue:
            future.cancel()
        self._end_flattening()

    def _take(self) -> None:
        problem, members, future = self.queue.popleft()
        scores = future.result()
        if isinstance(future, TimedFuture) and future.began is not None:
            self.timeline.record("score", future.began, future.ended)
        for member, score in zip(members, scores, strict=True):
            self.health.record(problem, member.response, score)
            rollout = rollout_of(member.request, member.completion, member.response, score)
            self.done[member.row, member.sample] = rollout
            self.flattened.put(rollout)
        if self.thread is None:
            self.thread = Thread(target=self._flatten, daemon=True)
            self.thread.start()

    def _flatten(self) -> None:
        """Make rollouts into arrays, beside the sampling, until None comes."""
        while (rollout := self.flattened.get()) is not None:
            with self.timeline("flatten"):
                rollout.arrays  # noqa: B018  made here, kept by the rollout

    def _end_flattening(self) -> None:
        if self.thread is not None:
            self.flattened.put(None)
            self.thread.join()
            self.thread = None


def graded(groups: Sequence[Group]) -> list[Group]:
    """Groups without the members whose grader failed; one left with fewer than two is dropped.

    Raises GraderFailureError if nothing is left.
    """
    kept = [
        replace(g, rollouts=tuple(r for r in g.rollouts if not r.score.verdict.is_ours))
        for g in groups
    ]
    kept = [group for group in kept if len(group.rollouts) >= MIN_GROUP]
    if not kept:
        raise GraderFailureError("a whole round could not be graded; mend the reward, then resume")
    return kept


def rollout_of(
    request: Request, completion: Completion, response: Response, score: Score
) -> Rollout:
    """One flat sequence of a request and its completion; prompt positions hold logprob 0."""
    num_prompt, num_sampled = len(request.token_ids), len(completion.token_ids)
    return Rollout(
        token_ids=request.token_ids + completion.token_ids,
        sampled=(False,) * num_prompt + (True,) * num_sampled,
        logprobs=(0.0,) * num_prompt + completion.logprobs,
        response=response,
        score=score,
        versions=tuple((v, num_prompt + a, num_prompt + b) for v, a, b in completion.versions),
    )
