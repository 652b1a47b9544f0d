"""What is counted over all samples alike: verdicts, answers found, truncation, length."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from rewards.problem import Verdict

FORMLESS = (Verdict.NO_ANSWER, Verdict.MALFORMED)
"""The policy's samples in which the grader found no answer that it could read."""


@dataclass(frozen=True, kw_only=True)
class SampleRates:
    """Shares of all samples, and lengths in sampled tokens, the end token included.

    Example: "8" of 2 tokens, correct, and a text cut off at 64 without an answer: verdict_fracs
    are 0.5 for correct and for no_answer, answered_frac 0.5, truncated_frac 0.5, mean_tokens 33,
    median_tokens 33, mean_tokens_correct 2, mean_tokens_other 64.

    Attributes:
        verdict_fracs: By verdict, failures of ours included; they sum to 1.
        num_ungraded: Samples whose grading failed on our side.
        answered_frac: The format rate: samples with an answer that the grader could read.
        formatted_frac: Samples in the format that was asked for; None if none was.
        truncated_frac: Samples cut off by the limit.
        p95_tokens: 95 of 100 samples are at most so long.
        mean_tokens_correct, mean_tokens_other: Of samples that are correct, and of all others;
            None if there is none.
    """

    verdict_fracs: dict[str, float]
    num_ungraded: int
    answered_frac: float
    formatted_frac: float | None
    truncated_frac: float
    mean_tokens: float
    median_tokens: float
    p95_tokens: float
    max_tokens: int
    mean_tokens_correct: float | None
    mean_tokens_other: float | None


def sample_rates(
    verdicts: Sequence[Verdict],
    *,
    num_tokens: Sequence[int],
    truncated: Sequence[bool],
    formatted: Sequence[bool] | None = None,
) -> SampleRates:
    """The rates of samples given by columns, all of one length.

    Raises:
        ValueError: There is no sample, or the lengths differ.
    """
    columns = [verdicts, num_tokens, truncated, *([formatted] if formatted is not None else [])]
    if not verdicts or len({len(column) for column in columns}) > 1:
        raise ValueError(
            f"got columns of {[len(column) for column in columns]} samples; give each sample its "
            "verdict, tokens and truncation, and at least one"
        )
    counts, total = Counter(verdicts), len(verdicts)
    ours = sum(count for verdict, count in counts.items() if verdict.is_ours)
    correct: list[int] = []
    other: list[int] = []
    for verdict, tokens in zip(verdicts, num_tokens, strict=True):
        (correct if verdict is Verdict.CORRECT else other).append(tokens)
    return SampleRates(
        verdict_fracs={str(verdict): counts[verdict] / total for verdict in Verdict},
        num_ungraded=ours,
        answered_frac=(total - ours - sum(counts[verdict] for verdict in FORMLESS)) / total,
        formatted_frac=sum(formatted) / total if formatted is not None else None,
        truncated_frac=sum(truncated) / total,
        mean_tokens=fmean(num_tokens),
        median_tokens=float(np.median(num_tokens)),
        p95_tokens=float(np.quantile(num_tokens, 0.95, method="higher")),
        max_tokens=max(num_tokens),
        mean_tokens_correct=fmean(correct) if correct else None,
        mean_tokens_other=fmean(other) if other else None,
    )
