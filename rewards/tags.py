"""The format rewards: R1-Zero's `<think>` then `<answer>`, and R1's `<think>` then a summary."""

import re

from rewards.answers import after_thinking
from rewards.problem import Problem, Response, Score, Verdict
from rewards.purity import pure

TAGS = (("<think>", "</think>"), ("<answer>", "</answer>"))


def summary_of(text: str) -> str:
    """What the reader is told: after the last `</think>`, all of it if nothing was thought.

    Thinking that does not end has no summary. `<answer>` and `</answer>` are left out. Example:
    "<think>a</think> <answer>b</answer>" gives "b", and "<think>a" gives "".
    """
    if "<think>" in text and "</think>" not in text:
        return ""
    return re.sub(r"</?answer>", "", after_thinking(text)).strip()


@pure(version="1", reads=("text", "prefill"))
def format_reward(problem: Problem, response: Response) -> Score:
    """1 if the whole text, prefill included, has R1-Zero's format, else 0 (malformed).

    DeepSeek-R1 (arXiv 2501.12948v2, Table 1 and Sec. 2.2) gives the format and not the
    value of its reward; 1 and 0 are our reading of its equal weight with accuracy.
    """
    fits = has_think_answer_format(response.full_text)
    value = 1.0 if fits else 0.0
    verdict = Verdict.CORRECT if fits else Verdict.MALFORMED
    return Score(value=value, verdict=verdict, parts={"format": value})


@pure(version="1", reads=("text", "prefill"))
def think_summary_reward(problem: Problem, response: Response) -> Score:
    """1 if the whole text, prefill included, has the format of R1's cold start, else 0 (malformed).

    DeepSeek-R1 (Nature, 2025, Methods): a chain of thought in `<think>` tags, then a summary for
    the reader. Dev1 is taught it, and every stage after keeps to it.
    """
    fits = has_think_summary_format(response.full_text)
    value = 1.0 if fits else 0.0
    verdict = Verdict.CORRECT if fits else Verdict.MALFORMED
    return Score(value=value, verdict=verdict, parts={"format": value})


def has_think_summary_format(text: str) -> bool:
    """True for `<think>..</think>` at the start, once, with a chain and a summary that are not empty."""
    opening, closing = TAGS[0]
    if text.count(opening) != 1 or text.count(closing) != 1:
        return False
    before, _, rest = text.partition(opening)
    chain, closed, summary = rest.partition(closing)
    return bool(closed and not before.strip() and chain.strip() and summary.strip())


def has_think_answer_format(text: str) -> bool:
    """True for `<think>..</think><answer>..</answer>` with only white space outside.

    Each of the four tags must be there exactly once, in this order.
    """
    if any(text.count(tag) != 1 for pair in TAGS for tag in pair):
        return False
    outside, rest = "", text
    for opening, closing in TAGS:
        before, _, rest = rest.partition(opening)
        _, closed, rest = rest.partition(closing)
        if not closed:
            return False
        outside += before
    return not (outside + rest).strip()
