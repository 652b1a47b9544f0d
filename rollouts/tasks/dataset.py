"""Questions with reference answers from any data set: files, folders, Hugging Face.

Columns are named by configuration, so that verl's and TRL's data sets need no conversion.
Leaves out programs (rollouts/tasks/programs.py).
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any, Literal

from rewards.answers import stated_answer
from rewards.mathematics import math_reward, numeric_reward
from rewards.problem import Messages, Problem, Response, Score
from rewards.purity import pure
from rollouts.sampler import Split
from rollouts.tasks.rows import Row, RowSource, field_of, read_rows
from rollouts.tasks.splits import split_of

logger = logging.getLogger(__name__)

NAMED = 3
"""So many of the rows with a bad answer are named."""


REWARDS = {"math": math_reward, "numeric": numeric_reward}


@dataclass(frozen=True, kw_only=True)
class Dataset(RowSource):
    """The rows of a data set, read once, when its problems are first asked for.

    Example: in `apples.jsonl` the row `{"prompt": "2 and 2 apples?", "answer": "4"}` is
    `Problem(id="apples/f2ec...", prompt="2 and 2 apples?", answer="4", source="apples")`.
    verl's files need `prompt_column="prompt", answer_column="reward_model.ground_truth",
    source_column="data_source"`.
    """

    prompt_column: str = "prompt"
    """The question, a text or a conversation; dots lead into objects."""
    answer_column: str = "answer"
    """The reference: an answer, a list of one, or a text that states one ("... #### 72")."""
    id_column: str = ""
    """A unique id; empty takes a hash of the question."""
    source_column: str = ""
    """Where a row comes from, for metrics by source; empty for the task's name alone."""
    instruction: str = ""
    """Follows each question that is a text, after a space; empty for none."""
    reward: Literal["math", "numeric"] = "math"
    """math: formulas, sets, intervals, words and choices too; numeric: numbers only, exactly."""
    bad_answers: Literal["refuse", "skip"] = "refuse"
    """Rows whose reference is missing or cannot be read: refuse the data set naming them, or leave
    them out aloud."""

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split in the order of the rows. Changing `instruction` moves none.

        Raises:
            ValueError: A row lacks a field, or references cannot be read.
        """
        return [problem for home, problem in _all_problems(self) if home == split]

    @pure(version="1", reads=("prompt", "answer", "text", "prefill"))
    def score(self, problem: Problem, response: Response) -> Score:
        """1 if the response's final answer is the reference, else 0."""
        return REWARDS[self.reward](problem, response)

    def problem(self, row: Row, place: str) -> tuple[str, Problem]:
        """The key that twins share, and the problem of a row; ids do not depend on `instruction`.

        Raises:
            ValueError: A field is missing, or is no text; with the place of the row.
        """
        key = key_of(prompt_of(row, self, place))
        row_id = text_of(row, self.id_column, place) if self.id_column else hashed(key)
        source = text_of(row, self.source_column, place) if self.source_column else ""
        return key, Problem(
            id=f"{self.name}/{row_id}",
            prompt=self.ask(row, place),
            answer=self.reference(row, place),
            source=f"{self.name}/{source}" if source else self.name,
        )

    def ask(self, row: Row, place: str) -> str | Messages:
        """The prompt."""
        prompt = prompt_of(row, self, place)
        if isinstance(prompt, str) and self.instruction:
            return f"{prompt} {self.instruction}"
        return prompt

    def reference(self, row: Row, place: str) -> str:
        """The answer as text; a list of one, as verl writes some, is that one."""
        value = field_of(row, self.answer_column, place)
        if isinstance(value, list) and len(value) == 1:
            return answer_text(value[0], self.answer_column, place)
        return answer_text(value, self.answer_column, place)

    def plain_answer(self, problem: Problem) -> str:
        """The reference as a response would state it: "72" for "... #### 72"."""
        stated = stated_answer(problem.answer)
        return problem.answer if stated is None else stated


@dataclass(frozen=True, kw_only=True)
class Gsm8k(Dataset):
    """Grade-school word problems (Cobbe et al. 2021), 7,473 to train and 1,319 to test."""

    path: str = "openai/gsm8k"
    subset: str = "main"
    test_split: str = "test"
    prompt_column: str = "question"
    reward: Literal["math", "numeric"] = "numeric"
    name: str = "gsm8k"


@dataclass(frozen=True, kw_only=True)
class Competition(Dataset):
    """Competition mathematics (MATH, Hendrycks et al. 2021): the answer is the solution's box."""

    path: str = "DigitalLearningGmbH/MATH-lighteval"
    test_split: str = "test"
    prompt_column: str = "problem"
    answer_column: str = "solution"
    source_column: str = "type"
    bad_answers: Literal["refuse", "skip"] = "skip"  # two boxes of its train rows are empty
    name: str = "competition"


def homes(
    task: RowSource, problem_of: Callable[[Row, str], tuple[str, Problem] | None]
) -> list[tuple[Split, Problem]]:
    """Every problem with its split: the first of each key, own test rows first, repeats counted.

    `problem_of(row, place)` gives the key that twins share, and the problem; None leaves it out.
    """
    rows = (
        (name == task.test_split, place, row)
        for name in filter(None, (task.test_split, task.train_split))
        for place, row in read_rows(task.path, task.subset, name)
    )
    return assigned(rows, problem_of, own_test=bool(task.test_split), label=task.path)


def assigned(
    rows: Iterable[tuple[bool, str, Row]],
    problem_of: Callable[[Row, str], tuple[str, Problem] | None],
    *,
    own_test: bool,
    label: str,
) -> list[tuple[Split, Problem]]:
    """As `homes`, of rows that each say whether they are the data's own test row, and their place.

    `own_test` tells that there are such rows; `label` names the data in what is logged.
    """
    found: dict[str, tuple[Split, Problem]] = {}
    places: dict[str, str] = {}
    num_rows = 0
    for is_test, place, row in rows:
        made = problem_of(row, place)
        num_rows += made is not None
        if made is None or made[0] in found:
            continue
        key, problem = made
        if problem.id in places:
            raise ValueError(f"{place}: the id {problem.id!r} is that of {places[problem.id]} too")
        places[problem.id] = place
        found[key] = ("test" if is_test else _home(key, own_test), problem)
    if num_rows > len(found):
        logger.warning("%s: left out %d repeated prompts", label, num_rows - len(found))
    return list(found.values())


def _home(key: str, own_test: bool) -> Split:
    """A hash takes validation, and test where the data have no test rows of their own."""
    home = split_of(key)
    return "train" if own_test and home == "test" else home


@lru_cache(maxsize=8)
def _all_problems(task: Dataset) -> tuple[tuple[Split, Problem], ...]:
    bad: list[str] = []
    unread: list[str] = []

    def problem_of(row: Row, place: str) -> tuple[str, Problem] | None:
        prompt_of(row, task, place)
        try:
            task.reference(row, place)
        except ValueError as error:
            unread.append(str(error))
            bad.append(str(error))
            return None
        key, problem = task.problem(row, place)
        if not scores_itself(task, problem):
            bad.append(f"{place}: {problem.answer[-80:]!r}")
            return None
        return key, problem

    problems = homes(task, problem_of)
    if unread and len(unread) == len(bad) and not problems:  # the column's name is wrong, not a row
        raise ValueError(unread[0])
    if bad and task.bad_answers == "refuse":
        raise ValueError(
            f"{len(bad)} of {len(bad) + len(problems)} answers in field {task.answer_column!r} "
            f"cannot be graded by the reward {task.reward!r}: {'; '.join(bad[:NAMED])}"
            f"{'; ...' if len(bad) > NAMED else ''}. Mend the rows, or leave them out with "
            "--task.bad-answers skip"
        )
    if bad:
        logger.warning("%s: left out %d rows whose answer cannot be graded", task.path, len(bad))
    return tuple(problems)


def scores_itself(task: Dataset, problem: Problem) -> bool:
    """Whether the reference, as a response in a box, is right: no other answer could be."""
    answer = task.plain_answer(problem)
    try:
        return task.score(problem, Response(text=f"\\boxed{{{answer}}}")).value == 1.0
    except ValueError:  # a reference that the reward does not take
        return False


def prompt_of(row: Row, task: Any, place: str) -> str | Messages:
    """The question: a text, a number written out, or a conversation as it is.

    Raises ValueError for anything else.
    """
    value = field_of(row, task.prompt_column, place)
    if isinstance(value, list) and value and all(_is_message(turn) for turn in value):
        return tuple({"role": turn["role"], "content": turn["content"]} for turn in value)
    if isinstance(value, list):
        raise ValueError(
            f"{place}: field {task.prompt_column!r} is {str(value)[:80]}; a conversation is a list of "
            'objects with the texts "role" and "content"'
        )
    return text_of(row, task.prompt_column, place)


def text_of(row: Row, column: str, place: str) -> str:
    """The field `column` as text; a number is written out, anything else refused."""
    return _text(field_of(row, column, place), column, place)


def answer_text(value: Any, column: str, place: str) -> str:
    """A reference as text; raises ValueError where there is none."""
    text = _text(value, column, place)
    if not text.strip():
        raise ValueError(f"{place}: field {column!r} is empty; give the reference answer")
    return text


def _text(value: Any, column: str, place: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{place}: field {column!r} is {value!r}; give a text or a number")
    return str(value)


def key_of(prompt: str | Messages) -> str:
    """What twins share: the words of the prompt with single spaces."""
    texts = [prompt] if isinstance(prompt, str) else [turn["content"] for turn in prompt]
    return " ".join(" ".join(texts).split())


def hashed(key: str) -> str:
    """A short id of a key, the same for ever."""
    return sha256(key.encode()).hexdigest()[:16]


def _is_message(turn: Any) -> bool:
    return isinstance(turn, dict) and all(isinstance(turn.get(k), str) for k in ("role", "content"))
