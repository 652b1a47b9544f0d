"""The answer of a text that states none: in bold, a short text, the last formula, the last number.

Rule 5 of rewards/answers.py, for what a model writes that was never told how to answer. What is
looked for depends on the kind of the reference: a letter, a time or ratio, a list, or one thing.
Nothing here is far from the end of the text.
"""

import itertools
import re

from rewards.maths.number_words import number_words
from rewards.maths.phrases import (
    LAST_NUMBER,
    MATH,
    MAX_WHOLE,
    NAMED,
    SENTENCE_END,
    THAT_IS,
    WORDS,
    last_number,
)
from rewards.maths.spelling import PICTURES, plain
from rewards.maths.units import known_unit

_CHOICE = re.compile(
    r"\(([A-P])\)|\b(?:option|choice|choose|select|pick)\W{0,4}([A-P])\b|^\W{0,4}([A-P])\W{0,4}$"
    r"|(?:\*\*|:\s)([A-P])(?=\W{0,3}$|\*\*)"
)
_BOLD = re.compile(r"(?:\*\*|\\textbf\{)([^*{}\n]{1,80}?)(?:\*\*|\})")
_CALLED = re.compile(r"(?:called|named|known as)\s+|(?:an?|the)\s+", re.IGNORECASE)
_LABEL = re.compile(
    r"(?:the |final )*(?:answers?|solution|result|conclusion|notes?|check|therefore|step\b.*)\W*",
    re.IGNORECASE,
)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{?([^\s{}$\\]+)")  # \boxed 9, \fbox{9}
_CODE = re.compile(r"__\w+__|\w\('")
_SO = re.compile(r"\s*(?:so|thus|hence|therefore|then|either)\b,?", re.IGNORECASE)
_REMARK = re.compile(r"(?<=\S)\s*\((?=[^()]*[A-Za-z]{3})[^()\\$]*\)(?=\s*[.!]?\s*$)")
_IN_BASE = re.compile(r"\s*\(?\bin base[\s$-]*\w+\$?\)?", re.IGNORECASE)
_NOT = re.compile(r"(?:\bnot|n't|\bnever|\bneither|\bnor)\b\W*(?:\w+\W+){0,2}$", re.IGNORECASE)
_GAP = re.compile(r"[\s,;]*(?:\b(?:and|or|perhaps|maybe|at)\b[\s,;]*)*", re.IGNORECASE)
_TIME = re.compile(
    r"(?<![0-9:])[0-9]{1,4}\s*:\s*[0-9]{1,4}(?::[0-9]+)*(?:\s*[ap]\.?\s?m\b\.?)?", re.I
)
_SAYS = re.compile(r"\b(?:is|are|be|equals|to)\b")
_CUT = re.compile(r"(?:\b[A-Za-z]+\W+){2}[A-Za-z]+\s*$")  # a sentence without an end
_HENCE = re.compile(r"[,;:]\s*(?:so|thus|hence|therefore|then)\b,?\s*", re.IGNORECASE)
_UNIT = re.compile(r"\s*(%|\u00b0|[A-Za-z]+(?:(?:\s+per\s+|/)[A-Za-z]+)?)")
_LARGER = re.compile(r"[0-9]+ ([A-Za-z]+)(?: and|,)? $")  # 5 hours and 34 minutes
_LIST = re.compile(r"[0-9)}]\s*[,;]\s*\S")
_MAX_WORDS = 4
_MAX_LINE = 60


def unstated_answer(text: str, reference: str, *, is_choice: bool) -> str | None:
    """What a text without a stated answer answers to a question with this reference.

    Examples: "so **C**, the ellipse" has "C" for a choice; "It takes 7 hours (420 minutes)." has
    "7"; "They are 4 and 9." has "4, 9" where the reference is a list, and "9" where it is not.
    """
    lines = [line for line in text[-4 * MAX_WHOLE :].splitlines() if line.strip()]
    if not lines or _CODE.search(lines[-1]):
        return None
    last = _REMARK.sub("", PICTURES.sub("", lines[-1]))
    if is_choice and (letters := _choice_answer(lines)):
        return letters
    if ":" in reference and (times := _TIME.findall(last)):
        return times[-1]
    bold = _bold_answer(last)
    if bold is not None:
        return bold
    last_sentence = _last_sentence(last)
    if _LIST.search(reference) and not MATH.search(last) and (found := _listed(last_sentence)):
        return found
    end = _REMARK.sub("", "\n".join([*lines[:-1], last]))
    formulas = _last_formulas(_IN_BASE.sub("", end))
    if formulas is not None and last.rstrip(" .").endswith(("$", "\\)", "\\]")):
        return formulas
    num_words = len(WORDS.findall(last_sentence)) if len(lines) == 1 else _MAX_WORDS + 1
    if num_words <= 2 and len(last) <= MAX_WHOLE and not _SAYS.search(last_sentence):
        return _SO.sub("", last if "." in last_sentence else last_sentence).strip()
    if boxes := _BARE_BOX.findall(end):
        return boxes[-1]
    if formulas is not None:
        return formulas
    found = _of_sentence(_IN_BASE.sub("", last_sentence)) or _last_of(end, text)
    if found is None and num_words <= _MAX_WORDS and len(last) <= _MAX_LINE:
        return last.strip()
    return found


def _choice_answer(lines: list[str]) -> str | None:
    """The letters of options that the last line with one names: "B", "A or C"."""
    for line in reversed(lines):
        sentences = SENTENCE_END.split(line)
        for part in (*reversed(sentences), line):
            letters = {next(filter(None, groups)) for groups in _CHOICE.findall(part)}
            if letters:
                return " or ".join(sorted(letters))
    return None


def _bold_answer(line: str) -> str | None:
    """What stands in bold in the last line, all of it if "or" joins several."""
    spans = [m for m in _BOLD.finditer(line) if not m[1].rstrip().endswith(":")]
    spans = [m for m in spans if re.search("[0-9]", m[1]) or not _LABEL.fullmatch(m[1])]
    if not spans:
        return None
    if len(spans) > 1 and re.search(r"\bor\b", line[spans[-2].end() : spans[-1].start()]):
        return " or ".join(span[1] for span in spans[-2:])
    return spans[-1][1].strip().rstrip(".")


def _last_sentence(line: str) -> str:
    sentences = [part for part in SENTENCE_END.split(line[-MAX_WHOLE:]) if part.strip()]
    return THAT_IS.split(_HENCE.split(sentences[-1])[-1])[-1] if sentences else line


def _listed(sentence: str) -> str | None:
    """The numbers of a sentence: a list, or a tuple where words tell what each of them is."""
    found = list(LAST_NUMBER.finditer(sentence))
    if len(found) < 2 or not WORDS.search(sentence):
        return None
    gaps = [sentence[a.end() : b.start()] for a, b in itertools.pairwise(found)]
    numbers = ", ".join(number[0] for number in found)
    if all(_GAP.fullmatch(gap) for gap in gaps):
        return numbers
    labelled = any(WORDS.search(re.sub(r"\b(?:and|or)\b", "", gap)) for gap in gaps)
    return f"({numbers})" if labelled else None


def _last_formulas(end: str) -> str | None:
    """The formulas at the end, several if only commas and "and" or "or" stand between them."""
    found = list(MATH.finditer(end))
    after = end[found[-1].end() :] if found else ""
    if not found or re.search("[0-9]", after) or _SAYS.search(after) or _CUT.search(after):
        return None
    contents = [next(filter(None, found[-1].groups()))]
    joiner = ", "
    for later, before in zip(reversed(found), reversed(found[:-1]), strict=False):
        gap = end[before.end() : later.start()]
        if not _GAP.fullmatch(gap):
            break
        joiner = " or " if re.search(r"\bor\b", gap) else joiner
        contents.insert(0, next(filter(None, before.groups())))
    return joiner.join(contents)


def _of_sentence(sentence: str) -> str | None:
    """What a last sentence ends in: all candidates of "3 or 5", else "= ...", "is ..."."""
    if re.search(r"[0-9].*\bor\b.*[0-9]", sentence):
        return " or ".join(LAST_NUMBER.findall(sentence))
    sentence = re.sub(r"\bout of\b.*", "", sentence)
    has_digits = re.search("[0-9]", sentence) is not None
    for sign in ("=", " is ", " are ", " equals ", " be ", " to "):
        value = _CALLED.sub("", sentence.rpartition(sign)[2].strip())
        says = re.search("[0-9]", value) if has_digits else value
        if sign in sentence and says and len(WORDS.findall(value)) <= 2:
            return _amount(value) if has_digits and re.match("[A-Za-z]{2,} ", value) else value
    if not has_digits:
        return " or ".join(number_words(sentence)[-1 if " or " not in sentence else 0 :]) or None
    return _amount(sentence)


def _amount(sentence: str) -> str | None:
    """The last number of a sentence, with its unit if that is known; None after "not"."""
    number = last_number(sentence)
    if number is None:
        return None
    before, _, after = sentence.rpartition(number)
    unit = _UNIT.match(after)
    word = unit[1] if unit and (unit[1] in ("%", "percent") or known_unit(unit[1])) else ""
    larger = _LARGER.search(before) if word else None
    first = larger[0] if larger and known_unit(larger[1]) else ""
    return None if _NOT.search(before) else f"{first}{number} {word}".strip()


def _last_of(end: str, text: str) -> str | None:
    """The last number anywhere, if nothing says that it is not the answer."""
    number = last_number(text)
    return None if number is None or _NOT.search(end.rpartition(number)[0]) else number


def second_answer(text: str, reference: str, *, is_stated: bool) -> str | None:
    """What a stated or whole answer says that cannot be read as it is; None for code.

    Examples: "4 more than 48,651 gives 48,655" has "48,655"; of "speed 6 km/h, current 4 km/h"
    the values, if the reference is a list.
    """
    text = plain(text)
    if _CODE.search(text) or re.search("['\"`]", text) or len(text) > MAX_WHOLE:
        return None
    if _LIST.search(reference) and (found := _listed(text)):
        return found
    if is_stated and (named := NAMED.fullmatch(text)):
        return named[1]
    if is_stated and (re.search(r"[\\()\[\]{}]", text) or len(LAST_NUMBER.findall(text)) != 1):
        return None
    return _of_sentence(text)
