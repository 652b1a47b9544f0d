"""Rewards that take real work for `benchmarks.overlap`, whatever the model says.

In a module of their own, since scoring processes import them by name.
"""

from collections.abc import Callable
from dataclasses import replace

from benchmarks.step import coin
from rewards.mathematics import math_reward
from rewards.problem import Problem, Response, Score, Verdict
from rewards.programs import program_reward
from rewards.unit_tests import StdioTests

ANSWERS = (
    (r"\frac{\sqrt{3}}{2}", r"\sin 60^\circ"),
    (r"x^2+2x+1", r"(x+1)^2"),
    (r"\frac{7}{12}", r"\frac13+\frac14"),
    (r"(-\infty, -1) \cup (1, \infty)", r"x < -1 \text{ or } x > 1"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}"),
    (r"2\sqrt{3}+\ln 8", r"\sqrt{12}+3\ln 2"),
)  # fmt: skip
PROGRAM = "```python\nn = int(input())\nprint(sum(i * i for i in range(n)))\n```"
CASES = tuple((f"{n}\n", f"{sum(i * i for i in range(n))}\n") for n in (1, 10, 1_000, 100_000))


def of_algebra(problem: Problem, response: Response) -> Score:
    """The coin's value, after the math reward has compared a pair of `ANSWERS`."""
    reference, answer = ANSWERS[len(response.text) % len(ANSWERS)]
    asked = replace(problem, answer=reference)
    found = math_reward(asked, replace(response, text=rf"\boxed{{{answer}}}", prefill=""))
    return _expected(found, problem, response)


def of_programs(problem: Problem, response: Response) -> Score:
    """The coin's value, after a program has passed its cases in the sandbox."""
    asked = replace(problem, answer=StdioTests(cases=CASES).to_json())
    found = program_reward(asked, replace(response, text=PROGRAM, prefill=""))
    return _expected(found, problem, response)


def _expected(found: Score, problem: Problem, response: Response) -> Score:
    if found.verdict is not Verdict.CORRECT:
        raise RuntimeError(f"the work was to be right, but its verdict is {found.verdict}")
    return coin(problem, response)


REWARDS: dict[str, Callable[..., Score]] = {
    "coin": coin,
    "math": of_algebra,
    "programs": of_programs,
}
