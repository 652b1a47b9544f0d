"""Sums, differences and products of small whole numbers: the smallest task that can be learned."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache

from rewards.mathematics import numeric_reward
from rewards.problem import Problem, Response, Score
from rewards.purity import pure
from rollouts.sampler import Split
from rollouts.tasks.splits import split_of

SYMBOLS = {"add": "+", "subtract": "-", "multiply": "*"}


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """Every "What is a + b?" in a range; 2,564 problems as it stands.

    Example: `Problem(id="arithmetic/add/3+5", prompt="What is 3 + 5? Reply with the number
    only.", answer="8", source="arithmetic/add")`. It and 5 + 3 are always in one split.
    """

    operations: tuple[str, ...] = ("add", "subtract", "multiply")
    """Which of add, subtract and multiply are asked."""
    add_max: int = 40
    """Largest operand of a sum; operands start at 1."""
    subtract_max: int = 40
    """Largest operand of a difference; the first is never smaller than the second."""
    multiply_max: int = 12
    """Largest operand of a product."""
    instruction: str = "Reply with the number only."
    """Follows the question after a space; empty for none."""

    def __post_init__(self) -> None:
        """Refuse operations and ranges without problems."""
        if not self.operations or len(set(self.operations)) < len(self.operations):
            raise ValueError(
                f"operations is {self.operations}; name at least one of {', '.join(SYMBOLS)}, "
                "each once"
            )
        for operation in self.operations:
            _check_operation(operation)
            if self.largest(operation) < 1:
                raise ValueError(
                    f"{operation}_max is {self.largest(operation)}, which leaves no problems; "
                    f"set it to 1 or more, or take {operation!r} out of operations"
                )

    @property
    def name(self) -> str:
        """The first part of ids and sources."""
        return "arithmetic"

    def largest(self, operation: str) -> int:
        """The largest operand of an operation."""
        limits = {"add": self.add_max, "subtract": self.subtract_max, "multiply": self.multiply_max}
        return limits[operation]

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split, by operation, then first and second operand."""
        return [problem for home, problem in _all_problems(self) if home == split]

    @pure(version="1", reads=("answer", "text", "prefill"))
    def score(self, problem: Problem, response: Response) -> Score:
        """1 if the response's final answer is the result, else 0."""
        return numeric_reward(problem, response)


def _check_operation(operation: str) -> None:
    if operation in SYMBOLS:
        return
    nearest = get_close_matches(operation, SYMBOLS, n=1, cutoff=0.0)[0]
    raise ValueError(
        f"unknown operation {operation!r}; did you mean {nearest!r}? "
        f"Operations are {', '.join(SYMBOLS)}"
    )


@lru_cache(maxsize=8)
def _all_problems(task: Arithmetic) -> tuple[tuple[Split, Problem], ...]:
    return tuple(
        (split_of(_canonical_key(operation, a, b)), _problem(task, operation, a, b))
        for operation in task.operations
        for a, b in _operands(operation, task.largest(operation))
    )


def _operands(operation: str, largest: int) -> Iterator[tuple[int, int]]:
    for a in range(1, largest + 1):
        for b in range(1, (a if operation == "subtract" else largest) + 1):
            yield a, b


def _canonical_key(operation: str, a: int, b: int) -> str:
    """The same for 3 + 5 and 5 + 3, so that knowing one never helps in another split."""
    low, high = sorted((a, b))
    return f"arithmetic/{operation}/{low},{high}"


def _problem(task: Arithmetic, operation: str, a: int, b: int) -> Problem:
    symbol = SYMBOLS[operation]
    result = {"add": a + b, "subtract": a - b, "multiply": a * b}[operation]
    return Problem(
        id=f"arithmetic/{operation}/{a}{symbol}{b}",
        prompt=f"What is {a} {symbol} {b}? {task.instruction}".strip(),
        answer=str(result),
        source=f"arithmetic/{operation}",
    )
