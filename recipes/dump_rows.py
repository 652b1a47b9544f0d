"""One row of a dump, whoever wrote it, as a sample; a row that cannot be one is left out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.judged import Sample
from eval.references import ANSWER_COLUMNS, reference_text
from rewards.problem import Messages, Response
from rollouts.tasks.rows import Row, field_of

LOGPROBS = (
    ("rollout_log_probs", "old_log_probs"),
    ("sampling_per_token_logps", "old_per_token_logps"),
    ("sampler_logprobs", "trainer_logprobs"),
)
"""Fields with the sampler's and the trainer's logprobs of the same tokens, lists of numbers."""


@dataclass(frozen=True, kw_only=True)
class Fields:
    """Which fields of a dump mean what; empty takes those that are known."""

    theirs: str = ""
    """Their grade: a number, right or wrong."""
    answer: str = ""
    """The reference answer."""
    logprobs: tuple[str, str] | None = None
    """The sampler's and the trainer's logprobs."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What is no sample: a row or file that cannot be read, or one that was read before.

    Example: `LeftOut(place="3.jsonl, line 8", reason="not valid JSON", is_fault=True)`.
    """

    place: str
    reason: str
    is_fault: bool = True


def sample_of(
    row: Row,
    path: Path,
    number: int,
    fields: Fields,
    texts: tuple[str, str],
    rewards: Sequence[str],
) -> Sample | LeftOut:
    """A row as a sample; `texts` are the fields of prompt and completion.

    A fault of the row leaves it out.
    """
    place = f"{path}, row {number}"
    try:
        prompt = _prompt(field_of(row, texts[0], place))
        sampler, trainer = _logprobs(row, fields.logprobs)
        answer = fields.answer or next((name for name in ANSWER_COLUMNS if name in row), "")
        return Sample(
            table=str(path),
            row=number,
            step=_step(row.get("step"), path),
            prompt=prompt,
            response=Response(
                text=_text(field_of(row, texts[1], place)),
                prefill=_prefill(prompt),
                num_tokens=len(sampler),
            ),
            grade=_grade(field_of(row, fields.theirs, place)) if fields.theirs else None,
            grade_field=fields.theirs,
            rewards={name: _grade(row.get(name)) for name in rewards},
            answer=reference_text(field_of(row, answer, place)) if answer else None,
            answer_field=answer,
            sampler_logprobs=sampler,
            trainer_logprobs=trainer,
        )
    except ValueError as error:
        return LeftOut(place=place, reason=str(error).removeprefix(f"{place}: "))


def _prompt(value: Any) -> str | Messages:
    if isinstance(value, str):
        return value
    return tuple(
        {"role": str(turn["role"]), "content": _content(turn.get("content"))}
        for turn in _turns(value)
    )


def _text(value: Any) -> str:
    """A completion: a text, or of messages the last one of the assistant."""
    if isinstance(value, str):
        return value
    said = [_content(t.get("content")) for t in _turns(value) if t["role"] == "assistant"]
    return said[-1] if said else ""


def _turns(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list) and all(isinstance(t, dict) and t.get("role") for t in value):
        return value
    raise ValueError(f"{value!r:.60} is neither a text nor a list of messages")


def _content(value: Any) -> str:
    """A message's content: a text, or the texts among its parts."""
    if isinstance(value, list):
        return "".join(str(p.get("text") or "") for p in value if isinstance(p, dict))
    return "" if value is None else str(value)


def _prefill(prompt: str | Messages) -> str:
    """What of the answer the prompt holds already."""
    if not isinstance(prompt, str):
        is_started = bool(prompt) and prompt[-1]["role"] == "assistant"
        return prompt[-1]["content"] if is_started else ""
    return "<think>\n" if prompt.rstrip().endswith("<think>") else ""


def _step(value: Any, path: Path) -> int:
    """Of the row, else the file's name where that is a number."""
    if value is None:
        return int(path.stem) if path.stem.isdecimal() else 0
    step = _number(value)
    if not step.is_integer():
        raise ValueError(f"the step is {value!r:.60}; a whole number is needed")
    return int(step)


def _grade(value: Any) -> float | None:
    """A number, or nothing: TRL writes NaN where a reward gave None, and verl numpy's as text."""
    if value is None:
        return None
    try:
        number = float(value == "True" if value in ("True", "False") else value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"the grade is {value!r:.60}; a number is needed") from error
    return number if math.isfinite(number) else None


def _logprobs(
    row: Row, named: tuple[str, str] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    pair = named or next((pair for pair in LOGPROBS if all(n in row for n in pair)), None)
    if pair is None:
        return (), ()
    first, second = (_numbers(row, name) for name in pair)
    if len(first) != len(second):
        raise ValueError(f"{pair[0]} has {len(first)} numbers and {pair[1]} {len(second)}")
    return first, second


def _numbers(row: Row, name: str) -> tuple[float, ...]:
    values = row.get(name)
    if not isinstance(values, list | None):
        raise ValueError(f"{name} is {values!r:.60}; a list of numbers is needed")
    return tuple(_number(value) for value in values or ())


def _number(value: Any) -> float:
    """NaN if it is none, or too large for one."""
    try:
        return float(value)
    except (ValueError, TypeError, OverflowError):
        return math.nan
