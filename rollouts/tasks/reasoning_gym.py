"""The procedural data sets of reasoning-gym (Stojanovski et al. 2025), scored by the package.

An entry is drawn again by its number where it is scored: its metadata, which scorers need, do
not survive a trip through JSON. What a scorer may be handed stands in
rollouts/tasks/reasoning_gym_guards.py. Leaves out curricula.
"""

import json
import logging
import math
from copy import deepcopy
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import lru_cache
from importlib import metadata
from typing import Any, Literal

from rewards.answers import after_thinking, boxed_answer, tagged_answer
from rewards.problem import Problem, Response, Score, Verdict
from rewards.purity import pure
from rollouts.sampler import Split
from rollouts.tasks.dataset import key_of
from rollouts.tasks.reasoning_gym_guards import (
    MAX_ANSWER_CHARS,
    REFERENCE_IN_METADATA,
    REFUSED,
    VERSION,
    WITHOUT_REFERENCE,
    Entry,
    admits,
)
from rollouts.tasks.rows import json_object
from rollouts.tasks.splits import split_of

logger = logging.getLogger(__name__)

INSTALL = "pip install 'groupwise[reasoning-gym]'"
NAMED = 3
"""So many of the entries with a bad reference are named."""
OWN_OPTIONS = ("seed", "size")
MAX_KEPT = 2048
"""Entries that a process keeps, so that a group's responses do not each draw theirs again."""


@dataclass(frozen=True, kw_only=True)
class ReasoningGym:
    """`size` entries of one data set, the same for the same configuration; equal questions once.

    Example: `ReasoningGym(dataset="chain_sum", options='{"min_terms": 3}')` has
    `Problem(id="reasoning_gym_chain_sum/1", prompt="State the final answer to the following
    arithmetic problem: 4 - 1 - 7 + 7 = ...", answer="3", source="reasoning_gym_chain_sum")`.
    """

    dataset: str
    """Its name in reasoning-gym, such as chain_sum or sudoku."""
    size: int = 2000
    """Entries drawn, over all three splits. Most take under 5 ms each; sudoku, zebra_puzzles,
    sokoban, puzzle24 and futoshiki take 50 to 300."""
    seed: int = 0
    """Entry i is drawn from seed + i: seeds closer than `size` share entries."""
    options: str = ""
    """The data set's own settings as a JSON object, such as '{"min_terms": 3}'."""
    instruction: str = "Give only the final answer between <answer> and </answer>."
    """Follows the question on a line of its own; empty for none."""
    bad_answers: Literal["refuse", "skip"] = "refuse"
    """Entries whose reference is missing or does not score 1: refuse the data set naming them, or
    leave them out aloud."""
    name: str = ""
    """First part of ids and the source; empty takes reasoning_gym_ and the data set's name."""

    def __post_init__(self) -> None:
        """Name the task; refuse what needs no package to be seen wrong."""
        if not self.name:
            object.__setattr__(self, "name", f"reasoning_gym_{self.dataset}")
        if "/" in self.name:
            raise ValueError(f"the name of the task is {self.name!r}; give one without a slash")
        if self.size < 1:
            raise ValueError(f"size is {self.size}; set it to 1 or more")
        if self.dataset in REFUSED:
            raise ValueError(f"no training on {self.dataset!r}: {REFUSED[self.dataset]}")
        for option in json_object(self.options, "options"):
            if option in OWN_OPTIONS:
                raise ValueError(f"options names {option!r}; set --task.{option} instead")

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split in the order of their numbers. `instruction` moves none.

        Raises:
            ValueError: The package or the data set is not there, an option is unknown, or
                references cannot be used.
        """
        return [problem for home, problem in _all_problems(self) if home == split]

    @pure(version="1", reads=("id", "prompt", "text", "prefill"))
    def score(self, problem: Problem, response: Response) -> Score:
        """What the data set's scorer gives the final answer, correct at 1 alone.

        The answer is the last `<answer>` after the thinking, or the last box. One that the scorer
        may not see, or fails on, is malformed and worth 0.
        """
        entry = _entry_of(self, problem)
        return _graded(self, entry, _final_answer(response))


def _final_answer(response: Response) -> str | None:
    text = after_thinking(response.full_text)
    tagged = tagged_answer(text)
    boxed = boxed_answer(text if tagged is None else tagged)
    return tagged if boxed is None else boxed


def _graded(task: ReasoningGym, entry: Entry, answer: str | None) -> Score:
    if not answer:
        return _score(0.0, Verdict.NO_ANSWER)
    if len(answer) > MAX_ANSWER_CHARS:
        return _score(0.0, Verdict.TOO_LARGE)
    if not admits(task.dataset, answer, entry):
        return _score(0.0, Verdict.MALFORMED)
    try:
        # A copy, since some scorers write into the entry.
        value = float(_dataset(task).score_answer(answer, deepcopy(entry)))
    except Exception:  # noqa: BLE001  the boundary: a scorer that trips over a hostile text
        return _score(0.0, Verdict.MALFORMED)
    if not math.isfinite(value):
        return _score(0.0, Verdict.MALFORMED)
    return _score(value, Verdict.CORRECT if value == 1.0 else Verdict.WRONG)


def _score(value: float, verdict: Verdict) -> Score:
    accuracy = 1.0 if verdict is Verdict.CORRECT else 0.0
    return Score(
        value=value, verdict=verdict, parts={"accuracy": accuracy, "partial": value - accuracy}
    )


def _entry_of(task: ReasoningGym, problem: Problem) -> Entry:
    """The entry that a problem was made of; raises ValueError if it is another's."""
    number = problem.id.rpartition("/")[2]
    if number.isdecimal() and int(number) < task.size:
        entry = _entry(task, int(number))
        if entry["question"].strip() in problem.prompt:
            return entry
    raise ValueError(
        f"problem {problem.id} is not of this task: the same data set, seed, size and options "
        f"(now {task.dataset!r}, {task.seed}, {task.size}, {task.options!r}) are needed"
    )


@lru_cache(maxsize=MAX_KEPT)
def _entry(task: ReasoningGym, number: int) -> Entry:
    return _dataset(task)[number]


@lru_cache(maxsize=8)
def _all_problems(task: ReasoningGym) -> tuple[tuple[Split, Problem], ...]:
    found: dict[str, Problem] = {}
    bad: dict[str, str] = {}
    repeated = 0
    for number in range(task.size):
        entry = _entry(task, number)
        key = key_of(entry["question"])
        if key in found or key in bad:
            repeated += 1
            continue
        problem = Problem(
            id=f"{task.name}/{number}",
            prompt=f"{entry['question'].strip()}\n\n{task.instruction}".strip(),
            answer=_reference(task, entry),
            source=task.name,
        )
        complaint = _complaint(task, problem)
        if complaint:
            bad[key] = f"entry {number}: {complaint}"
        else:
            found[key] = problem
    _tell(task, list(bad.values()), len(found), repeated)
    return tuple((split_of(key), problem) for key, problem in found.items())


def _reference(task: ReasoningGym, entry: Entry) -> str:
    """A right answer, "" if the entry has none."""
    answer = entry["answer"]
    if answer is None:
        answer = entry["metadata"].get(REFERENCE_IN_METADATA.get(task.dataset))
    if answer is None:
        return ""
    return answer if isinstance(answer, str) else json.dumps(answer)


def _complaint(task: ReasoningGym, problem: Problem) -> str:
    """What is wrong with a reference, "" if nothing is."""
    if task.dataset in WITHOUT_REFERENCE:
        return ""
    if not problem.answer:
        return "no answer"
    score = task.score(problem, Response(text=f"<answer>{problem.answer}</answer>"))
    if score.verdict is Verdict.CORRECT:
        return ""
    return f"{problem.answer[:80]!r} is {score.verdict}, {score.value:g}"


def _tell(task: ReasoningGym, bad: list[str], num_good: int, repeated: int) -> None:
    """Refuse or name the entries with a bad reference, and count the questions drawn twice."""
    if bad:
        named = f"{'; '.join(bad[:NAMED])}{'; ...' if len(bad) > NAMED else ''}"
        count = f"{len(bad)} of {len(bad) + num_good} references do not score 1"
        if task.bad_answers == "refuse":
            raise ValueError(
                f"{task.dataset}: {count}: {named}. Leave them out with --task.bad-answers skip"
            )
        logger.warning("%s: left out, %s: %s", task.dataset, count, named)
    if repeated:
        logger.warning("%s: left out %d repeated questions", task.dataset, repeated)
    if task.dataset in WITHOUT_REFERENCE:
        logger.warning("%s: its entries have no reference, so none was checked", task.dataset)


@lru_cache(maxsize=8)
def _dataset(task: ReasoningGym) -> Any:
    """The package's data set; raises ValueError for a user's mistake."""
    known = _known()
    if task.dataset not in known:
        near = get_close_matches(task.dataset, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        names = ", ".join(sorted(set(known) - set(REFUSED)))
        raise ValueError(f"reasoning-gym has no {task.dataset!r}{hint} It has {names}")
    make, settings = known[task.dataset]
    names = [field.name for field in fields(settings) if field.name not in OWN_OPTIONS]
    options = json_object(task.options, "options")
    for option in options:
        if option not in names:
            near = get_close_matches(option, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
            raise ValueError(f"{task.dataset} has no option {option!r}; {hint}")
    try:
        return make(settings(seed=task.seed, size=task.size, **options))
    except Exception as error:
        raise ValueError(
            f"{task.dataset} does not take options {task.options!r} "
            f"({type(error).__name__}: {error})"
        ) from error


def _known() -> dict[str, Any]:
    """The data sets of the package by name, each with its class and that of its settings."""
    try:
        from reasoning_gym.factory import DATASETS  # a second: only where it is needed
    except ImportError as error:
        raise ValueError(f"reasoning-gym cannot be imported ({error}): {INSTALL}") from error
    version = metadata.version("reasoning-gym")
    if version != VERSION:
        raise ValueError(
            f"reasoning-gym is {version}, and only the scorers of {VERSION} were read: {INSTALL}"
        )
    return DATASETS
