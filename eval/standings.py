"""What a model's completions of one benchmark come to, and how two models compare on it.

Every number is a fraction unless it is named otherwise; intervals are over problems.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from eval.estimators import default_ks, is_single_draw
from eval.intervals import Interval
from eval.problem_counts import (
    Difference,
    ProblemCount,
    difference,
    maj_at,
    pass_at,
    pass_at_1,
    problem_counts,
)
from eval.rates import SampleRates, sample_rates
from eval.voting import Same, same_answer
from rollouts.completions import Grade, Store
from rollouts.trials import Trial


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One benchmark by one model in one way.

    Example: 2 problems x 4 samples with 4 and 1 correct: pass@1 is (1 + 1/4) / 2 = 0.625 and
    pass@4 is 1.0, a single draw.

    Attributes:
        trial: Of what was asked, by its name.
        label: Of the row, such as "model (chat)".
        counts: One a problem, in the trial's order.
        pass_at_1: Mean over problems of the correct among their graded samples.
        pass_at_1_interval: 95%, over problems (`eval.intervals.mean_interval`).
        ks: The k that are shown.
        pass_at: By every k up to n, mean over problems with k graded samples.
        maj_at: By each k of `ks`, the same for the majority's answer (`majority_at_k`: a tie is
            shared evenly); empty where answers do not vote.
        maj_method: By the same k: "exact", or "resampled" if it is so for any problem.
        num_uncompared: Answers that vote alone in it because comparing them took too long.
        parts: Mean over graded samples of each named part of the score.
        rates: Verdicts, answers, truncation and length over all samples.
    """

    trial: str
    label: str
    benchmark: str
    num_problems: int
    num_samples: int
    counts: tuple[ProblemCount, ...]
    pass_at_1: float
    pass_at_1_interval: Interval
    ks: tuple[int, ...]
    pass_at: dict[int, float]
    maj_at: dict[int, float]
    maj_method: dict[int, str]
    num_uncompared: int
    rates: SampleRates
    parts: dict[str, float] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """Who was measured: "against", "model", "model-2", ..."""
        return self.trial.partition("/")[0]

    def to_json(self) -> dict[str, Any]:
        """Values that `json.dumps` writes; the k that are single draws are named."""
        single = [k for k in self.pass_at if is_single_draw(self.num_samples, k)]
        return {**asdict(self), "single_draws": single}


def standing_of(
    trial: Trial,
    store: Store,
    *,
    label: str,
    ks: Sequence[int] = (),
    same: Same = same_answer,
) -> Standing:
    """The estimates of a trial whose every completion is graded.

    Args:
        ks: Of what is shown, and of maj@k; `default_ks` if empty.
        same: Whether two answers are one.

    Raises:
        RuntimeError: Nothing could be graded.
    """
    keys = [key for key, _ in trial.requests()]
    grades = [store.grades[key] for key in keys]
    size = trial.num_samples
    drawn = [grades[i : i + size] for i in range(0, len(grades), size)]
    counts = problem_counts([problem.id for problem in trial.problems], drawn)
    mean, interval = pass_at_1(counts)
    chosen = tuple(ks) or default_ks(size)
    majorities = maj_at(drawn if trial.answer_of else (), chosen, same)
    return Standing(
        trial=trial.name,
        label=label,
        benchmark=trial.benchmark,
        num_problems=len(trial.problems),
        num_samples=size,
        counts=counts,
        pass_at_1=mean,
        pass_at_1_interval=interval,
        ks=chosen,
        pass_at=pass_at(counts),
        maj_at=majorities.at,
        maj_method=majorities.method,
        num_uncompared=majorities.num_uncompared,
        parts=_mean_parts(grades),
        rates=sample_rates(
            [grade.verdict for grade in grades],
            num_tokens=[store.completions[key].num_tokens for key in keys],
            truncated=[store.completions[key].finish == "length" for key in keys],
            formatted=[bool(grade.formatted) for grade in grades] if trial.format_of else None,
        ),
    )


def _mean_parts(grades: Sequence[Grade]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for grade in grades:
        for name, value in grade.parts.items() if not grade.verdict.is_ours else ():
            found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}


@dataclass(frozen=True, kw_only=True)
class Comparison(Difference):
    """The difference of two standings of one benchmark.

    Attributes:
        before, after: Their labels, such as "against (chat)" and "model (chat)".
    """

    benchmark: str
    before: str
    after: str


def compared(before: Standing, after: Standing) -> Comparison:
    """`after` against `before`, paired by problem.

    Raises:
        ValueError: They are of different problems, or none was graded in both.
    """
    return Comparison(
        benchmark=before.benchmark,
        before=before.label,
        after=after.label,
        **vars(difference(before.counts, after.counts)),
    )
