"""Programming problems: HumanEval, MBPP, and any data set of programs with input and output.

Solutions run in the sandbox of rewards/programs.py. Leaves out languages other than Python.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from rewards.problem import Problem, Response, Score
from rewards.programs import program_fraction_reward, program_reward
from rewards.unit_tests import CallTests, StdioTests, human_eval_tests, mbpp_tests
from rollouts.sampler import Split
from rollouts.tasks.dataset import hashed, homes, key_of, text_of
from rollouts.tasks.rows import MissingField, Row, RowSource, field_of

logger = logging.getLogger(__name__)

BLOCK = "Give the whole program in one ```python block."


@dataclass(frozen=True, kw_only=True)
class Programs(RowSource):
    """Programs that read stdin and print, graded by cases of input and output.

    Example: the row `{"prompt": "Add two numbers.", "tests": [{"input": "1 2", "output": "3"}]}`.
    Cases may also be two lists, `{"inputs": [...], "outputs": [...]}`, or such JSON as a text.
    """

    prompt_column: str = "prompt"
    """The question, a text."""
    tests_column: str = "tests"
    """The cases; dots lead into objects."""
    tolerance: float | None = None
    """By how much printed numbers may differ; None compares the text."""
    timeout_s: float = 10.0
    """Of a solution, in seconds: each case, or all calls together."""
    partial: bool = False
    """Reward the share of tests passed instead of all or nothing."""

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split in the order of the rows.

        Rows whose tests cannot be split from the solution are left out, with their count and ids.
        """
        return [problem for home, problem in _all_problems(self) if home == split]

    def score(self, problem: Problem, response: Response) -> Score:
        """1 if the response's program passes every test, or the share that it passes."""
        reward = program_fraction_reward if self.partial else program_reward
        return reward(problem, response)

    def problem(self, row: Row, place: str) -> tuple[str, Problem]:
        """The key that twins share, and the problem of a row.

        Raises:
            MissingField: With the place of the row.
            ValueError: Its tests cannot be used.
        """
        prompt = self.ask(row, place)
        tests = replace(self.tests_of(row, place), timeout_s=self.timeout_s)
        problem_id = f"{self.name}/{self.id_of(row, place)}"
        answer = tests.to_json()
        return key_of(prompt), Problem(
            id=problem_id, prompt=prompt, answer=answer, source=self.name
        )

    def id_of(self, row: Row, place: str) -> str:
        """The row's own id, or a hash of its question."""
        if "task_id" in row:
            return text_of(row, "task_id", place)
        return hashed(key_of(text_of(row, self.prompt_column, place)))

    def ask(self, row: Row, place: str) -> str:
        """The prompt."""
        question = text_of(row, self.prompt_column, place)
        return f"{question}\n\nRead from stdin and print to stdout. {BLOCK}"

    def tests_of(self, row: Row, place: str) -> CallTests | StdioTests:
        """The tests; raises ValueError where they cannot be used."""
        cases = field_of(row, self.tests_column, place)
        try:
            cases = json.loads(cases) if isinstance(cases, str) else cases
            if isinstance(cases, dict):
                pairs = list(zip(cases["inputs"], cases["outputs"], strict=True))
            else:
                pairs = [(case["input"], case["output"]) for case in cases]
        except (ValueError, TypeError, LookupError) as error:
            raise ValueError(f"its tests are no cases of input and output ({error!r})") from error
        if not pairs or not all(isinstance(text, str) for pair in pairs for text in pair):
            raise ValueError("its tests are no cases of texts")
        return StdioTests(cases=tuple(pairs), tolerance=self.tolerance)


@dataclass(frozen=True, kw_only=True)
class HumanEval(Programs):
    """Functions to complete (Chen et al. 2021), 164 problems, all of them for testing."""

    path: str = "openai/openai_humaneval"
    train_split: str = ""
    test_split: Literal["test"] = "test"
    name: str = "human_eval"

    def ask(self, row: Row, place: str) -> str:
        """The function's head and docstring, to be completed."""
        code = text_of(row, "prompt", place)
        return f"Complete this function.\n\n```python\n{code.rstrip()}\n```\n\n{BLOCK}"

    def tests_of(self, row: Row, place: str) -> CallTests:
        """`check(candidate)` as one test."""
        for column in ("task_id", "prompt", "test", "entry_point"):
            text_of(row, column, place)
        return human_eval_tests(row)


@dataclass(frozen=True, kw_only=True)
class Mbpp(Programs):
    """Small functions from a sentence and asserts (Austin et al. 2021), sanitized or full."""

    path: str = "google-research-datasets/mbpp"
    subset: str = "sanitized"
    test_split: str = "test"
    name: str = "mbpp"

    def ask(self, row: Row, place: str) -> str:
        """The sentence and its tests, which tell the function's name."""
        question = text_of(row, "prompt" if "prompt" in row else "text", place)
        tests = "\n".join(field_of(row, "test_list", place))
        return f"{question} It must pass these tests:\n\n```python\n{tests}\n```\n\n{BLOCK}"

    def tests_of(self, row: Row, place: str) -> CallTests:
        """Each assert as one test."""
        for column in ("code", "test_list"):
            if not field_of(row, column, place):
                raise MissingField(f"{place}: field {column!r} is empty")
        return mbpp_tests(row)


@lru_cache(maxsize=8)
def _all_problems(task: Programs) -> tuple[tuple[Split, Problem], ...]:
    left_out: list[str] = []
    problems = homes(task, _reader(task, left_out))
    if left_out:
        logger.warning(
            "%s: left out %d problems whose tests cannot be used: %s",
            task.path,
            len(left_out),
            "; ".join(left_out),
        )
    return tuple(problems)


def _reader(
    task: Programs, left_out: list[str]
) -> Callable[[Row, str], tuple[str, Problem] | None]:
    def problem_of(row: Row, place: str) -> tuple[str, Problem] | None:
        task.ask(row, place)
        try:
            return task.problem(row, place)
        except ValueError as error:
            left_out.append(f"{task.id_of(row, place)} ({error})")
            return None

    return problem_of
