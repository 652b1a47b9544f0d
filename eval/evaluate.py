"""One protocol for before and after: sample problems n times each, grade, estimate.

Leaves out which problems and which prompt: the caller hands both in. Nothing trains here.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eval.estimators import answer_key, is_single_draw
from eval.intervals import Interval
from eval.problem_counts import ProblemCount, maj_at, pass_at, pass_at_1, problem_counts
from eval.rates import sample_rates
from eval.voting import Same, same_answer
from rewards.problem import Problem, Response, RewardFn, Verdict
from rewards.scorer import Scorer, scored_in_order
from rollouts.rollout import Request, Sampling
from rollouts.sampler import Sampler, Split
from rollouts.seeds import request_seed


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What is measured and how."""

    split: Split = "validation"
    """Validation for choices; test is read once, for the final table."""
    num_problems: int = 256
    """Problems, the first so many of the split."""
    num_samples: int = 8
    """n, samples a problem; pass@1 is their mean."""
    k: int | None = None
    """For pass@k and maj@k; None means n, a single draw."""
    temperature: float = 1.0
    """Of sampling; 1.0 measures the very distribution that training changes."""
    top_p: float = 1.0
    """Nucleus; 1.0 keeps every token."""
    top_k: int = -1
    """Most likely tokens kept; -1 keeps all."""
    max_tokens: int = 1024
    """Sampled tokens at most; what is cut off counts as truncated."""
    seed: int = 0
    """Request seeds derive from it; the same before and after training."""

    @property
    def sampling(self) -> Sampling:
        """The part that the engine sees."""
        return Sampling(
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            top_p=self.top_p,
            top_k=self.top_k,
        )


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """What one policy under one prompt scored. Everything is a fraction unless named so.

    Example: 2 problems x 4 samples with 4 and 1 correct: pass@1 is (1 + 1/4) / 2 = 0.625,
    pass@4 is 1.0 and, with k = n, a single draw.

    Attributes:
        label: Of the row, such as "trained".
        split: Of the data; "" if the caller did not say.
        num_problems: Problems sampled.
        num_samples: n, samples drawn of each.
        k: Of pass@k and maj@k.
        sampling: How tokens were drawn.
        seed: What request seeds derive from.
        counts: One a problem, in the caller's order.
        pass_at_1: Mean over problems of the correct among their graded samples.
        pass_at_1_interval: 95%, over problems (`eval.intervals.mean_interval`).
        pass_at_k: Mean over problems with k graded samples; None if there is none.
        maj_at_k: The same for the majority's answer; None also if answers do not vote.
        verdict_fracs: Of all samples, failures of ours included; they sum to 1.
        num_ungraded: Samples whose grading failed on our side, left out of the counts.
        truncated_frac: Samples cut off by `max_tokens`.
        mean_tokens: Sampled tokens a sample, the end token included.
    """

    label: str
    split: str
    num_problems: int
    num_samples: int
    k: int
    sampling: Sampling
    seed: int
    counts: tuple[ProblemCount, ...]
    pass_at_1: float
    pass_at_1_interval: Interval
    pass_at_k: float | None
    maj_at_k: float | None
    verdict_fracs: dict[str, float]
    num_ungraded: int
    truncated_frac: float
    mean_tokens: float

    @property
    def is_single_draw(self) -> bool:
        """True if n < 4k: pass@k and maj@k are then too noisy to compare."""
        return is_single_draw(self.num_samples, self.k)

    def to_json(self) -> dict[str, Any]:
        """Values that `json.dumps` writes, with the label of the estimates spelled out."""
        return {**asdict(self), "is_single_draw": self.is_single_draw}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "EvalResult":
        """The inverse of `to_json`, also after a trip through a JSON file."""
        fields = {name: value for name, value in values.items() if name != "is_single_draw"}
        low, high = fields["pass_at_1_interval"]
        fields["pass_at_1_interval"] = (low, high)
        fields["sampling"] = Sampling(**fields["sampling"])
        fields["counts"] = tuple(ProblemCount(**count) for count in fields["counts"])
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """What is kept of a graded completion; its text is dropped."""

    verdict: Verdict
    answer: str | None
    num_tokens: int
    truncated: bool


def evaluate(
    sampler: Sampler,
    problems: Sequence[Problem],
    *,
    render: Callable[[Problem], tuple[int, ...]],
    sampling: Sampling,
    num_samples: int,
    seed: int,
    score: RewardFn | Scorer,
    answer_of: Callable[[str], str | None] | None = answer_key,
    same: Same = same_answer,
    k: int | None = None,
    prefill: str = "",
    label: str = "",
    split: str = "",
) -> EvalResult:
    """Sample each problem `num_samples` times, score each as it finishes, and estimate.

    Seeds depend on (seed, problem id, sample index) and nothing else, and results on the
    samples and not on the order they finish in.

    Args:
        render: The prompt of a problem, as ids.
        answer_of: The answer that a text votes for; None where answers cannot be equal, as
            for programs, and maj@k is then None.
        same: Whether two answers are one.
        k: Of pass@k and maj@k; None means `num_samples`.
        prefill: What the template already wrote of the answer; graders see it.

    Raises:
        ValueError: No problem, a repeated problem id, or k outside 1..num_samples.
        RuntimeError: The sampler did not answer each request once, or nothing was graded.
    """
    k = num_samples if k is None else k
    _check_request(problems, num_samples, k)
    requests = [r for p in problems for r in _requests(p, render(p), sampling, num_samples, seed)]
    owners = [problem for problem in problems for _ in range(num_samples)]
    problem_of = {r.id: problem for r, problem in zip(requests, owners, strict=True)}
    finished: dict[str, _Sample] = {}
    answers = _answers(sampler, requests, prefill)
    items = ((name, problem_of[name], response) for name, response in answers)
    for name, response, given in scored_in_order(score, items):
        finished[name] = _graded(response, given.verdict, answer_of)
    samples = [finished[request.id] for request in requests]
    return EvalResult(
        label=label,
        split=split,
        num_problems=len(problems),
        num_samples=num_samples,
        k=k,
        sampling=sampling,
        seed=seed,
        **_estimates(problems, samples, k, same if answer_of else None),
        **_sample_statistics(samples),
    )


def _check_request(problems: Sequence[Problem], num_samples: int, k: int) -> None:
    if not problems:
        raise ValueError("no problem to evaluate; check the split and num_problems")
    if not 1 <= k <= num_samples:
        raise ValueError(
            f"k={k} must be from 1 to num_samples={num_samples}; raise num_samples or lower k"
        )
    id_, times = Counter(problem.id for problem in problems).most_common(1)[0]
    if times > 1:
        raise ValueError(f"problem {id_!r} is given {times} times; ids must be unique")


def _requests(
    problem: Problem, prompt: tuple[int, ...], sampling: Sampling, num_samples: int, seed: int
) -> list[Request]:
    return [
        Request(
            id=f"eval/{problem.id}/{i}",
            token_ids=prompt,
            sampling=sampling,
            seed=request_seed(seed, problem.id, i),
        )
        for i in range(num_samples)
    ]


def _answers(
    sampler: Sampler, requests: Sequence[Request], prefill: str
) -> Iterator[tuple[str, Response]]:
    """(request id, what was sampled), checked to be exactly one a request."""
    waiting = {request.id: request for request in requests}
    for completion in sampler.sample(requests):
        request = waiting.pop(completion.request_id, None)
        if request is None:
            raise RuntimeError(
                f"the sampler answered {completion.request_id!r}, which was not asked or was "
                "answered before; every request must get one completion"
            )
        response = Response(
            text=completion.text,
            prefill=prefill,
            num_tokens=len(completion.token_ids),
            max_tokens=request.sampling.max_tokens,
            finish=completion.finish,
        )
        yield request.id, response
    if waiting:
        raise RuntimeError(
            f"the sampler left {len(waiting)} of {len(requests)} requests unanswered, such as "
            f"{min(waiting)!r}; look for a dead engine"
        )


def _graded(
    response: Response, verdict: Verdict, answer_of: Callable[[str], str | None] | None
) -> _Sample:
    # Where the grader found no answer, a more lenient reading must not vote.
    votes = answer_of is not None and verdict not in (Verdict.NO_ANSWER, Verdict.MALFORMED)
    return _Sample(
        verdict=verdict,
        answer=answer_of(response.full_text) if votes else None,
        num_tokens=response.num_tokens,
        truncated=response.finish == "length",
    )


def _estimates(
    problems: Sequence[Problem], samples: Sequence[_Sample], k: int, same: Same | None
) -> dict[str, Any]:
    """The fields of EvalResult that are estimated a problem at a time."""
    size = len(samples) // len(problems)
    drawn = [samples[i : i + size] for i in range(0, len(samples), size)]
    counts = problem_counts([problem.id for problem in problems], drawn)
    mean, interval = pass_at_1(counts)
    majority = maj_at(drawn, (k,), same).at if same else {}
    return {
        "counts": counts,
        "pass_at_1": mean,
        "pass_at_1_interval": interval,
        "pass_at_k": pass_at(counts).get(k),
        "maj_at_k": majority.get(k),
    }


def _sample_statistics(samples: Sequence[_Sample]) -> dict[str, Any]:
    """The fields of EvalResult that are over all samples alike."""
    rates = sample_rates(
        [sample.verdict for sample in samples],
        num_tokens=[sample.num_tokens for sample in samples],
        truncated=[sample.truncated for sample in samples],
    )
    kept = ("verdict_fracs", "num_ungraded", "truncated_frac", "mean_tokens")
    return {name: getattr(rates, name) for name in kept}
