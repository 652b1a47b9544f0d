"""Your own questions with numeric answers, from a file with one JSON object a line.

Leaves out conversations as prompts and answers that are not numbers.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from rewards.mathematics import numeric_reward, reference_number
from rewards.problem import Problem, Response, Score
from rollouts.sampler import Split
from rollouts.tasks.splits import split_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Jsonl:
    """The rows of a JSON Lines file, read once, when its problems are first asked for.

    Example: in `apples.jsonl` the row `{"prompt": "2 and 2 apples?", "answer": "4"}` is
    `Problem(id="apples/f2ec...", prompt="2 and 2 apples?", answer="4", source="apples")`.
    """

    path: str
    """The file, UTF-8."""
    prompt_column: str = "prompt"
    """The field with the question, a text."""
    answer_column: str = "answer"
    """The field with the reference: a number, or a text that states one ("... #### 72")."""
    id_column: str | None = None
    """The field with a unique id; None takes a hash of the question."""
    instruction: str = ""
    """Follows each question after a space; empty for none."""
    name: str = ""
    """First part of ids and the source; empty takes the file's name without its ending."""

    def __post_init__(self) -> None:
        """Name the task after its file; a slash would end the first part of an id."""
        if not self.name:
            object.__setattr__(self, "name", Path(self.path).stem)
        if not self.name or "/" in self.name:
            raise ValueError(f"the name of the task is {self.name!r}; give one without a slash")

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split in the order of the file. Changing `instruction` moves none.

        Raises:
            ValueError: A line is not a JSON object, lacks a field, or has no numeric answer.
        """
        return [problem for home, problem in _all_problems(self) if home == split]

    def score(self, problem: Problem, response: Response) -> Score:
        """1 if the response's final answer is the reference, exactly, else 0."""
        return numeric_reward(problem, response)


@lru_cache(maxsize=8)
def _all_problems(task: Jsonl) -> tuple[tuple[Split, Problem], ...]:
    """Every problem with its split, the first of each question; the rest are counted."""
    problems: dict[str, Problem] = {}
    lines_of_ids: dict[str, int] = {}
    num_rows = 0
    for line_number, row in _rows(task.path):
        num_rows += 1
        place = f"{task.path}, line {line_number}"
        question = _text(row, task.prompt_column, place)
        key = " ".join(question.split())
        if key in problems:
            continue
        problems[key] = problem = _problem(task, row, place, question, key)
        earlier = lines_of_ids.setdefault(problem.id, line_number)
        if earlier != line_number:
            raise ValueError(f"{place}: the id {problem.id!r} is that of line {earlier} too")
    if num_rows > len(problems):
        logger.warning("%s: left out %d repeated prompts", task.path, num_rows - len(problems))
    return tuple((split_of(key), problem) for key, problem in problems.items())


def _problem(task: Jsonl, row: dict[str, Any], place: str, question: str, key: str) -> Problem:
    answer = _text(row, task.answer_column, place)
    if reference_number(answer) is None:
        raise ValueError(
            f"{place}: the answer {answer[:80]!r} in field {task.answer_column!r} is not a number; "
            "this task grades numbers only, so change or remove the row"
        )
    if task.id_column is None:
        row_id = sha256(key.encode()).hexdigest()[:16]
    else:
        row_id = _text(row, task.id_column, place)
    return Problem(
        id=f"{task.name}/{row_id}",
        prompt=f"{question} {task.instruction}" if task.instruction else question,
        answer=answer,
        source=task.name,
    )


def _rows(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of each line that is not blank."""
    if not Path(path).is_file():
        raise ValueError(
            f"{path!r} is not a file; give the path from {Path.cwd()}, or an absolute one"
        )
    with open(path, "rb") as lines:
        for line_number, line in enumerate(lines, start=1):
            if line.strip():
                yield line_number, _json_object(line, f"{path}, line {line_number}")


def _json_object(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:  # not JSON, or not UTF-8
        raise ValueError(
            f"{place}: not valid JSON ({error}); each line must be one JSON object"
        ) from error
    if not isinstance(row, dict):
        raise ValueError(
            f"{place}: a JSON {type(row).__name__} ({line[:80]!r}); each line must be one object"
        )
    return row


def _text(row: dict[str, Any], column: str, place: str) -> str:
    """The field `column` as text; a number is written out, anything else refused."""
    if column not in row:
        fields = ", ".join(repr(name) for name in row) or "none"
        nearest = get_close_matches(column, row, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"{place}: no field {column!r}; the fields are {fields}{hint}")
    value = row[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{place}: field {column!r} is {value!r}; give a text or a number")
    return str(value)
