r"""Where a response states its final answer, and whether it states more than one.

The rules, in order; the first that finds something decides:

1. the last closed `<answer>...</answer>`; a box or phrase inside it is unwrapped,
2. the last balanced `\boxed{...}`,
3. the rest of the line after the last `####`,
4. the last phrase: "the answer is ...", "Final answer: ...", to the end of its sentence,
5. leniently, `lenient_answer`: all of a short text, the last formula, or the last number.

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

from rewards.numeric import DECIMAL, EXPONENT, MAX_LENGTH

MAX_ALTERNATIVES = 16
"""Answers side by side that are returned; the last ones."""

MAX_WHOLE = 200
"""Characters of a response that may be an answer as a whole."""

_BRACE = re.compile(r"[{}](?!\\)")  # read from right to left: an escaped brace is no brace
_BOXED = r"\boxed"
_NUMBER = rf"(?:(?<![\w)])[-+\u2212])?[$\u20ac\u00a3]?{DECIMAL}(?:{EXPONENT})?(?:/{DECIMAL})?"
_LAST_NUMBER = re.compile(_NUMBER)
_PHRASE = re.compile(
    r"\b(?:answers?|choice|option|solutions?)\b(?:\s+(?:to|for|of|in)\b[^.:\n]{0,80}?)?\s*\**\s*"
    r"(?:\bis\b|\bare\b|\bwas\b|\bshould be\b|\bmust be\b|\bwould be\b|\bequals\b|[:=])\**\s*:?",
    re.IGNORECASE,
)
_LATER = re.compile(
    r"\b(?:it|this|that|result|value|answers?)\**\s*(?:\bis\b|\bshould (?:have been|be)\b|"
    r"\bmust be\b|\bequals\b|'s\b|[:=])\**\s*:?|=",
    re.IGNORECASE,
)
_CORRECTION = re.compile(
    r"\b(?:wait|actually|correction|mistaken?|mistakes|sorry|oops|hmm|wrong|incorrect|instead|"
    r"recheck\w*|rechecking|reconsider\w*|recalculat\w*|corrected|revised|error)\b",
    re.IGNORECASE,
)
_ALTERNATIVE = re.compile(
    r"[\s$.,;:()\\\]]{0,12}(?:or|alternatively|possibly|maybe|perhaps|otherwise|"
    r"(?:but |though )?(?:it|this|the answer) (?:could|might|may)(?: also)? be)\b",
    re.IGNORECASE,
)
_JOINER = re.compile(
    r"(?:[\s$.,;:/|&()\\*\[\]-]|\b(?:or|and|either|alternatively|possibly|maybe|perhaps|it|the|"
    r"answer|could|might|may|also|be|is|option|candidate|possibility|another|else|even|"
    r"quad|qquad|text|otherwise|final|boxed)\b|\b[A-Za-z]\s*=|[{}]|[0-9]+[.):])*",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$|\*)|\n")
_REASON = re.compile(
    r",?\s+(?:because|since|which|where|when|as (?:we|required|the)|by |so that|given|after)\b"
    r"|,\s+(?:so|and (?:we|this|that|it))\b|\s+\((?:since|because|as)\b",
    re.IGNORECASE,
)
_ADVERB = re.compile(
    r"(?:(?:that|therefore|thus|then|simply|just|exactly|indeed|clearly|probably|likely|either|"
    r"approximately|about|roughly|equal to|given by|now|still|obviously)\s+|[:*_>\s])+",
    re.IGNORECASE,
)
_MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_NEGATED = re.compile(r"(?:not\b|n't\b|unknown|unclear|the following|one of|in the form)", re.I)


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
        return _phrased(text)
    answers, rest = found
    corrected = _corrected(rest)
    if corrected is not None:
        return corrected
    return (*answers, *_alternatives(rest))


def lenient_answer(text: str) -> str | None:
    """The answer of a text that states none: all of a short line, the last formula or number."""
    lines = text.strip().splitlines()
    if not lines:
        return None
    if len(lines) == 1 and len(text) <= MAX_WHOLE and len(_WORDS.findall(text)) <= 2:
        return lines[0].strip()
    end = text[-4 * MAX_WHOLE :]
    formulas = list(_MATH.finditer(end))
    if formulas and not re.search(r"[0-9]", end[formulas[-1].end() :]):
        return next(group for group in formulas[-1].groups() if group)
    sentences = [s for s in _SENTENCE_END.split(lines[-1][-MAX_WHOLE:]) if s.strip()]
    found = _of_sentence(sentences[-1]) if sentences else None
    return last_number(text) if found is None else found


def _of_sentence(sentence: str) -> str | None:
    """What a last sentence ends in: all candidates of "3 or 5", else "= ...", "is ..."."""
    if re.search(r"[0-9].*\bor\b.*[0-9]", sentence):
        return " or ".join(_LAST_NUMBER.findall(sentence))
    for sign in ("=", " is "):
        value = sentence.rpartition(sign)[2]
        if sign in sentence and re.search(r"[0-9]", value) and len(_WORDS.findall(value)) <= 2:
            return value.strip()
    return last_number(sentence)


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


def last_number(text: str) -> str | None:
    """The last number in `text`, with its sign, fraction and exponent.

    Only the characters before the last digit are searched, enough of them that a number cut
    by the window is longer than `MAX_LENGTH` and so too large anyway.
    """
    end = max(text.rfind(digit) for digit in "0123456789") + 1
    window = text[max(0, end - 4 * MAX_LENGTH) : end]
    numbers = _LAST_NUMBER.findall(window)
    return numbers[-1] if numbers else None


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
    answers = inside[0] if inside else (_phrased(last) or (last,))
    before = before[: before.rfind("<answer>")]
    for _ in range(MAX_ALTERNATIVES):
        opened = before.rfind("<answer>")
        closed = before.find("</answer>", max(opened, 0))
        if opened < 0 or closed < 0 or not _joined(before[closed + len("</answer>") :]):
            break
        answers = (before[opened + len("<answer>") : closed].strip(), *answers)
        before = before[:opened]
    return answers, rest


def _joined(gap: str) -> bool:
    """True if nothing but joining words stands between two answers."""
    return len(gap) <= MAX_WHOLE and _JOINER.fullmatch(gap) is not None


def _phrased(text: str) -> tuple[str, ...] | None:
    """Rule 4: what follows the last phrase that names an answer, and its alternatives."""
    for match in reversed(list(_PHRASE.finditer(text[-MAX_LENGTH * 64 :]))):
        rest = match.string[match.end() :]
        answer, after = _segment(rest)
        if answer and not _NEGATED.match(answer):
            corrected = _corrected(after)
            return corrected or (answer, *_alternatives(after))
    return None


def _corrected(rest: str) -> tuple[str, ...] | None:
    """The answer after the last word of correction in what follows a stated answer."""
    words = list(_CORRECTION.finditer(rest[-4 * MAX_WHOLE :]))
    if not words:
        return None
    later = words[0].string[words[0].end() :]
    for match in reversed(list(_LATER.finditer(later))):
        answer, after = _segment(later[match.end() :])
        if re.search(r"[0-9\\]", answer) or len(answer) == 1:
            return (answer, *_alternatives(after))
    return None


def _alternatives(rest: str) -> tuple[str, ...]:
    """What is offered right after an answer: "or maybe 7"."""
    match = _ALTERNATIVE.match(rest)
    if match is None:
        return ()
    segment = _segment(rest[match.end() :])[0]
    if not re.search(r"[0-9\\$]", segment):
        return ()
    number = last_number(segment)
    formulas = _MATH.findall(segment)
    return ("".join(formulas[-1]) if formulas else number or segment,)


def _segment(rest: str) -> tuple[str, str]:
    """(answer, what follows) of the text after a phrase, to the end of its sentence."""
    rest = rest[: 4 * MAX_WHOLE].lstrip(" \t\r\n:*")
    rest = rest[3:] if rest.startswith(("\\[\n", "$$\n")) else rest
    end = _SENTENCE_END.search(rest)
    answer = rest[: end.start()] if end else rest
    after = rest[end.end() :] if end else ""
    answer = _REASON.split(answer, maxsplit=1)[0]
    adverb = _ADVERB.match(answer)
    answer = answer[adverb.end() :] if adverb else answer
    formulas = list(_MATH.finditer(answer))
    if len(formulas) == 1 and len(answer.replace(formulas[0][0], "").split()) > 6:
        answer = formulas[0][0]
    return answer.strip(" *_"), after
