r"""Of what kind a disagreement between two graders is, where ours can say.

`accepted` is a response that they called right and we do not, `refused` one that we call right
and they did not. The kinds are of mathematics; of other rewards the verdict is the kind.
"""

from eval.text_faults import looks_cut
from rewards.answers import (
    after_thinking,
    boxed_answer,
    final_answer,
    hashed_answer,
    stated_answers,
    tagged_answer,
)
from rewards.numeric import parse_number, parse_quantity
from rewards.problem import Response, Verdict

MAX_TEXT = 20_000
"""Characters of a response that are looked at, the last ones."""
NEAR = 0.01
"""Two numbers that differ by so much of the larger, or less, are near each other."""

MEANINGS = {
    "several answers": "gives more than one final answer, and not all are right",
    "no answer": "states none",
    "cut off": "looks cut off before its end",
    "unreadable": "its answer cannot be read, or it broke the grader",
    "too large": "its answer is over a size cap",
    "out of time": "grading it ran out of time",
    "out of memory": "grading it ran out of memory",
    "unit": "the number of the reference, with a unit or percent sign that one of them lacks",
    "near": "a number within 1% of the reference, and another",
    "right value elsewhere": "holds the reference, but ends in another answer",
    "another value": "its answer is something else",
    "place: box": "the reference to the letter, in \\boxed{}: their extraction missed it",
    "place: tag": "the reference to the letter, in <answer> tags: their extraction missed it",
    "place: hashes": "the reference to the letter, after ####: their extraction missed it",
    "place: sentence": "the reference to the letter, in a sentence: their extraction missed it",
    "number form": "the number of the reference, written otherwise",
    "notation": "the same formula, set, text or choice, written otherwise",
    "correct": "our reward calls it right",
    "wrong": "our reward calls it wrong",
    "malformed": "it cannot be read or run",
    "no_answer": "states none",
    "too_large": "over a size cap",
    "timeout": "ran out of time",
    "memory": "ran out of memory",
}
"""What each kind means, for a person."""

_OF_VERDICT = {
    Verdict.MALFORMED: "unreadable",
    Verdict.TOO_LARGE: "too large",
    Verdict.TIMEOUT: "out of time",
    Verdict.MEMORY: "out of memory",
}


def accepted_kind(
    verdict: Verdict, reference: str, response: Response, *, is_truncated: bool | None
) -> str:
    """Why we do not call it right. `is_truncated` is None where only the text can tell."""
    cut = looks_cut(response.full_text) if is_truncated is None else is_truncated
    if verdict is Verdict.NO_ANSWER:
        return "cut off" if cut else "no answer"
    if verdict is not Verdict.WRONG:
        return _OF_VERDICT[verdict]
    text = _end(response)
    if len(stated_answers(text) or ()) > 1:
        return "several answers"
    answer = final_answer(text) or ""
    if _same_number(reference, answer):
        return "unit"
    if cut:
        return "cut off"
    if _near(reference, answer):
        return "near"
    bare = _bare(reference)
    return "right value elsewhere" if bare and bare in _bare(text) else "another value"


def refused_kind(reference: str, response: Response, *, is_truncated: bool | None) -> str:
    """What of its answer they may have missed."""
    if looks_cut(response.full_text) if is_truncated is None else is_truncated:
        return "cut off"
    text = _end(response)
    answer = final_answer(text) or ""
    if _bare(answer) == _bare(reference):
        return f"place: {_place(text)}"
    if _same_number(reference, answer):
        return "unit" if _marks(reference) != _marks(answer) else "number form"
    return "notation"


def _end(response: Response) -> str:
    return after_thinking(response.full_text)[-MAX_TEXT:]


def _bare(text: str) -> str:
    return "".join(text.split()).strip("$.")


def _place(text: str) -> str:
    if tagged_answer(text) is not None:
        return "tag"
    if boxed_answer(text) is not None:
        return "box"
    return "sentence" if hashed_answer(text) is None else "hashes"


def _same_number(reference: str, answer: str) -> bool:
    number = parse_number(reference)
    return number is not None and number == parse_number(answer)


def _marks(text: str) -> tuple[str, bool]:
    """The unit and the percent sign around a number."""
    quantity = parse_quantity(text)
    return ("", False) if quantity is None else (quantity.unit, quantity.is_percent)


def _near(reference: str, answer: str) -> bool:
    first, second = parse_number(reference), parse_number(answer)
    if first is None or second is None:
        return False
    return abs(first - second) <= NEAR * max(abs(first), abs(second))
