"""General prompts from files, folders or Hugging Face: no answer is right, one is preferred.

What a response is worth is added by the run's preferences (`preference` of its config); a rule
knows nothing of it.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rewards.problem import Problem, Response, Score, Verdict
from rewards.purity import pure
from rollouts.sampler import Split
from rollouts.tasks.dataset import answer_text, hashed, homes, key_of, prompt_of, text_of
from rollouts.tasks.rows import Row, RowSource, field_of


@dataclass(frozen=True, kw_only=True)
class General(RowSource):
    """The rows of a data set as prompts.

    Example: in `chat.jsonl` the row `{"prompt": "Write to my landlord.", "reply": "Dear ..."}` with
    `reference_column="reply"` is `Problem(id="chat/f2ec...", prompt="Write to my landlord.",
    answer="Dear ...", source="chat")`.
    """

    prompt_column: str = "prompt"
    """The prompt, a text or a conversation; dots lead into objects."""
    reference_column: str = ""
    """An answer that a judge of helpfulness compares with; empty for none."""
    id_column: str = ""
    """A unique id; empty takes a hash of the prompt."""
    judged: Literal["both", "helpfulness", "safety"] = "both"
    """Which of the run's preferences its prompts are for."""

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split in the order of the rows. Raises ValueError for a missing field."""
        return [problem for home, problem in _all_problems(self) if home == split]

    @pure(version="1", reads=())
    def score(self, problem: Problem, response: Response) -> Score:
        """0, and correct: there is nothing here that a rule could find wrong."""
        return Score(value=0.0, verdict=Verdict.CORRECT)

    def problem(self, row: Row, place: str) -> tuple[str, Problem]:
        """The key that twins share, and the problem of a row. Raises ValueError with its place."""
        prompt = prompt_of(row, self, place)
        key = key_of(prompt)
        row_id = text_of(row, self.id_column, place) if self.id_column else hashed(key)
        reference, column = "", self.reference_column
        if column:
            reference = answer_text(field_of(row, column, place), column, place)
        return key, Problem(
            id=f"{self.name}/{row_id}", prompt=prompt, answer=reference, source=self.name
        )


@lru_cache(maxsize=8)
def _all_problems(task: General) -> tuple[tuple[Split, Problem], ...]:
    return tuple(homes(task, task.problem))
