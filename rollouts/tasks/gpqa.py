"""GPQA: questions of biology, physics and chemistry with four choices, shuffled by a seed.

Its authors ask that no example be put online in plain text: keep rollouts of it to yourself.
"""

from dataclasses import dataclass
from random import Random

from rewards.problem import Messages
from rollouts.tasks.dataset import Dataset, answer_text, key_of, text_of
from rollouts.tasks.rows import Row, field_of

LETTERS = "ABCD"
CHOICES = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
"""Columns; the first is the right one."""


@dataclass(frozen=True, kw_only=True)
class Gpqa(Dataset):
    """The 198 questions of GPQA Diamond (Rein et al. 2023); the answer is a letter.

    Ids depend on the question alone, the order of its choices on the question and `seed`.
    """

    path: str = "Idavidrein/gpqa"
    subset: str = "gpqa_diamond"
    train_split: str = ""
    test_split: str = "train"
    prompt_column: str = "Question"
    answer_column: str = "Correct Answer"
    name: str = "gpqa_diamond"
    seed: int = 0
    """Another seed gives another order of choices."""

    def ask(self, row: Row, place: str) -> str | Messages:
        """The question, and a line for each choice."""
        question = text_of(row, self.prompt_column, place).strip()
        lines = [
            f"({letter}) {text_of(row, column, place).strip()}"
            for letter, column in zip(LETTERS, self._order(row, place), strict=True)
        ]
        return "\n".join([question, "", *lines])

    def reference(self, row: Row, place: str) -> str:
        """The letter of the right choice."""
        for column in CHOICES:
            answer_text(field_of(row, column, place), column, place)
        return LETTERS[self._order(row, place).index(CHOICES[0])]

    def _order(self, row: Row, place: str) -> list[str]:
        key = key_of(text_of(row, self.prompt_column, place))
        return Random(f"gpqa/{self.seed}/{key}").sample(CHOICES, len(CHOICES))
