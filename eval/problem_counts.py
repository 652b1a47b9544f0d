"""From the graded samples of each problem to estimates over problems: pass@1, pass@k, maj@k."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from eval.estimators import majority_at_k, majority_method, pass_at_every_k
from eval.intervals import Interval, mean_interval, paired_interval
from eval.paired import changed, paired_p_value
from eval.voting import Same, answer_classes, same_answer
from rewards.problem import Verdict


class Graded(Protocol):
    """A sample's verdict, and the answer that it votes for."""

    @property
    def verdict(self) -> Verdict: ...
    @property
    def answer(self) -> str | None: ...


@dataclass(frozen=True, kw_only=True)
class ProblemCount:
    """What the graded samples of one problem came to.

    Example: 8 samples, of which one failed in the grader and 3 are correct:
    `ProblemCount(id="arithmetic/add/3+5", num_graded=7, num_correct=3)`.
    """

    id: str
    num_graded: int
    num_correct: int


def problem_counts(
    ids: Sequence[str], samples: Sequence[Sequence[Graded]]
) -> tuple[ProblemCount, ...]:
    """One a problem; samples whose grading failed on our side are in none of the counts."""
    return tuple(
        ProblemCount(id=id_, num_graded=len(graded), num_correct=sum(_correct(graded)))
        for id_, graded in zip(ids, map(_graded, samples), strict=True)
    )


def pass_at_1(counts: Sequence[ProblemCount]) -> tuple[float, Interval]:
    """The mean over problems of the correct among their graded samples, and its interval.

    Raises:
        RuntimeError: Nothing was graded.
    """
    fractions = [count.num_correct / count.num_graded for count in counts if count.num_graded]
    if not fractions:
        raise RuntimeError("no sample could be graded; mend the grader")
    return sum(fractions) / len(fractions), mean_interval(fractions)


def pass_at(counts: Sequence[ProblemCount]) -> dict[int, float]:
    """pass@k for every k that a problem has graded samples for, the mean over these problems."""
    sizes = sorted({count.num_graded for count in counts} - {0})
    sums, problems = np.zeros(sizes[-1]), np.zeros(sizes[-1])
    for size in sizes:
        correct = [count.num_correct for count in counts if count.num_graded == size]
        sums[:size] += pass_at_every_k(size, correct).sum(axis=0)
        problems[:size] += len(correct)
    return {k + 1: float(value) for k, value in enumerate(sums / problems)}


@dataclass(frozen=True, kw_only=True)
class Majorities:
    """maj@k over problems.

    Example: `Majorities(at={1: 0.5, 4: 0.75}, method={1: "exact", 4: "exact"}, num_uncompared=0)`.

    Attributes:
        at: By k, the mean over problems with k graded samples.
        method: By the same k: "exact", or "resampled" if it is so for any problem.
        num_uncompared: Answers that vote alone because comparing them took too long.
    """

    at: dict[int, float]
    method: dict[int, str]
    num_uncompared: int


def maj_at(
    samples: Sequence[Sequence[Graded]], ks: Sequence[int], same: Same = same_answer
) -> Majorities:
    """maj@k for each k that a problem has graded samples for (`eval.estimators.majority_at_k`)."""
    groups = [_graded(group) for group in samples]
    classes = [answer_classes([each.answer for each in group], same) for group in groups]
    at, method = {}, {}
    for k in ks:
        enough = [
            (found.of_sample, _correct(group))
            for found, group in zip(classes, groups, strict=True)
            if len(group) >= k
        ]
        if enough:
            at[k] = sum(majority_at_k(votes, right, k) for votes, right in enough) / len(enough)
            methods = {majority_method(votes, k) for votes, _ in enough}
            method[k] = "resampled" if "resampled" in methods else "exact"
    uncompared = sum(found.num_uncompared for found in classes)
    return Majorities(at=at, method=method, num_uncompared=uncompared)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """pass@1 of one model minus another's, over the problems that both graded.

    Example: 0.25 -> 0.40 on 256 problems: `Difference(mean=0.15, interval=(0.11, 0.19),
    p_value=0.0001, num_problems=256, gained=("p/7", ...), lost=("p/3",))`; 0 lies outside, so
    the second is better in this run.

    Attributes:
        p_value: Of the sign-flip test (`eval.paired.paired_p_value`).
        gained, lost: Ids of the problems that changed, the largest change first.
    """

    mean: float
    interval: Interval
    p_value: float
    num_problems: int
    gained: tuple[str, ...]
    lost: tuple[str, ...]


def difference(before: Sequence[ProblemCount], after: Sequence[ProblemCount]) -> Difference:
    """pass@1 of `after` minus `before`, paired by problem, with its 95% interval.

    Raises:
        ValueError: They are not of the same problems in the same order, or none was graded in both.
    """
    if [count.id for count in before] != [count.id for count in after]:
        raise ValueError("the two do not hold the same problems in the same order")
    both = [(a, b) for a, b in zip(before, after, strict=True) if a.num_graded and b.num_graded]
    if not both:
        raise ValueError("no problem was graded in both results; see their verdict_fracs")
    first = [a.num_correct / a.num_graded for a, _ in both]
    second = [b.num_correct / b.num_graded for _, b in both]
    changes = changed([a.id for a, _ in both], first, second)
    return Difference(
        mean=(sum(second) - sum(first)) / len(both),
        interval=paired_interval(first, second),
        p_value=paired_p_value(first, second),
        num_problems=len(both),
        gained=changes.gained,
        lost=changes.lost,
    )


def _graded(group: Sequence[Graded]) -> list[Graded]:
    return [each for each in group if not each.verdict.is_ours]


def _correct(group: Sequence[Graded]) -> list[bool]:
    return [each.verdict is Verdict.CORRECT for each in group]
