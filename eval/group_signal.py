"""Groups of completions to one prompt: which of them say nothing, and which repeat themselves.

A group is what shares step and prompt within one table, in whatever order it stands there, so a
prompt that a batch holds twice makes one group. A few bytes are kept of each row of a table.
"""

from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from eval.judged import Judged, prompt_text
from eval.tallies import Rate, Spread
from rollouts.rollout import SIGNAL_TOLERANCE

Rewards = tuple[float | None, ...]


@dataclass(kw_only=True)
class Seen:
    """What is kept of a group while its table is read."""

    size: int = 0
    rewards: Rewards = ()
    rewards_differ: bool = False
    ours: set[bool] = field(default_factory=set)
    texts: set[bytes] = field(default_factory=set)


@dataclass(kw_only=True)
class Groups:
    """Takes completions one by one, table after table.

    Example: four completions of one prompt with the rewards 0, 0, 0, 0, of which we call one
    right: a group without signal by their rewards, and with signal by our verdicts.
    """

    open: dict[bytes, Seen] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    sizes: Spread = field(default_factory=Spread)

    def add(self, judged: Judged) -> None:
        """Count one completion of the table that is open."""
        sample = judged.sample
        known = sample.problem.id if sample.problem else prompt_text(sample.prompt)
        seen = self.open.setdefault(_digest(f"{sample.step}/{known}"), Seen())
        rewards = tuple(sample.rewards.values())
        if seen.size and _differ(rewards, seen.rewards):
            seen.rewards_differ = True
        elif not seen.size:
            seen.rewards = rewards
        seen.size += 1
        if judged.ours is not None:
            seen.ours.add(judged.ours)
        seen.texts.add(_digest(sample.response.text))

    def close_table(self) -> None:
        """No completion of the open groups will follow."""
        for seen in self.open.values():
            self.sizes.add(seen.size)
            self.counts["completions"] += seen.size
            self.counts["duplicates"] += seen.size - len(seen.texts)
            if seen.size < 2:
                continue
            self.counts["several"] += 1
            if any(value is not None for value in seen.rewards):
                self.counts["rewarded"] += 1
                self.counts["no_signal_theirs"] += not seen.rewards_differ
            if seen.ours:
                self.counts["judged"] += 1
                self.counts["no_signal_ours"] += len(seen.ours) < 2
        self.open = {}

    def to_json(self) -> dict[str, Any]:
        """Signal is told of groups with two members or more only."""
        counts = self.counts
        theirs = Rate(count=counts["no_signal_theirs"], known=counts["rewarded"])
        ours = Rate(count=counts["no_signal_ours"], known=counts["judged"])
        duplicates = Rate(count=counts["duplicates"], known=counts["completions"])
        return {
            "count": self.sizes.count,
            "of_one": self.sizes.count - counts["several"],
            "sizes": self.sizes.to_json(),
            "no_signal_by_their_rewards": theirs.to_json(),
            "no_signal_by_our_verdicts": ours.to_json(),
            "duplicate_completions": duplicates.to_json(),
        }


def _differ(first: Rewards, second: Rewards) -> bool:
    return any(
        (a is None) != (b is None)
        or (a is not None and b is not None and abs(a - b) > SIGNAL_TOLERANCE)
        for a, b in zip(first, second, strict=True)
    )


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()[:12]
