"""Whether two checkpoints differ on the same problems: an exact sign-flip test, and what changed.

The test and not the bootstrap gives the p-value: its level holds for any number of problems,
and few problems change. It says nothing about other training seeds (eval/intervals.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

MAX_DENOMINATOR = 20_000
"""Of shares of correct samples; above, the signs are flipped at random."""

MAX_EXACT_ELEMENTS = 1 << 28
"""Additions of the exact test, a second or so; above, the signs are flipped at random."""

FLIPS = 100_000
"""Random assignments of signs."""

ROUNDING = 1e-9
"""Sums that differ by less are equal."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Problems whose share of correct samples rose or fell, the largest change first.

    Example: ids a, b, c from (0, 1, 0.5) to (1, 0.5, 0.5): `Changes(gained=("a",),
    lost=("b",))`.
    """

    gained: tuple[str, ...]
    lost: tuple[str, ...]


def paired_p_value(a: Sequence[float], b: Sequence[float], *, seed: int = 0) -> float:
    """Two-sided p-value of mean(b) - mean(a), the same problems in the same order.

    The sign-flip (paired permutation) test, Fisher 1935: were the two checkpoints alike, each
    problem's difference would as well have had the other sign. p is the share of the 2^m
    assignments of signs to the m differences that are not 0 whose sum is at least as far from
    0 as the one seen. For single samples, differences of 1, 0 and -1, it is the sign test, which
    is McNemar's exact one. All assignments are counted, by the distribution of the sum in steps
    of the shares' common denominator; where that is too large (see the constants), `FLIPS`
    random ones are, and p is (1 + those as far) / (1 + FLIPS).

    Examples: five problems gained and none lost give 2/32, six give 2/64; none changed gives 1.

    Raises:
        ValueError: The lengths differ, or there is no problem.
    """
    if len(a) != len(b) or not len(a):
        raise ValueError(f"got {len(a)} and {len(b)} problems; pass the same problems twice")
    steps = _whole_steps(a, b)
    if steps is None:
        return _random_p_value(np.subtract(b, a), seed)
    sizes = np.abs(steps[steps != 0])
    if not sizes.size:
        return 1.0
    if sizes.size * int(sizes.sum()) > MAX_EXACT_ELEMENTS:
        return _random_p_value(steps.astype(float), seed)
    return _exact_p_value(sizes, abs(int(steps.sum())))


def changed(ids: Sequence[str], a: Sequence[float], b: Sequence[float]) -> Changes:
    """The problems on which `b` differs from `a`.

    Raises:
        ValueError: The lengths differ.
    """
    rows = sorted(
        ((after - before, name) for name, before, after in zip(ids, a, b, strict=True)),
        key=lambda row: (-abs(row[0]), row[1]),
    )
    return Changes(
        gained=tuple(name for change, name in rows if change > ROUNDING),
        lost=tuple(name for change, name in rows if change < -ROUNDING),
    )


def _whole_steps(a: Sequence[float], b: Sequence[float]) -> np.ndarray | None:
    """The differences in steps of a common denominator; None if that is too large."""
    pairs = [(_fraction(x), _fraction(y)) for x, y in zip(a, b, strict=True)]
    if any(x is None or y is None for x, y in pairs):
        return None
    differences = [y - x for x, y in pairs]
    common = math.lcm(*{d.denominator for d in differences})
    if common > MAX_DENOMINATOR:
        return None
    return np.array([int(d * common) for d in differences], dtype=np.int64)


def _fraction(value: float) -> Fraction | None:
    """The share c / n that a float stands for; None if it stands for none with a small n."""
    found = Fraction(value).limit_denominator(MAX_DENOMINATOR)
    return found if abs(float(found) - value) < 1e-12 else None


def _exact_p_value(sizes: np.ndarray, seen: int) -> float:
    """The share of signs with which the sizes sum to `seen` or more, or to -`seen` or less.

    The sum is 2 S - total for S the sum of the sizes with a plus, each there with chance 1/2.
    """
    total = int(sizes.sum())
    chances = np.zeros(total + 1)  # of each S; only additions and halving, so nothing cancels
    chances[0], reached = 1.0, 0
    for size in np.sort(sizes).tolist():
        moved = chances[: reached + 1].copy()
        chances[size : reached + size + 1] += moved
        chances[: reached + size + 1] *= 0.5
        reached += size
    sums = 2 * np.arange(total + 1) - total
    return float(min(1.0, chances[np.abs(sums) >= seen].sum()))


def _random_p_value(differences: np.ndarray, seed: int) -> float:
    differences = differences[np.abs(differences) > ROUNDING]
    if not differences.size:
        return 1.0
    rng = np.random.default_rng(seed)
    seen = abs(differences.sum()) - ROUNDING
    rows = max(1, (1 << 20) // differences.size)
    far = 0
    for start in range(0, FLIPS, rows):
        size = (min(rows, FLIPS - start), differences.size)
        signs = rng.integers(2, size=size, dtype=np.int8) * 2 - 1
        far += int((np.abs(signs @ differences) >= seen).sum())
    return (1 + far) / (1 + FLIPS)
