r"""Where a response states its final answer: tags, \boxed, ####, else its last number.

Every function is linear in the length of the text, which is hostile. What the answer means
is not decided here (rewards/numeric.py).
"""

import re

from rewards.numeric import DECIMAL, EXPONENT, MAX_LENGTH

_BRACE = re.compile(r"[{}](?!\\)")  # read from right to left: an escaped brace is no brace
_BOXED = r"\boxed"
_LAST_NUMBER = re.compile(
    rf"(?:(?<![\w)])[-+\u2212])?[$\u20ac\u00a3]?{DECIMAL}(?:{EXPONENT})?(?:/{DECIMAL})?"
)


def final_answer(text: str) -> str | None:
    r"""The final answer of `text`, or None. The first of these that is there decides:

    1. the last `<answer>...</answer>` (a `\boxed{...}` inside it is unwrapped),
    2. the last balanced `\boxed{...}`,
    3. the rest of the line after the last `####`,
    4. leniently, the last number anywhere.

    An answer that is stated and empty is None: the last number does not stand in for it.
    """
    stated = stated_answer(text)
    return last_number(text) if stated is None else stated or None


def stated_answer(text: str) -> str | None:
    """Like `final_answer` without the lenient last step; "" if it is stated and empty."""
    tagged = tagged_answer(text)
    if tagged is not None:
        boxed = boxed_answer(tagged)
        return tagged if boxed is None else boxed
    boxed = boxed_answer(text)
    return hashed_answer(text) if boxed is None else boxed


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
    r"""The content of the `\boxed{...}` that opens last among the balanced ones, stripped.

    One pass from the right: a closing brace is remembered, an opening one takes the nearest
    remembered. An unclosed box therefore costs nothing to skip.
    """
    if _BOXED not in text:
        return None
    closing: list[int] = []
    for brace in _BRACE.finditer(text[::-1]):
        position = len(text) - 1 - brace.start()
        if brace.group() == "}":
            closing.append(position)
        elif closing:
            end = closing.pop()
            if text.endswith(_BOXED, 0, position):
                return text[position + 1 : end].strip()
    return None


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
