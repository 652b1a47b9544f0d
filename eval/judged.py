"""A completion that some trainer wrote down, and what that trainer and our rewards said of it.

Plain values only; where they are read from stands in recipes/dumps.py.
"""

from dataclasses import dataclass, field

from rewards.problem import Messages, Problem, Response, Score, Verdict


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One completion of a dump.

    Example: the fourth row of TRL's table of step 20, whose only reward gave 1:
    `Sample(table="completions_00020.parquet", row=4, step=20, prompt="3 + 5?",
    response=Response(text="8"), grade=1.0, rewards={"accuracy_reward": 1.0}, answer=None)`.

    Attributes:
        table: The file; groups never reach from one into another.
        row: Its place there, from 1.
        step: Of the training, as the dump counts.
        prompt: As it was given to the model, a chat template's words included where the dump
            has them.
        response: Its text; `num_tokens` and `max_tokens` are 0 where unknown.
        is_truncated: Whether the limit cut it off; None where the dump does not say.
        grade: What their grader said of its correctness; None if nothing.
        grade_field: Where in the dump that stands; empty if nowhere.
        rewards: What it was rewarded for, by name.
        answer: The reference in the dump; None if there is none.
        answer_field: Where in the dump that stands; empty if nowhere.
        problem: Where the dump holds all of it (ours do).
        sampler_logprobs, trainer_logprobs: Of the same tokens; empty where unknown.
    """

    table: str
    row: int
    step: int
    prompt: str | Messages
    response: Response
    is_truncated: bool | None = None
    grade: float | None = None
    grade_field: str = ""
    rewards: dict[str, float | None] = field(default_factory=dict)
    answer: str | None = None
    answer_field: str = ""
    problem: Problem | None = None
    sampler_logprobs: tuple[float, ...] = ()
    trainer_logprobs: tuple[float, ...] = ()

    @property
    def place(self) -> str:
        """Where a person finds it: file and row."""
        return f"{self.table}, row {self.row}"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A sample and our score of it.

    Attributes:
        problem: What it was graded against; None where no answer was found.
        score: Ours; None without a problem, and where our reward does not read the reference.
    """

    sample: Sample
    problem: Problem | None = None
    score: Score | None = None

    @property
    def ours(self) -> bool | None:
        """Whether it is right by our reward; None if it was not graded."""
        if self.score is None or self.score.verdict.is_ours:
            return None
        return self.score.verdict is Verdict.CORRECT

    def theirs(self, right_above: float) -> bool | None:
        """Whether it is right by their grade, which is above `right_above` then."""
        return None if self.sample.grade is None else self.sample.grade > right_above


def prompt_text(prompt: str | Messages) -> str:
    """A prompt as one text; of a conversation the contents, a line each."""
    return prompt if isinstance(prompt, str) else "\n".join(turn["content"] for turn in prompt)
