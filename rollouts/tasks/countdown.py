"""Countdown: reach a target with given numbers, each used exactly once (TinyZero's task).

The reference answer of a problem is the expression it was built from, so every target can be
reached. A response is right if its own expression has the same numbers and the same value.
"""

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from random import Random

from rewards.answers import after_thinking, tagged_answer
from rewards.problem import Problem, Response, Score, Verdict
from rewards.purity import pure
from rollouts.sampler import Split
from rollouts.tasks.splits import split_of

MAX_EXPRESSION_LENGTH = 200
"""Characters; a longer answer is too large."""

MAX_DEPTH = 32
"""Nested operations; a deeper expression is malformed. Four numbers need three."""

ATTEMPTS_PER_PROBLEM = 200
"""Draws, on average, after which a configuration counts as having too few problems."""

INSTRUCTION = (
    "You may use +, -, *, / and parentheses. Give only the expression, in <answer> tags, "
    "such as <answer>(1 + 2) / 3</answer>."
)

_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_ALLOWED = re.compile(r"[0-9+\-*/() ]+")
_TYPOGRAPHY = str.maketrans({"\u00d7": "*", "\u00f7": "/", "\u2212": "-"})


@dataclass(frozen=True, kw_only=True)
class Countdown:
    """`num_problems` solvable Countdown problems, the same for the same configuration.

    Example: `Problem(id="countdown/3,7,25=46", prompt="Using each of the numbers 7, 25, 3
    exactly once, write an expression that equals 46. ...", answer="25 + (7 * 3)",
    source="countdown")`; the answer "3*7+25" scores 1, "25 + 7 + 3" is wrong.
    """

    num_problems: int = 4096
    """Over all three splits."""
    num_numbers: int = 3
    """Numbers given in a problem: 3, or 4 for harder ones."""
    max_number: int = 50
    """Largest given number; the smallest is 1."""
    max_target: int = 100
    """Largest target; the smallest is 1."""
    seed: int = 0
    """Another seed gives other problems."""
    partial: float = 0.0
    """Reward of a well-formed expression that is wrong; TinyZero gives 0.1."""

    def __post_init__(self) -> None:
        """Refuse sizes that leave no problems."""
        if self.num_numbers not in (3, 4):
            raise ValueError(f"num_numbers is {self.num_numbers}; set it to 3 or 4")
        for field in ("num_problems", "max_number", "max_target"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}; set it to 1 or more")
        if not 0.0 <= self.partial < 1.0:
            raise ValueError(f"partial is {self.partial}; set it to at least 0 and less than 1")

    @property
    def name(self) -> str:
        """The first part of ids and the source."""
        return "countdown"

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split, in the order they were drawn."""
        return [problem for problem in _all_problems(self) if split_of(problem.id) == split]

    @pure(version="1", reads=("answer", "text", "prefill"))
    def score(self, problem: Problem, response: Response) -> Score:
        """1 if the last `<answer>` after the thinking solves the problem, else 0 or `partial`."""
        answer = tagged_answer(after_thinking(response.full_text))
        verdict = _verdict(problem, answer)
        accuracy = 1.0 if verdict is Verdict.CORRECT else 0.0
        partial = self.partial if verdict is Verdict.WRONG else 0.0
        parts = {"accuracy": accuracy, "partial": partial}
        return Score(value=accuracy + partial, verdict=verdict, parts=parts)


@dataclass(frozen=True, kw_only=True)
class Expression:
    """What an expression comes to: "(25 - 3) / 2" is value 11 from numbers (2, 3, 25)."""

    value: Fraction
    numbers: tuple[int, ...]


def parse_expression(text: str) -> Expression | None:
    """The value and the sorted numbers of an expression over + - * / and whole numbers.

    None if it is anything else, is over a cap, or divides by zero. Never raises, never
    evaluates; signs such as "-3" are not part of the language.
    """
    text = text.translate(_TYPOGRAPHY).strip()
    if len(text) > MAX_EXPRESSION_LENGTH or not _ALLOWED.fullmatch(text):
        return None
    try:
        value, numbers = _evaluate(ast.parse(text, mode="eval").body, MAX_DEPTH)
    except (SyntaxError, ZeroDivisionError, _NotInLanguage):
        return None
    return Expression(value=value, numbers=tuple(sorted(numbers)))


class _NotInLanguage(Exception):
    """A node that is neither an operation nor a whole number, or too deep."""


def _evaluate(node: ast.expr, depth: int) -> tuple[Fraction, list[int]]:
    if depth < 0:
        raise _NotInLanguage
    match node:
        case ast.Constant(value=int(number)):
            return Fraction(number), [number]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            left_value, left_numbers = _evaluate(left, depth - 1)
            right_value, right_numbers = _evaluate(right, depth - 1)
            value = _OPERATORS[type(op)](left_value, right_value)
            return value, left_numbers + right_numbers
    raise _NotInLanguage


def _verdict(problem: Problem, answer: str | None) -> Verdict:
    if not answer:
        return Verdict.NO_ANSWER
    if len(answer) > MAX_EXPRESSION_LENGTH:
        return Verdict.TOO_LARGE
    given = parse_expression(answer)
    if given is None:
        return Verdict.MALFORMED
    return Verdict.CORRECT if given == parse_expression(problem.answer) else Verdict.WRONG


@lru_cache(maxsize=8)
def _all_problems(task: Countdown) -> tuple[Problem, ...]:
    """Draws 0, 1, 2, ... without failures and repeats, until there are enough."""
    problems: dict[str, Problem] = {}
    for attempt in range(ATTEMPTS_PER_PROBLEM * task.num_problems):
        problem = _draw(task, Random(f"countdown/{task.seed}/{attempt}"))
        if problem is not None:
            problems.setdefault(problem.id, problem)
        if len(problems) == task.num_problems:
            return tuple(problems.values())
    raise ValueError(
        f"found only {len(problems)} of num_problems={task.num_problems} Countdown problems with "
        f"max_number={task.max_number} and max_target={task.max_target}; raise one of these or "
        "ask for fewer"
    )


def _draw(task: Countdown, random: Random) -> Problem | None:
    """One problem, or None if its target came out too large. Its id is its canonical key."""
    numbers = [random.randint(1, task.max_number) for _ in range(task.num_numbers)]
    expression, target = _combine(numbers, random)
    if target > task.max_target:
        return None
    shown = ", ".join(str(number) for number in numbers)
    return Problem(
        id=f"countdown/{','.join(str(number) for number in sorted(numbers))}={target}",
        prompt=f"Using each of the numbers {shown} exactly once, write an expression that "
        f"equals {target}. {INSTRUCTION}",
        answer=expression,
        source="countdown",
    )


def _combine(numbers: list[int], random: Random) -> tuple[str, int]:
    """An expression of all numbers with its value; every step in it is a positive integer."""
    terms = [(str(number), number) for number in numbers]
    while len(terms) > 1:
        random.shuffle(terms)
        (left, a), (right, b) = terms.pop(), terms.pop()
        symbol, value = random.choice(_steps(a, b))
        terms.append((f"({left} {symbol} {right})", value))
    expression, value = terms[0]
    return expression[1:-1], value


def _steps(a: int, b: int) -> list[tuple[str, int]]:
    steps = [("+", a + b), ("*", a * b)]
    if a > b:
        steps.append(("-", a - b))
    if a % b == 0:
        steps.append(("/", a // b))
    return steps
