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
LAST_NUMBER = re.compile(_NUMBER)
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
SENTENCE_END = re.compile(r"(?<!Mr)(?<!Mrs)(?<!Ms)(?<!Dr)(?<!St)(?<!Mt)[.!?](?=\s|$|\*)|\n")
_REASON = re.compile(
    r",?\s+(?:because|since|which|where|when|as (?:we|required|the)|by |so that|given|after)\b"
    r"|,\s+(?:so|and (?:we|this|that|it))\b|\s+\((?:since|because|as|that is)\b",
    re.IGNORECASE,
)
THAT_IS = re.compile(r",?\s+(?:that is|namely),?\s+", re.IGNORECASE)
_ADVERB = re.compile(
    r"(?:(?:that|therefore|thus|then|simply|just|exactly|indeed|clearly|probably|likely|either|"
    r"approximately|about|roughly|any of|one of|equal to|given by|now|still|obviously)\s+|[:*_>\s])+",
    re.IGNORECASE,
)
NAMED = re.compile(
    r"(?:the|my|our|this|there|it)\b[^=$\\]*?\b(?:is|are|equals)\s+(\S.*)", re.I | re.DOTALL
)
MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_NEGATED = re.compile(r"(?:not\b|n't\b|unknown|unclear|the following|one of|in the form)", re.I)


def phrased_answers(text: str) -> tuple[str, ...] | None:
    """Rule 4: what follows the last phrase that names an answer, and its alternatives."""
    text = text[-MAX_LENGTH * 64 :].replace("i.e.", "that is")
    for match in reversed(list(_PHRASE.finditer(text))):
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
        is_short = len(WORDS.findall(answer)) <= 3
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
    sentence = SENTENCE_END.split(rest[match.end() :][:MAX_WHOLE], maxsplit=1)[0]
    segment = _segment(rest[match.end() :])[0]
    if not re.search(r"[0-9\\$]", segment) or len(WORDS.findall(sentence)) > 6:
        return ()  # "alternatively, we could solve the equation ..." offers no answer
    number = last_number(segment)
    formulas = MATH.findall(segment)
    return ("".join(formulas[-1]) if formulas else number or segment,)


def last_number(text: str) -> str | None:
    """The last number in `text`, with its sign, fraction and exponent.

    Only the characters before the last digit are searched, enough of them that a number cut
    by the window is longer than `MAX_LENGTH` and so too large anyway.
    """
    end = max(text.rfind(digit) for digit in "0123456789") + 1
    window = text[max(0, end - 4 * MAX_LENGTH) : end]
    numbers = LAST_NUMBER.findall(window)
    return numbers[-1] if numbers else None


def _segment(rest: str) -> tuple[str, str]:
    """(answer, what follows) of the text after a phrase, to the end of its sentence."""
    rest = rest[: 4 * MAX_WHOLE].lstrip(" \t\r\n:*")
    rest = rest[3:] if rest.startswith(("\\[\n", "$$\n")) else rest
    end = SENTENCE_END.search(rest)
    answer = rest[: end.start()] if end else rest
    after = rest[end.end() :] if end else ""
    answer = THAT_IS.split(_REASON.split(answer, maxsplit=1)[0])[-1]
    adverb = _ADVERB.match(answer)
    answer = answer[adverb.end() :] if adverb else answer
    named = NAMED.fullmatch(answer)
    answer = named[1] if named else answer
    formulas = list(MATH.finditer(answer))
    if len(formulas) == 1 and len(answer.replace(formulas[0][0], "").split()) > 6:
        answer = formulas[0][0]
    return answer.strip(" *_"), after
