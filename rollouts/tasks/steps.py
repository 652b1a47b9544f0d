"""Arithmetic that takes steps: sums and differences of two and three digits, and word problems.

The smallest task on which thinking helps: column by column each step is easy, at once none is.
`worked` writes the steps out, for a cold start where a small model's own samples are too few.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from rewards.mathematics import numeric_reward
from rewards.problem import Problem, Response, Score
from rewards.purity import pure
from rollouts.sampler import Split
from rollouts.tasks.splits import split_of
from rollouts.tasks.worked_columns import spaced, worked_chain

KINDS = {"add2": (2, "+"), "subtract2": (2, "-"), "add3": (3, "+"), "subtract3": (3, "-")}
"""Digits of both operands and the operator of each kind that is no word problem."""

ATTEMPTS_PER_PROBLEM = 200
BRIEF = 0.3
"""Share of worked solutions without steps."""

NAMES = ("Ada", "Ben", "Carla", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ines", "Jonas")
THINGS = ("apples", "books", "cards", "coins", "eggs", "marbles", "pencils", "shells", "stamps")
STEPS = {
    "+": ("finds {n} more", "buys {n} more", "gets {n} from a friend"),
    "-": ("gives away {n}", "loses {n}", "sells {n}"),
}
"""What a word problem says for an operator."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """`num_problems` of each kind, or as many as there are; the same for the same configuration.

    Examples: `Problem(id="steps/add3/347+285", prompt="What is 347 + 285?", answer="632",
    source="steps/add3")`; "Ada has 47 apples. She..." with `id="steps/words/47+38-29/7"`. A sum and
    the same sum turned round are in one split, and so are all stories of the same numbers.
    """

    kinds: tuple[str, ...] = ("add2", "subtract2", "add3", "subtract3", "words")
    """Which are asked: sums and differences of two and three digits, word problems of two steps."""
    num_problems: int = 2000
    """Of each kind, over all splits."""
    instruction: str = ""
    """Follows the question after a space."""
    seed: int = 0
    """Of the operands drawn."""

    def __post_init__(self) -> None:
        """Refuse kinds that are not there, and sizes without problems."""
        known = (*KINDS, "words")
        if not self.kinds or not set(self.kinds) <= set(known):
            raise ValueError(f"kinds is {self.kinds}; name at least one of {', '.join(known)}")
        if self.num_problems < 20:
            raise ValueError(f"num_problems is {self.num_problems}; use 20 or more of each kind")

    @property
    def name(self) -> str:
        """The first part of ids and sources."""
        return "steps"

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split, kind by kind."""
        return [problem for home, problem in _all_problems(self) if home == split]

    @pure(version="1", reads=("answer", "text", "prefill"))
    def score(self, problem: Problem, response: Response) -> Score:
        """1 if the response's final answer is the result, else 0."""
        return numeric_reward(problem, response)

    def worked(self, problem: Problem) -> str:
        r"""A solution in R1's form: the columns within `<think>`, then a sentence and the answer boxed.

        `BRIEF` of them, by a hash of the problem, think in no steps, as people's do: what pays is for
        RL to find. Example: "What is 47 + 38?" is worked as "<think>\n47 + 38\nones: 7 + 8 = 15,
        write 5, carry 1\ntens: 4 + 3 + 1 = 8\nso 85\n</think>\nThe answer is \boxed{85}.", or in
        brief as "<think>\n47 + 38\nso 85\n</think>\nThe answer is \boxed{85}."
        """
        expression, result = problem.id.split("/")[2], problem.answer
        chain = worked_chain(expression)
        if Random(f"brief/{problem.id}").random() < BRIEF:
            chain = f"{spaced(expression)}\nso {result}"
        return f"<think>\n{chain}\n</think>\nThe answer is \\boxed{{{result}}}."


@lru_cache(maxsize=8)
def _all_problems(task: Steps) -> tuple[tuple[Split, Problem], ...]:
    return tuple(pair for kind in task.kinds for pair in _of_kind(task, kind))


def _of_kind(task: Steps, kind: str) -> Iterator[tuple[Split, Problem]]:
    random = Random(f"{task.seed}/{kind}")
    seen: set[str] = set()
    for _ in range(task.num_problems * ATTEMPTS_PER_PROBLEM):
        problem, key = _words(task, random) if kind == "words" else _plain(task, kind, random)
        if problem.id not in seen:
            seen.add(problem.id)
            yield split_of(key), problem
        if len(seen) == task.num_problems:
            return


def _plain(task: Steps, kind: str, random: Random) -> tuple[Problem, str]:
    digits, operator = KINDS[kind]
    a, b = (random.randint(10 ** (digits - 1), 10**digits - 1) for _ in range(2))
    low, high = sorted((a, b))
    if operator == "-":
        a, b = high, low
    question = f"What is {a} {operator} {b}?"
    expression = f"{a}{operator}{b}"
    key = f"steps/{operator}/{low},{high}"
    return _problem(task, kind, expression, question, expression), key


def _words(task: Steps, random: Random) -> tuple[Problem, str]:
    """A story of two steps whose amounts are never below 0."""
    first, *others = (random.randint(10, 99) for _ in range(3))
    expression, total = str(first), first
    name, thing = random.choice(NAMES), random.choice(THINGS)
    told = []
    for number in others:
        operator = random.choice("+-") if number <= total else "+"
        total += number if operator == "+" else -number
        expression += f"{operator}{number}"
        told.append(random.choice(STEPS[operator]).format(n=number))
    question = (
        f"{name} has {first} {thing}. {name} {told[0]} and then {told[1]}. "
        f"How many {thing} does {name} have now?"
    )
    story = f"{name}-{thing}-{'-'.join(each.split()[0] for each in told)}"
    problem = _problem(task, "words", expression, question, f"{expression}/{story}")
    return problem, f"steps/words/{','.join(sorted(map(str, (first, *others))))}"


def _problem(task: Steps, kind: str, expression: str, question: str, identity: str) -> Problem:
    return Problem(
        id=f"steps/{kind}/{identity}",
        prompt=f"{question} {task.instruction}".strip(),
        answer=str(value_of(expression)),
        source=f"steps/{kind}",
    )


def value_of(expression: str) -> int:
    """The value of whole numbers joined by + and -, such as "47+38-29"."""
    return sum(int(term) for term in expression.replace("-", "+-").split("+"))
