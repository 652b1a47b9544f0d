"""Requirements on a text that are checked by counting and comparing, without a language model.

    reward = requirements_reward    # Problem.answer is the JSON list of what a text must fulfil

Leaves out whatever needs a model of language, such as which language a text is in.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from rewards.problem import Problem, Response, Score, Verdict
from rewards.purity import pure
from rewards.tags import summary_of

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'\u201d\u2019)]*\s+|\n+")
_BULLET = re.compile(r"\s*[-*•]\s+\S")
_EDGE = " \t\r\n.,;:!?\"'\u201c\u201d\u2018\u2019*_()"
"""Ignored before a first and behind a last word."""


def words(text: str) -> list[str]:
    """The words of a text, in lower case: letters and digits, with hyphens and apostrophes inside."""
    return [word.casefold() for word in _WORD.findall(text)]


def num_sentences(text: str) -> int:
    """Parts that hold a word, up to a full stop, question or exclamation mark, or a line's end.

    Example: "It is 3.5 mm. Really?" has two.
    """
    return sum(bool(_WORD.search(part)) for part in _SENTENCE_END.split(text))


def _all_bullets(text: str, count: int) -> bool:
    lines = [line for line in text.splitlines() if line.strip()]
    return len(lines) == count and all(_BULLET.match(line) for line in lines)


def _begins(text: str, phrase: str) -> bool:
    wanted = words(phrase)
    return words(text)[: len(wanted)] == wanted


def _ends(text: str, phrase: str) -> bool:
    return text.rstrip(_EDGE).casefold().endswith(phrase.casefold())


CHECKS: dict[str, Callable[[str, Any], bool]] = {
    "includes": lambda text, word: word.casefold() in words(text),
    "different_words": lambda text, count: len(set(words(text))) >= count,
    "sentences": lambda text, count: num_sentences(text) == count,
    "bullets": _all_bullets,
    "at_most_words": lambda text, count: len(words(text)) <= count,
    "lower_case": lambda text, _: text == text.lower(),
    "upper_case": lambda text, _: text == text.upper(),
    "no_commas": lambda text, _: "," not in text,
    "begins": _begins,
    "ends": _ends,
}
"""By name: whether a text fulfils a requirement with this value. Words are compared without case."""


@pure(version="1", reads=("answer", "text", "prefill"))
def requirements_reward(problem: Problem, response: Response) -> Score:
    """1 if what the reader is told (`summary_of`) fulfils all requirements of `Problem.answer`.

    Part "requirements" is the share that it fulfils. Example: the answer '[["includes", "rain"],
    ["sentences", 2]]' and the response "Rain falls." give value 0, wrong, requirements 0.5.

    Raises:
        ValueError: The answer is no list of known requirements.
    """
    required = parse_requirements(problem.answer)
    told = summary_of(response.full_text)
    if not told:
        return Score(value=0.0, verdict=Verdict.NO_ANSWER, parts={"requirements": 0.0})
    held = [CHECKS[name](told, value) for name, value in required]
    return Score(
        value=float(all(held)),
        verdict=Verdict.CORRECT if all(held) else Verdict.WRONG,
        parts={"requirements": sum(held) / len(held)},
    )


def parse_requirements(answer: str) -> list[tuple[str, Any]]:
    """Names and values from JSON; raises ValueError where there are none or one is unknown."""
    rows = json.loads(answer)
    if not rows or not all(isinstance(row, list) and len(row) == 2 for row in rows):
        raise ValueError(f"{answer[:80]!r} is no list of [name, value] pairs")
    for name, _ in rows:
        if name not in CHECKS:
            raise ValueError(f"unknown requirement {name!r}; known are {', '.join(CHECKS)}")
    return [(name, value) for name, value in rows]
