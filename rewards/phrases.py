"""Answers that sentences give: "the answer is 5", "wait, it is 6", "5, or maybe 7", "= 8."

The rules that call these, and their order, are in rewards/answers.py. All of it is linear in
the length of the text, or looks at its end only.
"""

import re

from rewards.numeric import DECIMAL, EXPONENT, MAX_LENGTH

MAX_WHOLE = 200
"""Characters of a response that may be an answer as a whole."""
MAX_DISTANCE = 120
"""Characters between a word of correction and the "it is ..." that it announces."""

_NUMBER = rf"(?:(?<![\w)])[-+\u2212])?[$\u20ac\u00a3]?{DECIMAL}(?:{EXPONENT})?(?:/{DECIMAL})?"
_LAST_NUMBER = re.compile(_NUMBER)
_PHRASE = re.compile(
    r"\b(?:answers?|choice|option|solutions?)\b(?:\s+(?:to|for|of|in)\b[^.:\n]{0,80}?)?\s*\**\s*"
    r"(?:\bis\b|\bare\b|\bwas\b|\bshould be\b|\bmust be\b|\bwould be\b|\bequals\b|"
    r"\b(?:could|might|may|can)(?: also)? be\b|[:=])\**\s*:?",
    re.IGNORECASE,
)
_LATER = re.compile(
    r"\b(?:it|this|that|result|value|answers?)\**\s*(?:\bis\b|\bshould (?:have been|be)\b|"
    r"\bmust be\b|\bequals\b|'s\b|[:=])\**\s*:?|=",
    re.IGNORECASE,
)
CORRECTION = re.compile(
    r"\b(?:wait|actually|correction|mistaken?|mistakes|sorry|oops|hmm|wrong|incorrect|instead|"
    r"recheck\w*|rechecking|reconsider\w*|recalculat\w*|corrected|revised|error)\b",
    re.IGNORECASE,
)
_RETRACTION = re.compile(r"\b(?:wait|sorry|oops|hmm|correction|mistaken?)\b", re.IGNORECASE)
_ALTERNATIVE = re.compile(
    r"[\s$.,;:()\\\]]{0,12}(?:or|alternatively|possibly|maybe|perhaps|otherwise|"
    r"(?:but |though )?(?:it|this|the answer) (?:could|might|may)(?: also)? be)\b",
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
    r"approximately|about|roughly|any of|one of|equal to|given by|now|still|obviously)\s+|[:*_>\s])+",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"(?:the|my|our|this|there|it)\b[^=$\\]*?\b(?:is|are|equals)\s+(\S.*)", re.I | re.DOTALL
)
_CHOICE = re.compile(
    r"\(([A-P])\)|\b(?:option|choice|choose|select|pick)\W{0,4}([A-P])\b|^\W{0,4}([A-P])\W{0,4}$"
)
_MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{?([^\s{}$\\]+)")  # \boxed 9, \fbox{9}
_SO = re.compile(r"\s*(?:so|thus|hence|therefore|then)\b,?", re.IGNORECASE)
_NEGATED = re.compile(r"(?:not\b|n't\b|unknown|unclear|the following|one of|in the form)", re.I)


def phrased_answers(text: str) -> tuple[str, ...] | None:
    """Rule 4: what follows the last phrase that names an answer, and its alternatives."""
    for match in reversed(list(_PHRASE.finditer(text[-MAX_LENGTH * 64 :]))):
        rest = match.string[match.end() :]
        answer, after = _segment(rest)
        if answer and not _NEGATED.match(answer):
            corrected = corrected_answers(after)
            return corrected or (answer, *alternatives(after))
    return None


def corrected_answers(rest: str) -> tuple[str, ...] | None:
    """The answer after a word of correction in what follows a stated answer.

    "The answer is ..." may come any time after it, "it is ..." or "= ..." soon after it.
    """
    rest = rest[-4 * MAX_WHOLE :]
    first = CORRECTION.search(rest)
    if first is None:
        return None
    for match in reversed(list(_LATER.finditer(rest, first.end()))):
        before = rest[max(0, match.start() - MAX_DISTANCE) : match.start()]
        near = (_RETRACTION if match[0] == "=" else CORRECTION).search(before)
        answer, after = _segment(rest[match.end() :])
        is_short = len(_WORDS.findall(answer)) <= 3
        if (
            (near or "answer" in match[0].lower())
            and is_short
            and re.search(r"[0-9\\]|^\W*\w\W*$", answer)
        ):
            return (answer, *alternatives(after))
    return None


def alternatives(rest: str) -> tuple[str, ...]:
    """What is offered right after an answer: "or maybe 7"."""
    match = _ALTERNATIVE.match(rest)
    if match is None:
        return ()
    sentence = _SENTENCE_END.split(rest[match.end() :][:MAX_WHOLE], maxsplit=1)[0]
    segment = _segment(rest[match.end() :])[0]
    if not re.search(r"[0-9\\$]", segment) or len(_WORDS.findall(sentence)) > 6:
        return ()  # "alternatively, we could solve the equation ..." offers no answer
    number = last_number(segment)
    formulas = _MATH.findall(segment)
    return ("".join(formulas[-1]) if formulas else number or segment,)


def lenient_answer(text: str) -> str | None:
    """The answer of a text that states none: all of a short line, the last formula or number."""
    lines = text.strip().splitlines()
    if not lines:
        return None
    if len(lines) == 1 and len(text) <= MAX_WHOLE and len(_WORDS.findall(text)) <= 2:
        return _SO.sub("", lines[0]).strip()
    end = text[-4 * MAX_WHOLE :]
    bare = _BARE_BOX.findall(end)
    if bare:
        return bare[-1]
    formulas = list(_MATH.finditer(end))
    if formulas and not re.search(r"[0-9]", end[formulas[-1].end() :]):
        return next(group for group in formulas[-1].groups() if group)
    sentences = [s for s in _SENTENCE_END.split(lines[-1][-MAX_WHOLE:]) if s.strip()]
    found = _of_sentence(sentences[-1]) if sentences else None
    return last_number(text) if found is None else found


def choice_answer(text: str) -> str | None:
    """The letters of options that the last line with one names: "B", "A or C"."""
    for line in reversed(text[-4 * MAX_WHOLE :].splitlines()):
        letters = {next(filter(None, groups)) for groups in _CHOICE.findall(line)}
        if letters:
            return " or ".join(sorted(letters))
    return None


def last_number(text: str) -> str | None:
    """The last number in `text`, with its sign, fraction and exponent.

    Only the characters before the last digit are searched, enough of them that a number cut
    by the window is longer than `MAX_LENGTH` and so too large anyway.
    """
    end = max(text.rfind(digit) for digit in "0123456789") + 1
    window = text[max(0, end - 4 * MAX_LENGTH) : end]
    numbers = _LAST_NUMBER.findall(window)
    return numbers[-1] if numbers else None


def _of_sentence(sentence: str) -> str | None:
    """What a last sentence ends in: all candidates of "3 or 5", else "= ...", "is ..."."""
    if re.search(r"[0-9].*\bor\b.*[0-9]", sentence):
        return " or ".join(_LAST_NUMBER.findall(sentence))
    for sign in ("=", " is "):
        value = sentence.rpartition(sign)[2]
        if sign in sentence and re.search(r"[0-9]", value) and len(_WORDS.findall(value)) <= 2:
            return value.strip()
    return last_number(sentence)


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
    named = _NAMED.fullmatch(answer)
    answer = named[1] if named else answer
    formulas = list(_MATH.finditer(answer))
    if len(formulas) == 1 and len(answer.replace(formulas[0][0], "").split()) > 6:
        answer = formulas[0][0]
    return answer.strip(" *_"), after
