"""Problems put to a model: what is asked, and the sampling of many such trials in one stream.

Grading goes on in the scorer's processes while the engine samples; both are kept as they happen
(rollouts/completions.py), so that a killed process goes on without sampling anything again.
"""

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol as Interface

from rewards.problem import Problem, Response, Score, Verdict
from rewards.scorer import Scorer, TimedFuture
from rollouts.collect import GraderHealth
from rollouts.completions import Key, Saved, Store
from rollouts.rollout import Request, Sampling
from rollouts.seeds import request_seed

ANY_VERSION = -1
"""An engine that has published nothing holds the checkpoint that it loaded: what is measured."""


class Finished(Interface):
    """What a completion must say of itself; one that comes over HTTP has no ids."""

    request_id: str
    token_ids: tuple[int, ...]
    text: str
    finish: str

    @property
    def num_tokens(self) -> int:
        """Sampled tokens, the end token included."""
        ...


class Samples(Interface):
    """What answers requests: an engine, or a server (rollouts/endpoint.py)."""

    def sample(self, requests: Sequence[Request]) -> Iterator[Finished]:
        """One completion a request, as they finish."""
        ...


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A benchmark, or other problems, asked of one model in one way.

    Example: 30 problems of AIME with 64 samples each are 1,920 requests, whose seeds derive from
    (seed, problem id, sample index).

    Attributes:
        name: Of the trial; unique among those that are sampled together.
        benchmark: Its name, or the task's.
        problems: With unique ids.
        prompts: Ids of each, in the same order; empty ones for a server, which has its own.
        num_samples: n.
        seed: What request seeds derive from.
        prefill: What the template wrote of the answer.
        counted: What of a completion's text is graded.
        answer_of: The answer that a text votes for; None where answers do not vote.
        format_of: Whether a text has the format that the template asks for; None if it asks for none.
        only: The samples that are asked for; None for all.
    """

    name: str
    benchmark: str
    problems: tuple[Problem, ...]
    prompts: tuple[tuple[int, ...], ...]
    sampling: Sampling
    num_samples: int
    seed: int
    prefill: str = ""
    counted: Callable[[str], str] = str
    answer_of: Callable[[str], str | None] | None = None
    format_of: Callable[[str], bool] | None = None
    only: frozenset[Key] | None = None

    @property
    def num_requests(self) -> int:
        """Problems times samples, unless only some are asked for."""
        return len(self.problems) * self.num_samples if self.only is None else len(self.only)

    @property
    def max_tokens(self) -> int:
        """The longest sequence that an engine must hold."""
        return max(map(len, self.prompts)) + self.sampling.max_tokens

    @cached_property
    def by_id(self) -> dict[str, Problem]:
        """Problems by their ids."""
        return {problem.id: problem for problem in self.problems}

    @property
    def prompts_sha256(self) -> str:
        """Of ids, prompts and answers of all problems, in order: equal hashes ask the same."""
        digest = hashlib.sha256()
        for problem, prompt in zip(self.problems, self.prompts, strict=True):
            digest.update(json.dumps([problem.id, prompt, problem.answer]).encode())
        return digest.hexdigest()

    def requests(self) -> Iterator[tuple[Key, Request]]:
        """Every request with its key; the samples of a problem follow each other."""
        for problem, prompt in zip(self.problems, self.prompts, strict=True):
            for i in range(self.num_samples):
                if self.only is not None and (problem.id, i) not in self.only:
                    continue
                request = Request(
                    id=f"{self.name}/{problem.id}/{i}",
                    token_ids=prompt,
                    sampling=self.sampling,
                    seed=request_seed(self.seed, problem.id, i),
                    min_version=ANY_VERSION,
                )
                yield (problem.id, i), request

    def key_of(self, request_id: str) -> Key:
        """Which completion a request of this trial asks for."""
        problem, _, sample = request_id.removeprefix(f"{self.name}/").rpartition("/")
        return problem, int(sample)

    def response(self, saved: Saved) -> Response:
        """What is graded of a completion."""
        return Response(
            text=self.counted(saved.text),
            prefill=self.prefill,
            num_tokens=saved.num_tokens,
            max_tokens=self.sampling.max_tokens,
            finish=saved.finish,
        )

    def vote(self, response: Response, verdict: Verdict) -> str | None:
        """The answer of a response; where the grader found none, a lenient reading has no vote."""
        if self.answer_of is None or verdict in (Verdict.NO_ANSWER, Verdict.MALFORMED):
            return None
        return self.answer_of(response.full_text)


@dataclass(kw_only=True)
class Progress:
    """How far a stream has come.

    Attributes:
        num_requests: To be sampled in this process.
        num_sampled: Of these.
        num_graded: In this process, those that an earlier one sampled included.
        num_tokens: Sampled.
        sample_s: Seconds from the first request to the last completion, kept and handed on.
        grade_s: Seconds that graders worked, summed over their processes.
        hidden_s: Of these, while the sampler was still at work.
        wait_s: Seconds that grading took longer than sampling.
    """

    num_requests: int
    num_sampled: int = 0
    num_graded: int = 0
    num_tokens: int = 0
    sample_s: float = 0.0
    grade_s: float = 0.0
    hidden_s: float = 0.0
    wait_s: float = 0.0


@dataclass(kw_only=True)
class _Grading:
    """What is being graded, looked at in the order in which it was submitted."""

    score: Scorer
    progress: Progress
    health: GraderHealth = field(default_factory=GraderHealth)
    sampled_at: float = float("inf")
    queue: deque[tuple[Trial, Store, Saved, Future[list[Score]]]] = field(default_factory=deque)

    def submit(self, trial: Trial, store: Store, saved: Saved) -> None:
        """Let a completion be graded, and keep the grades that are known by now."""
        future = self.score.submit(trial.by_id[saved.problem], [trial.response(saved)])
        self.queue.append((trial, store, saved, future))
        while self.queue and self.queue[0][3].done():
            self.take()

    def take(self) -> None:
        """Wait for the first in the queue and keep its grade."""
        trial, store, saved, future = self.queue.popleft()
        score = future.result()[0]
        response = trial.response(saved)
        formatted = trial.format_of(response.full_text) if trial.format_of else None
        answer = trial.vote(response, score.verdict)
        store.grade(saved.key, score, answer=answer, formatted=formatted)
        self.health.record(trial.by_id[saved.problem], response, score)
        self.progress.num_graded += 1
        if isinstance(future, TimedFuture) and future.began is not None:
            worked = future.ended - future.began
            self.progress.grade_s += worked
            self.progress.hidden_s += min(worked, max(0.0, self.sampled_at - future.began))

    def close(self) -> None:
        """Let go of what is left, if something went wrong."""
        for *_, future in self.queue:
            future.cancel()


def run_trials(
    sampler: Samples, trials: Sequence[Trial], stores: Sequence[Store], score: Scorer
) -> Iterator[Progress]:
    """Sample and grade what the stores do not hold yet; yields the progress after each completion and at the end.

    All trials are one stream of requests, so that the engine is never drained between two.

    Raises:
        GraderFailureError: Graders fail by our own fault; what was sampled is kept.
    """
    asked: dict[str, tuple[Trial, Store, Key]] = {}
    requests = []
    for trial, store in zip(trials, stores, strict=True):
        for key, request in trial.requests():
            if key not in store.completions:
                asked[request.id] = (trial, store, key)
                requests.append(request)
    seeds = {request.id: request.seed for request in requests}
    progress = Progress(num_requests=len(requests))
    grading = _Grading(score=score, progress=progress)
    try:
        for trial, store in zip(trials, stores, strict=True):
            for key in [key for key in store.completions if key not in store.grades]:
                grading.submit(trial, store, store.completions[key])
        start = time.perf_counter()
        for completion in sampler.sample(requests):
            trial, store, key = asked.pop(completion.request_id)
            saved = _saved(key, seeds[completion.request_id], completion)
            store.save(saved)
            progress.num_sampled += 1
            progress.num_tokens += saved.num_tokens
            progress.sample_s = time.perf_counter() - start
            grading.submit(trial, store, saved)
            yield progress
        if asked:
            raise AssertionError(f"the sampler left {len(asked)} requests without a completion")
        start = grading.sampled_at = time.perf_counter()
        while grading.queue:
            grading.take()
        progress.wait_s = time.perf_counter() - start
        yield progress
    finally:
        grading.close()


def _saved(key: Key, seed: int, completion: Finished) -> Saved:
    return Saved(
        problem=key[0],
        sample=key[1],
        seed=seed,
        num_tokens=completion.num_tokens,
        finish=completion.finish,
        text=completion.text,
        token_ids=completion.token_ids,
    )
