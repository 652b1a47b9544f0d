"""IFEval: prompts with instructions that rules can check, graded by the paper's own checks."""

import json
from dataclasses import dataclass

from rewards.instructions import instructions_of, instructions_reward
from rewards.problem import Problem, Response, Score
from rewards.purity import pure
from rollouts.sampler import Split
from rollouts.tasks.dataset import homes, text_of
from rollouts.tasks.rows import Row, RowSource, field_of


@dataclass(frozen=True, kw_only=True)
class IfEval(RowSource):
    """The 541 prompts of IFEval (Zhou et al. 2023), or rows with its columns.

    Columns are key, prompt, instruction_id_list and kwargs. A problem's answer is the JSON of the
    last two.
    """

    path: str = "google/IFEval"
    train_split: str = ""
    test_split: str = "train"
    name: str = "ifeval"

    def problems(self, split: Split) -> list[Problem]:
        """The problems of a split in the order of the rows; without train rows all are test."""
        return [problem for home, problem in homes(self, self.problem) if home == split]

    @pure(version="1", reads=("prompt", "answer", "text", "prefill"))
    def score(self, problem: Problem, response: Response) -> Score:
        """1 if every instruction is followed (prompt-strict), else 0; parts say loose and shares."""
        return instructions_reward(problem, response)

    def problem(self, row: Row, place: str) -> tuple[str, Problem]:
        """The key that twins share, and the problem. Raises ValueError with the place of the row."""
        prompt, key = text_of(row, "prompt", place), text_of(row, "key", place)
        names = ("instruction_id_list", "kwargs")
        answer = json.dumps({name: field_of(row, name, place) for name in names})
        try:
            instructions_of(answer)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
        return prompt, Problem(
            id=f"{self.name}/{key}", prompt=prompt, answer=answer, source=self.name
        )
