"""Which problem is drawn next, and what became of each: shuffled epochs of each source, by weight.

What decides the draw is how many problems each source has given, so a resumed run, told the
same updates, draws exactly what the stopped one would have drawn.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from rewards.problem import Problem


class Fate(StrEnum):
    """What became of a problem that was drawn."""

    PENDING = "pending"  # its group is not whole yet
    SAMPLED = "sampled"  # whole, and not trained on: not yet, or with refills never
    TRAINED = "trained"
    SPENT = "spent"  # it gave no signal, or its answers could not be graded


@dataclass(kw_only=True)
class Ledger:
    """Draws problems without replacement within an epoch of each source.

    Example: two sources with weights {"arithmetic": 3, "countdown": 1} and `draw(8)` gives
    about six arithmetic problems; each source goes through its own shuffled epochs.

    Attributes:
        problems: By task name; none may be empty.
        weights: Relative frequency of each task; equal where left out.
        starts: The update from which each task is drawn; 0 where left out.
        seed: Of the run.
        drawn: Problems given so far by each task: the state.
        fates: By id, of every problem that was drawn; of the last time, if more than once.
    """

    problems: Mapping[str, Sequence[Problem]]
    weights: Mapping[str, float] = field(default_factory=dict)
    starts: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    drawn: dict[str, int] = field(default_factory=dict)
    fates: dict[str, Fate] = field(default_factory=dict)
    _orders: dict[str, tuple[int, list[int]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        empty = [name for name, rows in self.problems.items() if not rows]
        if empty or not self.problems:
            raise ValueError(
                f"no problems to train on ({', '.join(empty) or 'no task'}): "
                "widen the task's ranges or raise prompts.max_prompt_tokens"
            )
        if all(self.starts.get(name, 0) > 0 for name in self.problems):
            raise ValueError(f"starts is {dict(self.starts)}: no task starts at update 0")

    def draw(self, count: int, *, updates: int = 0) -> list[Problem]:
        """The next `count` problems, of the tasks that have started after so many updates."""
        names = [name for name in sorted(self.problems) if self.starts.get(name, 0) <= updates]
        problems = [self._next(self._source(names)) for _ in range(count)]
        self.note((problem.id for problem in problems), Fate.PENDING)
        return problems

    def note(self, ids: Iterable[str], fate: Fate) -> None:
        """Remember what became of some problems."""
        self.fates.update((each, fate) for each in ids)

    def counts(self) -> dict[str, float]:
        """Problems by their fate, as metrics."""
        found = Counter(self.fates.values())
        return {f"ledger/{fate}": float(found[fate]) for fate in Fate}

    def _source(self, names: Sequence[str]) -> str:
        weights = [self.weights.get(name, 1.0) for name in names]
        total = sum(self.drawn.values())
        return Random(f"{self.seed}/source/{total}").choices(names, weights)[0]

    def _next(self, name: str) -> Problem:
        rows = self.problems[name]
        position = self.drawn.get(name, 0)
        self.drawn[name] = position + 1
        epoch, index = divmod(position, len(rows))
        return rows[self._order(name, epoch, len(rows))[index]]

    def _order(self, name: str, epoch: int, size: int) -> list[int]:
        cached_epoch, order = self._orders.get(name, (None, []))
        if cached_epoch != epoch:
            order = list(range(size))
            Random(f"{self.seed}/epoch/{name}/{epoch}").shuffle(order)
            self._orders[name] = (epoch, order)
        return order
