"""How far a mean over problems may be off: percentile bootstrap, Wilson, and paired forms.

Problems are the unit that is resampled: the samples of one problem are not independent of
each other. No interval over problems contains the spread between training seeds, which
`over_seeds` shows beside them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import numpy as np

Interval = tuple[float, float]

MIN_SPREAD = 10
"""The bootstrap is used when at least so many problems differ from the commonest value."""

CHUNK_ELEMENTS = 1 << 20
"""Resampled values held at once, 8 bytes each; bounds the memory of the bootstrap."""

SEEDS_NOTE = "intervals are over problems; they do not contain the spread between training seeds"
"""Printed beside several seeds, and beside one."""

MIN_SEEDS = 3
"""Training seeds whose paired intervals must agree before one recipe may be called better."""


@dataclass(frozen=True, kw_only=True)
class SeedSpread:
    """One figure of several training seeds.

    Example: pass@1 of 0.2, 0.3 and 0.4: `SeedSpread(mean=0.3, std=0.1, lowest=0.2, highest=0.4,
    num_seeds=3)`.

    Attributes:
        std: Sample standard deviation, divided by the seeds less one; None of one seed.
    """

    mean: float
    std: float | None
    lowest: float
    highest: float
    num_seeds: int


def bootstrap_interval(
    per_problem: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The percentile bootstrap of the mean: (low, high), problems drawn with replacement.

    Efron 1979; Efron and Tibshirani 1993, chapter 13. The interval has width zero when all
    values are equal and is far too narrow for a handful of problems; `mean_interval` and
    `paired_interval` decide when it may be used.

    Raises:
        ValueError: If there is no value, or the confidence is not inside (0, 1).
    """
    values = _as_values(per_problem)
    _check_confidence(confidence)
    rng = np.random.default_rng(seed)
    chunk = max(1, CHUNK_ELEMENTS // values.size)
    means = []
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(values.size, size=(rows, values.size))
        means.append(values[drawn].mean(axis=1))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(np.concatenate(means), [tail, 1.0 - tail])
    return float(low), float(high)


def wilson_interval(mean: float, num_problems: int, *, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of a proportion: (low, high) inside [0, 1].

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) (Wilson 1927, without continuity
    correction). It keeps a width at 0 and 1. `mean` may also be that of fractions in [0, 1]:
    their variance is at most p(1-p), so the interval is then too wide, never too narrow.

    Raises:
        ValueError: If the mean is outside [0, 1] or there is no problem.
    """
    _check_confidence(confidence)
    if num_problems < 1 or not 0.0 <= mean <= 1.0:
        raise ValueError(
            f"a proportion needs a mean in [0, 1] over at least one problem, got {mean} over "
            f"{num_problems}; pass fractions of correct samples"
        )
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    shrink = 1.0 + z * z / num_problems
    centre = (mean + z * z / (2 * num_problems)) / shrink
    spread = mean * (1.0 - mean) / num_problems + (z / (2 * num_problems)) ** 2
    half = z * spread**0.5 / shrink
    # At 0 and 1 the bound is exact and rounding must not push the mean outside.
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return float(min(mean, low)), float(max(mean, high))


def mean_interval(
    per_problem: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """An interval for the mean of fractions in [0, 1], one a problem: (low, high).

    Wilson when every value is 0 or 1 (a proportion, its exact setting), or when fewer than
    `MIN_SPREAD` problems differ from the commonest value. The second case holds every input
    for which resampling sees too little: one problem, a handful, all equal, and the model
    that solves 1 of 256 problems once in 8 samples. There the bootstrap says [0.000, 0.001],
    a tenth of what it should say for no success at all; Wilson says [0.000, 0.016].
    The percentile bootstrap otherwise: it uses that fractions spread less than coin flips.

    Raises:
        ValueError: If there is no value, or one outside [0, 1].
    """
    values = _as_values(per_problem)
    if values.min() < 0.0 or values.max() > 1.0:
        raise ValueError(
            f"values reach from {values.min()} to {values.max()}; pass fractions in [0, 1]"
        )
    if np.isin(values, (0.0, 1.0)).all() or _num_uncommon(values) < MIN_SPREAD:
        return wilson_interval(float(values.mean()), values.size, confidence=confidence)
    return bootstrap_interval(per_problem, confidence=confidence, resamples=resamples, seed=seed)


def paired_interval(
    a: Sequence[float],
    b: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """An interval for mean(b) - mean(a), the same problems in the same order: (low, high).

    The percentile bootstrap of the differences when at least `MIN_SPREAD` of them differ from
    the commonest one. Otherwise it would claim certainty from nothing ([1, 1] for a single
    problem that was gained), so the mean gain max(b - a, 0) and the mean loss max(a - b, 0)
    each get a Wilson interval at confidence (1 + confidence) / 2, and the difference lies
    between low gain - high loss and high gain - low loss with the confidence asked for
    (Bonferroni). Six problems gained out of six then exclude 0 and five out of five do not,
    as in the sign test (p = 0.031 and 0.063).

    Raises:
        ValueError: If the lengths differ, or a value is outside [0, 1].
    """
    if len(a) != len(b):
        raise ValueError(f"got {len(a)} and {len(b)} problems; pass the same problems twice")
    before, after = _as_values(a), _as_values(b)
    if min(before.min(), after.min()) < 0.0 or max(before.max(), after.max()) > 1.0:
        raise ValueError("a value lies outside [0, 1]; pass fractions of correct samples")
    differences = after - before
    if _num_uncommon(differences) >= MIN_SPREAD:
        return bootstrap_interval(
            differences.tolist(), confidence=confidence, resamples=resamples, seed=seed
        )
    each = (1.0 + confidence) / 2.0
    mean_gain = float(np.maximum(differences, 0.0).mean())
    mean_loss = float(np.maximum(-differences, 0.0).mean())
    gain_low, gain_high = wilson_interval(mean_gain, len(a), confidence=each)
    loss_low, loss_high = wilson_interval(mean_loss, len(a), confidence=each)
    return max(-1.0, gain_low - loss_high), min(1.0, gain_high - loss_low)


def over_seeds(values: Sequence[float]) -> SeedSpread:
    """The mean of one figure over training seeds, and how far the seeds lie apart.

    Raises:
        ValueError: There is no value.
    """
    found = _as_values(values).tolist()
    return SeedSpread(
        mean=fmean(found),
        std=stdev(found) if len(found) > 1 else None,
        lowest=min(found),
        highest=max(found),
        num_seeds=len(found),
    )


def agree(paired: Sequence[Interval]) -> bool:
    """True if one recipe is better: `MIN_SEEDS` paired intervals, none with 0, all on one side."""
    sides = {(low > 0.0) - (high < 0.0) for low, high in paired}
    return len(paired) >= MIN_SEEDS and sides in ({1}, {-1})


def _num_uncommon(values: np.ndarray) -> int:
    """How many values differ from the commonest one; 1e-9 apart counts as equal."""
    counts = Counter(np.round(values, 9).tolist())
    return int(values.size - max(counts.values()))


def _as_values(per_problem: Sequence[float]) -> np.ndarray:
    values = np.asarray(per_problem, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(
            f"expected at least one finite number a problem, got shape {values.shape}; "
            "pass one value a problem and leave out problems that were not graded"
        )
    return values


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence={confidence} must lie inside (0, 1); 0.95 is usual")
