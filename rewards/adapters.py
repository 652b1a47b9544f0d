"""Anyone's function as a reward: its form is read from the names of its parameters.

Leaves out where it runs (rewards/pool.py) and what it costs when it fails.
"""

import asyncio
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from importlib import import_module
from numbers import Real
from typing import Any

from rewards.problem import Problem, Response, Score, Verdict

FORMS = (
    "a reward is a function (problem, response) or (problem, text), both giving a number or a "
    "Score, (problem, responses) or (problems, responses), both giving a list of them, or TRL's "
    "(prompts, completions, **columns); any of them may be async, or an object that is called"
)
REFERENCE_COLUMNS = ("answer", "solution", "ground_truth", "target", "reference")
"""Columns of a TRL reward that are given the problem's answer."""

COLUMNS = (*REFERENCE_COLUMNS, "id", "source")
"""Every column that a TRL reward can ask for."""


class Form(StrEnum):
    """How a reward is called, by its parameters."""

    RESPONSE = "problem, response"
    TEXT = "problem, text"
    GROUP = "problem, responses"
    BATCH = "problems, responses"
    TRL = "prompts, completions"


@dataclass(frozen=True, kw_only=True)
class AdaptedReward:
    """A reward of any form, called one way.

    Example: `adapted(brevity).score(problem, [first, second])` is two Scores. For the forms that
    take one response it calls `brevity` twice, for the others once with both.

    Attributes:
        reward: What was given.
        form: How it is called.
        columns: Of a TRL reward: what it is handed beside the completions.
    """

    reward: Callable[..., Any]
    form: Form
    columns: tuple[str, ...] = ()

    @property
    def takes_group(self) -> bool:
        """True if the responses to a problem are scored together."""
        return self.form not in (Form.RESPONSE, Form.TEXT)

    def score(self, problem: Problem, responses: Sequence[Response]) -> list[Score]:
        """One Score a response.

        Raises whatever the reward raises, and TypeError or ValueError if it gives back
        something else than a finite number or a Score for each response.
        """
        if not self.takes_group:
            calls = awaited([self._call_one(problem, response) for response in responses])
            return [as_score(value) for value in calls]
        values = self._call_group(problem, list(responses))
        if isinstance(values, str | bytes | dict) or not hasattr(values, "__len__"):
            raise TypeError(
                f"the reward gave {type(values).__name__}; a list of {len(responses)} numbers or "
                "Scores is expected, one a response"
            )
        if len(values) != len(responses):
            raise ValueError(
                f"the reward gave {len(values)} values for {len(responses)} responses; one for "
                "each is expected, in the same order"
            )
        return [as_score(value) for value in values]

    def _call_one(self, problem: Problem, response: Response) -> Any:
        given = response if self.form is Form.RESPONSE else response.full_text
        return self.reward(problem, given)

    def _call_group(self, problem: Problem, responses: list[Response]) -> Any:
        if self.form is Form.GROUP:
            return awaited(self.reward(problem, responses))
        if self.form is Form.BATCH:
            return awaited(self.reward([problem] * len(responses), responses))
        try:
            given = trl_arguments(problem, responses, self.columns)
            return awaited(self.reward(**given))
        except (TypeError, AttributeError, KeyError):
            if not isinstance(problem.prompt, str):
                raise
            asked = replace(problem, prompt=({"role": "user", "content": problem.prompt},))
            try:
                return awaited(self.reward(**trl_arguments(asked, responses, self.columns)))
            except Exception:  # noqa: BLE001  of the two failures the first one tells more
                pass
            raise


def adapted(reward: Callable[..., Any]) -> AdaptedReward:
    """`reward` with its form, told by the names of its parameters (a leading _ is ignored).

    A class is called once without arguments, and the object is the reward.

    Raises:
        ValueError: It is no function of a known form; the message names the forms.
    """
    if isinstance(reward, AdaptedReward):
        return reward
    name = getattr(reward, "__qualname__", type(reward).__name__)
    if inspect.isclass(reward):
        try:
            reward = reward()
        except TypeError as error:
            raise ValueError(f"the class {name} needs arguments ({error}); {FORMS}") from error
    try:
        parameters = list(inspect.signature(reward).parameters.values())
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be called as a reward; {FORMS}") from error
    names = [p.name.lstrip("_") for p in parameters]
    if "completions" in names:
        return AdaptedReward(reward=reward, form=Form.TRL, columns=_columns(name, parameters))
    needed = [
        p.name.lstrip("_")
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    positional = [p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters[:2]]
    for form in (Form.RESPONSE, Form.TEXT, Form.GROUP, Form.BATCH):
        if names[:2] == form.split(", ") and len(needed) <= 2 and all(positional):
            return AdaptedReward(reward=reward, form=form)
    raise ValueError(f"the reward {name} takes ({', '.join(names)}); {FORMS}")


def load_reward(spec: str) -> Callable[..., Any]:
    """The function that `package.module:function` names; the current folder is searched too.

    Raises:
        ValueError: The module or the name is not there, or the module fails when it is imported.
    """
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        raise ValueError(f"the reward {spec!r} is not of the form package.module:function")
    try:
        module = import_module(module_name)
    except Exception as error:
        raise ValueError(
            f"the reward {spec!r}: {module_name} cannot be imported "
            f"({type(error).__name__}: {error}); is it in this folder or installed?"
        ) from error
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            public = [n for n, value in vars(module).items() if callable(value) and n[0] != "_"]
            raise ValueError(
                f"the reward {spec!r}: {module_name} has no {name!r}; it has {', '.join(public)}"
            )
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"the reward {spec!r} is {found!r:.80}, no function; {FORMS}")
    return found


def as_score(value: Any) -> Score:
    """A reward's own value as a Score; a plain number is correct from 1 up, and wrong below.

    Raises:
        TypeError: It is neither a number nor a Score.
        ValueError: It is not finite.
    """
    number = value.value if isinstance(value, Score) else value
    if not isinstance(number, Real):
        raise TypeError(
            f"the reward gave {type(number).__name__} {number!r:.80}; a number or a Score is expected"
        )
    if not math.isfinite(number):
        raise ValueError(f"the reward gave {number}; a finite number is expected")
    if isinstance(value, Score):
        for name, part in value.parts.items():
            if not (isinstance(part, Real) and math.isfinite(part)):
                raise ValueError(f"the part {name!r} of the score is {part!r:.80}; give a number")
        return value
    verdict = Verdict.CORRECT if number >= 1 else Verdict.WRONG
    return Score(value=float(number), verdict=verdict)


def trl_arguments(
    problem: Problem, responses: Sequence[Response], columns: Sequence[str]
) -> dict[str, Any]:
    """What TRL would hand to a reward: lists of one entry a completion.

    Texts for a prompt that is a text, messages for a conversation, as TRL does; a reward that
    fails on texts is given messages instead. A completion holds what the template wrote of the
    answer too.
    """
    count = len(responses)
    plain = isinstance(problem.prompt, str)
    texts = [response.full_text for response in responses]
    given: dict[str, Any] = {
        "prompts": [problem.prompt if plain else list(problem.prompt)] * count,
        "completions": texts
        if plain
        else [[{"role": "assistant", "content": text}] for text in texts],
        "id": [problem.id] * count,
        "source": [problem.source] * count,
    }
    given |= {column: [problem.answer] * count for column in REFERENCE_COLUMNS}
    return {name: given[name] for name in columns}


def awaited(value: Any) -> Any:
    """A value, or a list of them, awaited together where it can be; not from a coroutine."""
    values = value if isinstance(value, list) else [value]
    if any(inspect.isawaitable(item) for item in values):
        values = _runner().run(_gathered(values))
        return values if isinstance(value, list) else values[0]
    return value


def _columns(name: str, parameters: Sequence[inspect.Parameter]) -> tuple[str, ...]:
    """What a TRL reward is handed: all there is if it takes **columns."""
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        known = ("prompts", "completions", *COLUMNS)
    else:
        known = tuple(p.name for p in parameters if p.name in ("prompts", "completions", *COLUMNS))
    absent = [
        p.name
        for p in parameters
        if p.default is p.empty
        and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and p.name not in known
    ]
    if absent:
        raise ValueError(
            f"the reward {name} asks for {', '.join(absent)}; the columns of a problem are "
            f"{', '.join(COLUMNS)}"
        )
    return known


async def _gathered(values: Sequence[Any]) -> list[Any]:
    async def one(value: Any) -> Any:
        return await value if inspect.isawaitable(value) else value

    return list(await asyncio.gather(*[one(value) for value in values]))


@lru_cache(maxsize=1)
def _runner() -> asyncio.Runner:
    """The process's one event loop, so that a reward's connections outlive a call."""
    return asyncio.Runner()
