r"""What a text alone shows of how it ended: cut off, in a loop, repeating itself.

Dumps of other trainers hold neither tokens nor why the sampling stopped, so these are rules over
characters and words. Each is linear in the text, or looks at its end only.
"""

import re
from collections.abc import Sequence

from rewards.length import repeated_share

NGRAM = 4
"""Words of an n-gram whose share of repetitions is taken."""
REPETITIVE = 0.5
"""From this share of repeated n-grams on a text counts as repetitive."""
MAX_WORDS = 20_000
"""Of a text that is looked at for repetition; the last ones."""
CUT_RULE = (
    "<think>, <answer>, a code fence or \\boxed{ is open at the end, or the text ends in a comma, "
    "colon, operator or opening bracket"
)
LOOP_RULE = (
    "ends in up to 64 words at least 4 times in a row, 16 words or more in all; or in up to 32 "
    "characters at least 8 times in a row, 64 characters or more in all"
)

_MAX_CHARS = 8192
_MAX_BOX = 1000
_OPEN_END = re.compile(r"[,;:=+\-/^(\[{<\\&]$")
_FENCE = re.compile(r"^\s*```", re.MULTILINE)


def looks_cut(text: str) -> bool:
    r"""True by `CUT_RULE`; `text` holds what the template wrote of the answer, too.

    Examples: "<think>so 3 +" and "it is \boxed{1" look cut off, "so it is 8" does not.
    """
    text = text.rstrip()
    if not text:
        return False
    if any(text.rfind(f"<{tag}>") > text.rfind(f"</{tag}>") for tag in ("think", "answer")):
        return True
    if len(_FENCE.findall(text)) % 2 or _OPEN_END.search(text):
        return True
    box = text.rfind("\\boxed{")
    tail = text[box : box + _MAX_BOX] if box >= 0 else ""
    return len(text) - box < _MAX_BOX and tail.count("{") > tail.count("}")


def ends_in_loop(text: str) -> bool:
    """True by `LOOP_RULE`; a last word that was cut off is forgiven.

    Example: "no. no. no. " over and over, sixteen times or more.
    """
    end = text[-_MAX_CHARS:].strip()
    words = end.split()[-513:]
    return (
        _repeats(words[-512:], period=64, times=4, size=16)
        or _repeats(words[:-1], period=64, times=4, size=16)
        or _repeats(end[-512:], period=32, times=8, size=64)
    )


def repetition(text: str) -> float:
    """The share of 4-grams of words, separated by white space, that stood there before.

    Numbers and formulas count, which are no words to `rewards.length.repetition_reward`.
    """
    return repeated_share(text.lower().split()[-MAX_WORDS:], NGRAM)


def _repeats(items: Sequence[str], *, period: int, times: int, size: int) -> bool:
    """Whether the end of `items` is a phrase of at most `period`, so often and so long."""
    for step in range(1, min(period, len(items) // 2) + 1):
        run = 0
        while run + step < len(items) and items[-1 - run] == items[-1 - run - step]:
            run += 1
        if run >= (times - 1) * step and run + step >= size:
            return True
    return False
