"""Reference answers of a data set, found by the question in a prompt.

A dump's prompt may be the question, a conversation that ends in it, or either under a chat
template, so a question is looked for inside of the prompt. Memory is that of the data set.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from eval.judged import prompt_text
from rewards.problem import Messages
from rollouts.tasks.rows import Located, Row, field_of

ANCHOR_WORDS = 6
"""Words from inside of a question by which it is looked for."""
MIN_WORDS = 4
"""A shorter question is found only where it is the whole last message."""
PROMPT_COLUMNS = ("prompt", "question", "problem", "text", "query", "input")
ANSWER_COLUMNS = (
    "gts",
    "answer",
    "solution",
    "ground_truth",
    "final_answer",
    "target",
    "reference",
    "reward_model.ground_truth",
)
"""Looked for in this order where a person names none."""


@dataclass(kw_only=True)
class References:
    """Questions with their answers.

    Example: with the row `{"question": "What is 3 + 5?", "answer": "8"}`, `find("user\\nWhat is
    3 + 5?\\nassistant\\n")` is ("What is 3 + 5?", "8").

    Attributes:
        answers: By the question with single spaces; None where two rows contradict each other.
        anchors: By a few words from inside of a question: the questions.
        sizes: How many words the anchors have.
        num_unread: Rows left out, whose answer is neither a text nor a number nor a list of one.
    """

    answers: dict[str, str | None] = field(default_factory=dict)
    anchors: dict[tuple[str, ...], list[str]] = field(default_factory=dict)
    sizes: set[int] = field(default_factory=set)
    num_unread: int = 0

    def add(self, question: str, answer: str) -> None:
        """Keep a question; the same with another answer makes it useless."""
        key = " ".join(question.split())
        if key in self.answers:
            if self.answers[key] != answer:
                self.answers[key] = None
            return
        self.answers[key] = answer
        words = key.split()
        if len(words) >= MIN_WORDS:  # a template may stick to the first and the last one
            anchor = tuple(words[1:-1][:ANCHOR_WORDS])
            self.anchors.setdefault(anchor, []).append(key)
            self.sizes.add(len(anchor))

    def find(self, prompt: str | Messages) -> tuple[str, str] | None:
        """(question, answer) of a prompt, or None.

        The last message if it is a question as it stands; else the question that ends last in
        the prompt (what precedes it are examples), and of several the longest.
        """
        last = prompt if isinstance(prompt, str) else prompt[-1]["content"] if prompt else ""
        key = " ".join(last.split())
        if key not in self.answers:
            key = self._inside(" ".join(prompt_text(prompt).split()))
        answer = self.answers.get(key)
        return None if answer is None else (key, answer)

    def _inside(self, prompt: str) -> str:
        words = prompt.split()
        places = [(0, 0, "")]
        for size in self.sizes:
            for start in range(1, len(words) - size):
                for question in self.anchors.get(tuple(words[start : start + size]), ()):
                    at = prompt.rfind(question)
                    if at >= 0 and _stands_alone(prompt, at, at + len(question)):
                        places.append((at + len(question), len(question), question))
        return max(places)[2]


def read_references(
    rows: Iterable[Located], prompt_column: str, answer_of: Callable[[Row, str], str | None]
) -> References:
    """The references of a data set's rows; an empty column name takes the first of those known.

    `answer_of(row, place)` gives the reference; a row that has none is left out and counted.

    Raises:
        ValueError: A row lacks a column, or no row has an answer that can be used.
    """
    found = References()
    last = "there are no rows"
    for place, row in rows:
        question = field_of(row, prompt_column or _first(row, PROMPT_COLUMNS), place)
        answer = answer_of(row, place)
        if answer is None:
            found.num_unread += 1
            last = f"{place} has none that is a text, a number or a list of one"
            continue
        found.add(_question_text(question, place), answer)
    if not found.answers:
        raise ValueError(f"no reference answers: {last}")
    return found


def answer_in(row: Row, column: str, place: str) -> str | None:
    """The reference in a row; an empty column name takes the first of those known.

    Raises ValueError if there is no such column.
    """
    return reference_text(field_of(row, column or _first(row, ANSWER_COLUMNS), place))


def reference_text(value: object) -> str | None:
    """A reference as text: a text, a number, or a list of one of these; None for anything else."""
    if isinstance(value, list | tuple) and len(value) == 1:
        return reference_text(value[0])
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value) if str(value).strip() else None


def _first(row: Row, names: tuple[str, ...]) -> str:
    return next((name for name in names if name.partition(".")[0] in row), names[0])


def _question_text(value: object, place: str) -> str:
    """A question, or the last message of a conversation."""
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{place}: the question is {value!r:.80}; a text is needed")
    return value


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether no letter or digit continues text[start:end] on either side."""
    before = start and text[start - 1].isalnum() and text[start].isalnum()
    after = end < len(text) and text[end].isalnum() and text[end - 1].isalnum()
    return not (before or after)
