"""What the page knows of every round before it unpacks one: verdicts of each group, pass@k.

Verdicts are one letter a rollout, in the order of `Verdict`: a for correct, b for wrong, and so on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from eval.estimators import SINGLE_DRAW_FACTOR, pass_at_k
from eval.intervals import mean_interval
from rewards.problem import Verdict
from rollouts.rollout import Group

LETTERS = {verdict: chr(ord("a") + place) for place, verdict in enumerate(Verdict)}
RESAMPLES = 500
"""Of the bootstrap behind a band: there is one a round and k."""


@dataclass(frozen=True, kw_only=True)
class GroupSummary:
    """One group of a round.

    Example: four completions of which the second is right:
    `GroupSummary(id="add/3+5", source="add", verdicts="babb", reward=0.25, tokens=8.5)`.
    """

    id: str
    source: str
    verdicts: str
    reward: float | None
    tokens: float


@dataclass(frozen=True, kw_only=True)
class RoundSummary:
    """One round.

    Attributes:
        groups: In draw order.
        pass_at: k: (mean over problems, low, high), 95%; k with fewer than `SINGLE_DRAW_FACTOR`
            times k graded samples are a single draw.
        num_tokens: Sampled.
    """

    groups: tuple[GroupSummary, ...]
    pass_at: dict[int, tuple[float, float, float]]
    num_tokens: int

    @property
    def num_rollouts(self) -> int:
        """Completions of the round."""
        return sum(len(group.verdicts) for group in self.groups)


def summarise(groups: Sequence[Group]) -> RoundSummary:
    """What is kept of a round."""
    return RoundSummary(
        groups=tuple(_group(group) for group in groups),
        pass_at=_pass_at(groups),
        num_tokens=sum(r.response.num_tokens for group in groups for r in group.rollouts),
    )


def round_json(
    index: int, summary: RoundSummary, numbers: dict[tuple[str, str], int], trained: bool
) -> dict[str, Any]:
    """The summary as the page reads it; `numbers` of (problem, source) grows with what is new."""
    problems = [
        numbers.setdefault((group.id, group.source), len(numbers)) for group in summary.groups
    ]
    return {
        "round": index,
        "problems": problems,
        "verdicts": [group.verdicts for group in summary.groups],
        "rewards": [group.reward for group in summary.groups],
        "tokens": [group.tokens for group in summary.groups],
        "pass": {str(k): [round(v, 4) for v in seen] for k, seen in summary.pass_at.items()},
        "trained": trained,
    }


def ks_of(size: int) -> list[int]:
    """The k that are shown for groups of a size: 1, what four draws allow, and the whole group."""
    return sorted({1, max(1, size // SINGLE_DRAW_FACTOR), size})


def _group(group: Group) -> GroupSummary:
    count = max(1, len(group.rollouts))
    rewards = [v for v in group.rewards if abs(v) < float("inf")]  # NaN compares false
    return GroupSummary(
        id=group.problem.id,
        source=group.problem.source,
        verdicts="".join(LETTERS[r.score.verdict] for r in group.rollouts),
        reward=round(fmean(rewards), 4) if rewards else None,
        tokens=round(sum(r.response.num_tokens for r in group.rollouts) / count, 1),
    )


def _pass_at(groups: Sequence[Group]) -> dict[int, tuple[float, float, float]]:
    """Over problems with at least k graded samples."""
    counts = []
    for group in groups:
        verdicts = [r.score.verdict for r in group.rollouts if not r.score.verdict.is_ours]
        counts.append((len(verdicts), sum(v is Verdict.CORRECT for v in verdicts)))
    found = {}
    for k in ks_of(max((len(g.rollouts) for g in groups), default=1)):
        values = [pass_at_k(n, c, k) for n, c in counts if n >= k]
        if values:
            found[k] = (fmean(values), *mean_interval(values, resamples=RESAMPLES))
    return found
