"""Single-turn environments of the verifiers package: their rows, scored by their rubrics.

An environment is a package with a function `load_environment`, of whoever wrote it: it is code
that you trust, and it runs here and in the scoring processes. Leaves out environments with
several turns, with tools or with a judge, which are refused by name.
"""

import contextlib
import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from rewards.adapters import awaited
from rewards.problem import Problem, Response, Score, Verdict
from rollouts.sampler import Split
from rollouts.tasks.dataset import assigned, hashed, key_of
from rollouts.tasks.rows import Row, json_object
from rollouts.tasks.verifiers_environment import loaded

logger = logging.getLogger(__name__)

NAMED = 3
"""So many of the rows with a bad answer are named."""
FORMS = (
    "{}",
    "<answer>{}</answer>",
    "\\boxed{{{}}}",
    "<think>\n\n</think>\n<answer>\n{}\n</answer>",
    "<think>\n\n</think>\n\\boxed{{{}}}",
    "<answer>\\boxed{{{}}}</answer>",
)
"""Ways to state a reference, of which a rubric should take one."""


@dataclass(frozen=True, kw_only=True)
class Verifiers:
    """The rows of an environment; its evaluation rows, if it has any, are the test split.

    Example: `Verifiers(environment="gsm8k", arguments='{"num_train_examples": 500}')`. A
    problem's `answer` is JSON of what the rubric reads: `{"answer": "72", "info": {}, ...}`.
    """

    environment: str
    """Its name, as in `verifiers.load_environment`; its package must be installed."""
    arguments: str = ""
    """Arguments of its `load_environment`, as a JSON object."""
    correct_at: float = 1.0
    """The weighted sum of the rubric from which on a response counts as correct."""
    bad_answers: Literal["refuse", "skip", "keep"] = "refuse"
    """Rows whose answer is missing or is not correct in any common form: refuse the environment
    naming them, leave them out aloud, or keep them unchecked (rubrics without a reference)."""
    name: str = ""
    """First part of ids and the source; empty takes the environment's name."""

    def __post_init__(self) -> None:
        """Name the task; refuse what needs no package to be seen wrong."""
        if not self.name:
            object.__setattr__(self, "name", self.environment.rpartition("/")[2])
        if not self.name or "/" in self.name:
            raise ValueError(f"the name of the task is {self.name!r}; give one without a slash")
        if not math.isfinite(self.correct_at):
            raise ValueError(f"correct_at is {self.correct_at}; give a finite number")
        json_object(self.arguments, "arguments")

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split in the order of the rows.

        Raises:
            ValueError: The environment is not there, cannot be trained on, or has bad answers.
        """
        return [problem for home, problem in _all_problems(self) if home == split]

    def score(self, problem: Problem, response: Response) -> Score:
        """The rubric's weighted sum, with the value of each of its functions as a part.

        A function that raises counts 0 in the sum, as the package has it; the verdict is then
        malformed. Raises what the rubric itself raises.
        """
        environment = _environment(self)
        with _failures() as failed:
            state = awaited(_scored(environment, problem, response))
        value = float(state["reward"])
        parts = {name: float(part) for name, part in state["metrics"].items()}
        if not all(map(math.isfinite, (value, *parts.values()))):
            return Score(value=0.0, verdict=Verdict.MALFORMED)
        if failed:
            _log_once(f"{self.environment}: a reward function failed and counts 0: {failed[0]}")
            return Score(value=value, verdict=Verdict.MALFORMED, parts=parts)
        verdict = Verdict.CORRECT if value >= self.correct_at else Verdict.WRONG
        return Score(value=value, verdict=verdict, parts=parts)


async def _scored(environment: Any, problem: Problem, response: Response) -> Any:
    """The package's state after one turn and its scoring."""
    plain = isinstance(problem.prompt, str)
    text = response.full_text
    prompt: Any = problem.prompt if plain else [dict(turn) for turn in problem.prompt]
    completion: Any = text if plain else [{"role": "assistant", "content": text}]
    row = {"prompt": prompt, **json.loads(problem.answer)}
    state = await environment.init_state(row, client=None, model="")
    state = await environment.setup_state(state)
    state["completion"] = completion
    state["is_completed"] = True
    state["is_truncated"] = response.finish == "length"
    state["trajectory"] = [
        {
            "prompt": prompt,
            "completion": completion,
            "response": None,
            "tokens": None,
            "reward": None,
            "advantage": None,
            "is_truncated": state["is_truncated"],
            "trajectory_id": state["trajectory_id"],
            "extras": {},
        }
    ]
    await environment.rubric.score_rollout(state)
    return state


@lru_cache(maxsize=8)
def _all_problems(task: Verifiers) -> tuple[tuple[Split, Problem], ...]:
    environment = _environment(task)
    bad: list[str] = []

    def problem_of(row: Row, place: str) -> tuple[str, Problem] | None:
        prompt = _prompt(row, place)
        key = key_of(prompt)
        kept = {name: row[name] for name in ("answer", "info", "task", "example_id") if name in row}
        try:
            answer = json.dumps(kept)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{place}: what its rubric reads is no JSON ({error})") from error
        problem = Problem(
            id=f"{task.name}/{hashed(key)}", prompt=prompt, answer=answer, source=task.name
        )
        complaint = "" if task.bad_answers == "keep" else _complaint(task, problem, row)
        if complaint:
            bad.append(f"{place}: {complaint}")
            return None
        return key, problem

    train, test = environment.build_dataset(), environment.build_eval_dataset()
    rows = (
        (is_test, f"{task.environment} {split}, row {number}", row)
        for is_test, split, rows in ((True, "eval", test), (False, "train", train))
        for number, row in enumerate(rows or (), start=1)
    )
    problems = assigned(rows, problem_of, own_test=test is not None, label=task.environment)
    _tell(task, bad, len(problems))
    return tuple(problems)


def _prompt(row: Row, place: str) -> Any:
    """The prompt, a text or messages; raises ValueError for anything but text, and for tools."""
    prompt, info = row.get("prompt"), row.get("info")
    info = json.loads(info) if isinstance(info, str) and info else info
    if isinstance(info, dict) and info.get("oai_tools"):
        raise ValueError(f"{place}: it brings tools, and this version trains single turns only")
    if isinstance(prompt, list) and prompt:
        turns = tuple({key: turn.get(key) for key in ("role", "content")} for turn in prompt)
        if all(isinstance(text, str) for turn in turns for text in turn.values()):
            return turns
    if isinstance(prompt, str) and prompt:
        return prompt
    raise ValueError(f"{place}: the prompt is {str(prompt)[:80]}; a text or messages are needed")


def _complaint(task: Verifiers, problem: Problem, row: Row) -> str:
    """What is wrong with a row's answer, "" if the rubric takes it in one of `FORMS`."""
    answer = row.get("answer")
    if answer is None or answer == "":
        return "no answer"
    best = -math.inf
    for form in FORMS:
        try:
            score = task.score(problem, Response(text=form.format(answer)))
        except Exception as error:
            raise ValueError(
                f"the rubric of {task.environment} fails ({type(error).__name__}: {error})"
            ) from error
        if score.verdict is Verdict.CORRECT:
            return ""
        best = max(best, score.value)
    return f"{str(answer)[:80]!r} scores {best:g}"


def _tell(task: Verifiers, bad: list[str], num_good: int) -> None:
    if not bad:
        return
    named = f"{'; '.join(bad[:NAMED])}{'; ...' if len(bad) > NAMED else ''}"
    count = f"{len(bad)} of {len(bad) + num_good} answers do not score {task.correct_at:g}"
    if task.bad_answers == "refuse":
        raise ValueError(
            f"{task.environment}: {count}: {named}. Leave them out with --task.bad-answers skip; "
            "lower --task.correct-at if the weights come to less; or keep them unchecked with keep, "
            "if the rubric wants another form"
        )
    logger.warning("%s: left out, %s: %s", task.environment, count, named)


@lru_cache(maxsize=8)
def _environment(task: Verifiers) -> Any:
    return loaded(task.environment, json_object(task.arguments, "arguments"))


@contextlib.contextmanager
def _failures() -> Iterator[list[str]]:
    """What the package logs, and hides, when a reward function raises."""
    found: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: found.append(record.getMessage())
    rubrics = logging.getLogger("verifiers.rubrics")
    propagated, rubrics.propagate = rubrics.propagate, False
    rubrics.addHandler(handler)
    try:
        yield found
    finally:
        rubrics.removeHandler(handler)
        rubrics.propagate = propagated


@lru_cache(maxsize=1024)  # bounded: a message can hold model text
def _log_once(message: str) -> None:
    logger.warning("%s", ascii(message)[1:-1])
