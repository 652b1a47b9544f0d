r"""R1's form: `<think>` trace `</think>`, then a summary for the reader with the answer boxed.

From a sample in R1-Zero's form, or a worked solution without tags, to this form: the summary is
made by rule, or by a stronger model that is asked with `summary_messages` (DeepSeek-R1, arXiv
2501.12948v2, Sec. 3 and supplement B.3: the prompt's words are ours). Whoever changes a sample
grades it again.
"""

from rewards.answers import after_thinking, boxed_answer, final_answer, stated_answers
from rewards.problem import Messages, Problem
from rewards.tags import has_think_answer_format, has_think_summary_format

OPEN, CLOSE = "<think>", "</think>"
TAGS = (OPEN, CLOSE, "<answer>", "</answer>")

MAX_SHORT = 80
"""Characters of an answer that is put into a box as it is; of a longer one, its final answer."""

SUMMARY_REQUEST = """\
Somebody thought about a question, in notes of their own that nobody else will read. Write the \
reply that the person who asked it receives.

- Write in the language of the question, whatever language the notes are in.
- Tell the steps that lead to the result, in order and without detours, doubts or false starts.
- Solve nothing anew: the result is that of the notes.
- Do not speak of the notes, and use no tags.
- End with the final answer, and nothing but it, in \\boxed{{}}.

Question:
{question}

Notes:
{trace}
"""


def has_r1_form(text: str) -> bool:
    r"""True for `<think>` trace `</think>` and a summary, neither empty, with a box in the summary.

    As `rewards.tags.has_think_summary_format`, which asks for no box; R1-Zero's other tags must not
    be there.
    """
    if not has_think_summary_format(text) or any(tag in text for tag in TAGS[2:]):
        return False
    return bool(boxed_answer(text.partition(CLOSE)[2]))


def to_r1_form(text: str, *, language: str = "en") -> str | None:
    r"""The same trace and answer in R1's form; None if there is no trace or no answer in it.

    A text that has the form stays as it is. One without tags, a worked solution, is its own trace.

    Example: "<think>3 + 5 is 8</think><answer>8</answer>" becomes
    "<think>\n3 + 5 is 8\n</think>\n\nThe answer is \boxed{8}."
    """
    if has_r1_form(text):
        return text
    if has_think_answer_format(text):
        trace, _, rest = text.partition(OPEN)[2].partition(CLOSE)
        answer = rest.partition("<answer>")[2].partition("</answer>")[0]
    elif any(tag in text for tag in TAGS):
        return None
    else:
        trace = text
        answer = (stated_answers(text) or ("",))[-1]
    summary = _boxed_summary(answer.strip(), language)
    return joined(trace, summary) if trace.strip() and summary else None


def joined(trace: str, summary: str) -> str:
    """R1's form of both."""
    return f"{OPEN}\n{trace.strip()}\n{CLOSE}\n\n{summary.strip()}"


def trace_of(text: str) -> str:
    """What stands between the tags of a text in R1's form."""
    return text.partition(OPEN)[2].partition(CLOSE)[0].strip()


def summary_messages(problem: Problem, text: str) -> Messages:
    """What a stronger model is asked for the summary of a sample in R1's form."""
    question = problem.prompt
    if not isinstance(question, str):
        question = "\n".join(message["content"] for message in question)
    # Replaced, not formatted, one after the other: both hold braces.
    before, _, after = SUMMARY_REQUEST.replace("{{}}", "{}").partition("{question}")
    middle, _, end = after.partition("{trace}")
    words = f"{before}{question}{middle}{trace_of(text)}{end}"
    return ({"role": "user", "content": words},)


def with_summary(text: str, told: str) -> str | None:
    """The trace of `text` with the summary that a model told; None if that is not in R1's form.

    What the model itself thought before is left out.
    """
    rewritten = joined(trace_of(text), after_thinking(told))
    return rewritten if has_r1_form(rewritten) else None


def _boxed_summary(answer: str, language: str) -> str | None:
    """The answer for a reader, its final part boxed; words of ours are English."""
    if not answer or boxed_answer(answer):
        return answer or None
    stated = stated_answers(answer)
    if stated is None and len(answer) <= MAX_SHORT and "\n" not in answer:
        box = f"\\boxed{{{answer.strip('$ ')}}}"
        return f"The answer is {box}." if language in ("", "en") else box
    found = final_answer(answer)
    return f"{answer}\n\n\\boxed{{{found}}}" if found else None
