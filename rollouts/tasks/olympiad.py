"""OlympiadBench: competition questions whose reference may be a list, or a number within a bound."""

import json
from dataclasses import dataclass
from typing import Any

from rewards.answers import after_thinking, final_answer
from rewards.mathematics import math_reward
from rewards.numeric import parse_number
from rewards.problem import Problem, Response, Score, Verdict
from rewards.purity import pure
from rollouts.tasks.dataset import Dataset, answer_text, text_of
from rollouts.tasks.rows import Row, field_of

BOUNDED = '{"answer": '
"""Begins a reference that has a tolerance; a set begins with a brace too."""


@dataclass(frozen=True, kw_only=True)
class Olympiad(Dataset):
    """The open-ended English mathematics of OlympiadBench (He et al. 2024), text only.

    Example: the row with `final_answer` ["4.2"], unit "%" and `error` "1e-1" has the answer
    `{"answer": "4.2", "tolerance": "1e-1"}`: 4.15 and 4.3 are right, 4.31 is wrong. Without
    `error` the answer is the reference itself, graded as mathematics.
    """

    path: str = "Hothan/OlympiadBench"
    subset: str = "OE_TO_maths_en_COMP"
    train_split: str = ""
    test_split: str = "train"
    prompt_column: str = "question"
    answer_column: str = "final_answer"
    source_column: str = "subfield"
    name: str = "olympiadbench"

    def reference(self, row: Row, place: str) -> str:
        """The answers of the list in one line, as JSON where a tolerance belongs to them."""
        answer = _joined(field_of(row, self.answer_column, place), self.answer_column, place)
        if row.get("error") in (None, ""):
            return answer
        tolerance = text_of(row, "error", place)
        if parse_number(tolerance) is None or parse_number(answer) is None:
            raise ValueError(
                f"{place}: field 'error' is {tolerance!r} for the answer {answer!r}; a tolerance is "
                "a number and belongs to one number"
            )
        return json.dumps({"answer": answer, "tolerance": tolerance})

    def plain_answer(self, problem: Problem) -> str:
        """The answers without their tolerance."""
        if problem.answer.startswith(BOUNDED):
            return json.loads(problem.answer)["answer"]
        return super().plain_answer(problem)

    @pure(version="1", reads=("prompt", "answer", "text", "prefill"))
    def score(self, problem: Problem, response: Response) -> Score:
        """1 if the final answer is the reference, or a number within the tolerance, else 0."""
        if not problem.answer.startswith(BOUNDED):
            return math_reward(problem, response)
        bound = json.loads(problem.answer)
        verdict = _within(bound["answer"], bound["tolerance"], response)
        value = float(verdict is Verdict.CORRECT)
        return Score(value=value, verdict=verdict, parts={"accuracy": value})


def _joined(value: Any, column: str, place: str) -> str:
    if isinstance(value, list) and value:
        return ", ".join(answer_text(part, column, place) for part in value)
    return answer_text(value, column, place)


def _within(reference: str, tolerance: str, response: Response) -> Verdict:
    answer = final_answer(after_thinking(response.full_text))
    if answer is None:
        return Verdict.NO_ANSWER
    number, middle, bound = map(parse_number, (answer, reference, tolerance))
    if number is None or middle is None or bound is None:
        return Verdict.MALFORMED
    return Verdict.CORRECT if abs(number - middle) <= bound else Verdict.WRONG
