"""Counts and averages of a stream of numbers, in memory that does not grow with its length."""

import bisect
import math
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

DIGITS = 3
"""Significant digits to which quantiles are kept: exact below 1,000."""
QUANTILES = (0.5, 0.95)


@dataclass(kw_only=True)
class Rate:
    """How many of those that could be told are so.

    Example: True, False, None, True is 2 of 3: `to_json()` is {"count": 2, "of": 3, "frac": 2/3}.
    """

    count: int = 0
    known: int = 0

    def add(self, is_so: bool | None) -> None:
        """Count one; None is not counted."""
        if is_so is not None:
            self.count += is_so
            self.known += 1

    def to_json(self) -> dict[str, Any] | None:
        """None if nothing was known."""
        if not self.known:
            return None
        return {"count": self.count, "of": self.known, "frac": self.count / self.known}


@dataclass(kw_only=True)
class Spread:
    """Mean, extremes and quantiles.

    Example: 1, 2, 9 has mean 4, p50 2 and p95 9 (the smallest number that at least 95% do not
    exceed).
    """

    counts: Counter[float] = field(default_factory=Counter)
    count: int = 0
    total: float = 0.0
    smallest: float = math.inf
    largest: float = -math.inf

    def add(self, value: float) -> None:
        """Count one number."""
        self.counts[float(f"{value:.{DIGITS}g}")] += 1
        self.count += 1
        self.total += value
        self.smallest, self.largest = min(self.smallest, value), max(self.largest, value)

    def to_json(self) -> dict[str, float] | None:
        """None if there was none."""
        if not self.count:
            return None
        found = {"count": self.count, "mean": self.total / self.count, "min": self.smallest}
        found |= {f"p{round(100 * share)}": self._quantile(share) for share in QUANTILES}
        return found | {"max": self.largest}

    def _quantile(self, share: float) -> float:
        seen = 0
        for value in sorted(self.counts):
            seen += self.counts[value]
            if seen >= share * self.count:
                return min(max(value, self.smallest), self.largest)
        raise AssertionError("the counts do not add up")


@dataclass(kw_only=True)
class Examples:
    """A few of many, from all over: those whose name hashes lowest, so always the same ones."""

    limit: int
    kept: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def add(self, name: str, example: dict[str, Any]) -> None:
        """Offer one."""
        entry = (sha256(name.encode("utf-8", "surrogatepass")).hexdigest(), name, example)
        if len(self.kept) < self.limit or (self.kept and entry[:2] < self.kept[-1][:2]):
            bisect.insort(self.kept, entry, key=lambda held: held[:2])
            del self.kept[self.limit :]

    def to_json(self) -> list[dict[str, Any]]:
        """The kept ones."""
        return [example for _, _, example in self.kept]


@dataclass(kw_only=True)
class Gaps:
    """Trainer against sampler over the same tokens: gap = log pi - log mu, as in docs/numbers.md.

    Example: log mu -1 and log pi -0.5: gap 0.5, abs 0.5, k3 = e^0.5 - 0.5 - 1 = 0.1487.
    """

    num_tokens: int = 0
    num_unknown: int = 0
    total_abs: float = 0.0
    total_k3: float = 0.0
    largest: float = 0.0

    def add(self, sampler: tuple[float, ...], trainer: tuple[float, ...]) -> None:
        """Count the tokens of one completion; those without a finite logprob are left out."""
        for mu, pi in zip(sampler, trainer, strict=True):
            gap = pi - mu
            if not math.isfinite(gap):
                self.num_unknown += 1
                continue
            self.num_tokens += 1
            self.total_abs += abs(gap)
            self.total_k3 += math.exp(min(gap, 20.0)) - gap - 1  # above 20 it says nothing more
            self.largest = max(self.largest, abs(gap))

    def to_json(self) -> dict[str, float] | None:
        """None if there were no tokens."""
        if not self.num_tokens:
            return None
        return {
            "num_tokens": self.num_tokens,
            "num_unknown": self.num_unknown,
            "abs": self.total_abs / self.num_tokens,
            "k3": self.total_k3 / self.num_tokens,
            "max": self.largest,
        }
