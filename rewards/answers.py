r"""Where a response states its final answer, and whether it states more than one.

The rules, in order; the first that finds something decides:

1. the last closed `<answer>...</answer>`; a box or phrase inside it is unwrapped,
2. the last balanced `\boxed{...}`,
3. the rest of the line after the last `####`,
4. the last phrase: "the answer is ...", "Final answer: ...", to the end of its sentence,
5. leniently, rewards/maths/unstated.py: bold, all of a short text, the last formula, the last number.

An answer stated and empty is no answer; nothing stands in for it. Two things change the find:

- A self-correction is judged by its last answer. After a word such as "wait", "actually" or
  "mistake" that follows a stated answer, a later "it is ...", "the answer is ..." or "= ..."
  replaces it.
- Answers that stand side by side are alternatives, not a correction: "\boxed{3} or \boxed{5}",
  "\boxed{3}, \boxed{5}", "\boxed{3} (or maybe 5)". All are returned; who states several must
  be right with each of them, or with all of them as one list. A list inside one box is one
  answer here, which rewards/equivalence.py reads as a list.

Every function is linear in the length of the text, which is hostile. What an answer means is
not decided here.
"""

import itertools
import re

from rewards.maths.phrases import (
    CORRECTION,
    MAX_WHOLE,
    alternatives,
    corrected_answers,
    last_number,
    phrased_answers,
)
from rewards.maths.spelling import plain

MAX_ALTERNATIVES = 16
"""Answers side by side that are returned; the last ones."""


MAX_OFFER = 80
"""Characters between two answers that "or", "if" and the like make alternatives."""

_BRACE = re.compile(r"[{}](?!\\)")  # read from right to left: an escaped brace is no brace
_BOXED = r"\boxed"
_JOINER = re.compile(
    r"(?:[\s$.,;:/|&()\\*\[\]-]|\b(?:or|and|either|alternatively|possibly|maybe|perhaps|it|the|"
    r"answer|could|might|may|also|be|is|option|candidate|possibility|another|else|even|"
    r"quad|qquad|text|otherwise|final|boxed)\b|\b[A-Za-z](?:\(\w{1,6}\)|_\w)?\s*=|[{}]|[0-9]+[.):])*",
    re.IGNORECASE,
)
_OFFERED = re.compile(
    r"\b(?:if|or|when|case|otherwise|alternatively|options?|possib\w*|maybe|perhaps|another|either)\b",
    re.IGNORECASE,
)
_CONCLUDED = re.compile(
    r"\b(?:so|thus|therefore|hence|then|finally|final|now|next|total|step)\b", re.IGNORECASE
)


def final_answer(text: str) -> str | None:
    r"""The final answer of `text`, or None; of several side by side the last.

    Without a statement it is the last number anywhere, as GSM8K's graders take it.
    """
    stated = stated_answers(text)
    if stated is None:
        return last_number(text)
    return stated[-1] or None


def stated_answer(text: str) -> str | None:
    r"""The answer by tag, box or hashes alone (rules 1 to 3); "" if it is stated and empty."""
    tagged = tagged_answer(text)
    if tagged is not None:
        boxed = boxed_answer(tagged)
        return tagged if boxed is None else boxed
    boxed = boxed_answer(text)
    return hashed_answer(text) if boxed is None else boxed


def stated_answers(text: str) -> tuple[str, ...] | None:
    r"""The answers that rules 1 to 4 find, corrected, with alternatives; None if none is stated.

    Examples: "\boxed{3} or \boxed{5}" gives ("3", "5"), "\boxed{3}. Wait, it is 5." ("5",),
    "<answer></answer>" ("",).
    """
    found = _marked(text)
    if found is None:
        return phrased_answers(text)
    answers, rest = found
    answers = tuple(part for answer in answers for part in _unwrapped(answer))
    corrected = corrected_answers(rest)
    if corrected is not None:
        return corrected
    return (*answers, *alternatives(rest))


def after_thinking(text: str) -> str:
    """What follows the last `</think>`; all of `text` if there is none."""
    return text.rpartition("</think>")[2]


def tagged_answer(text: str) -> str | None:
    """The content of the last closed `<answer>` tag, stripped."""
    last_close = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(last_close, 0))
    if start < 0:
        return None
    end = text.index("</answer>", start)
    return text[start + len("<answer>") : end].strip()


def boxed_answer(text: str) -> str | None:
    r"""The content of the `\boxed{...}` that opens last among the balanced ones, stripped."""
    boxes = _boxes(text)
    return text[boxes[0][0] : boxes[0][1]].strip() if boxes else None


def hashed_answer(text: str) -> str | None:
    """The rest of the line after the last `####`, as GSM8K writes it; None if it is blank."""
    _, marker, rest = text.rpartition("####")
    return rest.partition("\n")[0].strip() or None if marker else None


def _boxes(text: str) -> list[tuple[int, int]]:
    r"""(start, end) of the contents of balanced boxes, the one that opens last first.

    One pass from the right: a closing brace is remembered, an opening one takes the nearest
    remembered. An unclosed box therefore costs nothing to skip.
    """
    if _BOXED not in text:
        return []
    closing: list[int] = []
    found: list[tuple[int, int]] = []
    for brace in _BRACE.finditer(text[::-1]):
        position = len(text) - 1 - brace.start()
        if brace.group() == "}":
            closing.append(position)
        elif closing:
            end = closing.pop()
            if text.endswith(_BOXED, 0, position):
                found.append((position + 1, end))
                if len(found) == MAX_ALTERNATIVES:
                    break
    return found


def _marked(text: str) -> tuple[tuple[str, ...], str] | None:
    """The answers by tag, box or hashes, and the text after them."""
    tagged = tagged_answer(text)
    if tagged is not None:
        return _tagged(text, tagged)
    boxes = _boxes(text)
    if boxes:
        answers = [text[boxes[0][0] : boxes[0][1]].strip()]
        for (later, _), (start, end) in itertools.pairwise(boxes):
            if end > later or not _joined(text[end + 1 : later - len(_BOXED) - 1]):
                break
            answers.insert(0, text[start:end].strip())
        return tuple(answers), text[boxes[0][1] + 1 :]
    hashed = hashed_answer(text)
    if hashed is None:
        return None
    return (hashed,), text.rpartition("####")[2].partition("\n")[2]


def _tagged(text: str, last: str) -> tuple[tuple[str, ...], str]:
    before, _, rest = text.rpartition("</answer>")
    inside = _marked(last) if last and "<answer>" not in last else None
    answers = inside[0] if inside else (last,)
    before = before[: before.rfind("<answer>")]
    for _ in range(MAX_ALTERNATIVES):
        opened = before.rfind("<answer>")
        closed = before.find("</answer>", max(opened, 0))
        if opened < 0 or closed < 0 or not _joined(before[closed + len("</answer>") :]):
            break
        answers = (before[opened + len("<answer>") : closed].strip(), *answers)
        before = before[:opened]
    return answers, rest


def _unwrapped(answer: str) -> tuple[str, ...]:
    """What a phrase inside a box or tag states: \\boxed{\\text{The answer is } 5}."""
    if len(answer) > 4 * MAX_WHOLE or "answer" not in answer.lower():
        return (answer,)
    return phrased_answers(plain(answer)) or (answer,)


def _joined(gap: str) -> bool:
    """True if joining words, or a condition, stand between two answers and no conclusion."""
    if len(gap) > MAX_WHOLE or CORRECTION.search(gap):
        return False
    offered = len(gap) <= MAX_OFFER and _OFFERED.search(gap) and not _CONCLUDED.search(gap)
    return bool(offered) or _JOINER.fullmatch(gap) is not None
