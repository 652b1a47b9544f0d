"""Which answers of a problem's samples are one answer: the classes that a majority is among.

Equality is symbolic, by the rules of the math reward (rewards/equivalence.py): "1/2", "0.5" and
"\\frac12" vote together. Model text is hostile, so that only different keys are compared, one
with the first of each class, a bounded number of times, and by a pool where there is one: its
processes are killed at a deadline.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from rewards.equivalence import MAX_LENGTH, equivalent
from rewards.maths.precision import TooLarge
from rewards.numeric import parse_number
from rewards.pool import RewardPool, ScoringConfig
from rewards.problem import Problem, Response, Score, Verdict
from rewards.purity import pure

Same = Callable[[str, str], bool | None]
"""Whether two keys are one answer; None if that could not be found out."""

MAX_COMPARISONS = 2_000
"""Of one problem's answers; what is left then stands alone, and `Classes.num_uncompared` counts it."""

DEADLINE_S = 5.0
"""For one comparison in a pool."""

MAX_LOST = 3
"""Comparisons of one problem's answers that may be lost to a deadline or a crash, with the same
end: hostile answers cost a problem at most half a minute."""


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The class of each sample's answer.

    Example: the keys "1/2", None, "\\frac12", "3" give `Classes(of_sample=(0, None, 0, 1),
    num_uncompared=0)`.

    Attributes:
        of_sample: A number for each sample, from 0 in order of appearance; None has no vote.
        num_uncompared: Keys that stand alone because they could not be compared with all others.
    """

    of_sample: tuple[int | None, ...]
    num_uncompared: int


def same_answer(a: str, b: str) -> bool:
    """Whether two keys are one answer: the math reward takes one of them for the other.

    One direction is enough: to the reference A the answer "A. Paris" is right.
    """
    return _equivalent(a, b) or _equivalent(b, a)


def answer_classes(keys: Sequence[str | None], same: Same = same_answer) -> Classes:
    """The classes of a problem's answers.

    A key joins the first class whose first key it is the `same` as; two numbers that differ are
    never compared. A key of a comparison that was lost stands alone, the other one too if it has
    not been compared before.
    """
    firsts: list[str] = []
    compared: set[int] = set()
    alone: set[int] = set()
    class_of: dict[str | None, int | None] = {None: None}
    left, lost, num_uncompared = MAX_COMPARISONS, 0, 0
    for key in keys:
        if key in class_of:
            continue
        number = parse_number(key)
        rivals = [
            i
            for i, first in enumerate(firsts)
            if i not in alone and _may_be_same(first, key, number)
        ]
        class_of[key] = len(firsts)
        if len(rivals) > left or (rivals and lost >= MAX_LOST):
            num_uncompared += 1
            rivals = []
        left -= len(rivals)
        for i in rivals:
            found = same(firsts[i], key)
            if found is None:
                lost, num_uncompared = lost + 1, num_uncompared + 1
                alone.update({i, len(firsts)} - compared)
                break
            compared.add(i)
            if found:
                class_of[key] = i
                break
        if class_of[key] == len(firsts):
            firsts.append(key)
    return Classes(of_sample=tuple(class_of[key] for key in keys), num_uncompared=num_uncompared)


@pure(version="1", reads=("answer", "text"))
def same_answer_reward(problem: Problem, response: Response) -> Score:
    """`same_answer` of a problem's answer and a response's text, as a pool can compute it."""
    value = float(same_answer(problem.answer, response.text))
    return Score(value=value, verdict=Verdict.CORRECT if value else Verdict.WRONG)


class Equality:
    """`same_answer` in processes of their own, each comparison within `DEADLINE_S`.

    They start with the first comparison: numbers need none. It is a context manager.
    """

    def __init__(self, config: ScoringConfig):
        """`config` gives the number of processes, one at least, and their memory."""
        self._config = replace(config, workers=config.workers or 1, deadline_s=DEADLINE_S)
        self._pool: RewardPool | None = None

    def __call__(self, a: str, b: str) -> bool | None:
        """Whether two keys are one answer; None if that could not be found out in time."""
        if self._pool is None:
            self._pool = RewardPool(same_answer_reward, self._config)
        return pooled_same(self._pool, a, b)

    def __enter__(self) -> "Equality":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        if self._pool:
            self._pool.close()


def pooled_same(pool: RewardPool, a: str, b: str) -> bool | None:
    """`same_answer_reward` of two keys by a pool; None if it gives no verdict."""
    problem = Problem(id=f"same/{a}", prompt="", answer=a, source="same")
    verdict = pool(problem, Response(text=b)).verdict
    return verdict is Verdict.CORRECT if verdict in (Verdict.CORRECT, Verdict.WRONG) else None


def _equivalent(reference: str, answer: str) -> bool:
    try:
        return equivalent(reference, answer) is True
    except TooLarge:
        return False


def _may_be_same(a: str, b: str, number: Fraction | None) -> bool:
    """False for two numbers that differ, `number` being that of `b`, and for what is too large."""
    if max(len(a), len(b)) > MAX_LENGTH:
        return False
    other = parse_number(a) if number is not None else None
    return other is None or other == number
