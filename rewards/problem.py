"""The types that graders speak: a problem, a response to it, and a score with its verdict.

Every other package builds on these; they hold plain Python values only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

Messages = tuple[dict[str, str], ...]


class Verdict(StrEnum):
    """What a grader found.

    The first seven are the policy's doing and stay in the batch; the `*_error` ones are ours
    and leave it.
    """

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    GRADER_ERROR = "grader_error"
    SANDBOX_ERROR = "sandbox_error"
    JUDGE_ERROR = "judge_error"

    @property
    def is_ours(self) -> bool:
        """True if the failure is the trainer's and says nothing about the response."""
        return self in (Verdict.GRADER_ERROR, Verdict.SANDBOX_ERROR, Verdict.JUDGE_ERROR)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing to solve.

    Example: `Problem(id="arithmetic/add/3+5", prompt="What is 3 + 5?", answer="8",
    source="arithmetic/add")`.

    Attributes:
        id: Stable over runs and machines; seeds and splits derive from it.
        prompt: The question as text, or a conversation of role/content messages.
        answer: What the reward compares with; opaque to everyone else.
        source: Where it comes from (task, data set, row); metrics are broken down by it.
    """

    id: str
    prompt: str | Messages
    answer: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Response:
    """What the policy wrote, as graders see it.

    Example: under a template that ends in `<think>`, sampling "3 + 5 is 8</think>8" with
    a limit of 64 gives `Response(text="3 + 5 is 8</think>8", prefill="<think>",
    num_tokens=9, max_tokens=64, finish="stop")`.

    Attributes:
        text: The sampled text, without the end-of-sequence token. Hostile.
        prefill: What the template had already written of the answer.
        num_tokens: Sampled tokens, the end token included.
        max_tokens: The limit that was in force.
        finish: "stop" if the policy ended by itself, "length" if the limit cut it off.
    """

    text: str
    prefill: str = ""
    num_tokens: int = 0
    max_tokens: int = 0
    finish: str = "stop"

    @property
    def full_text(self) -> str:
        """The answer from its first character, prefill included."""
        return self.prefill + self.text


@dataclass(frozen=True, kw_only=True)
class Score:
    """A graded response: a value, why, and the named parts that make up the value.

    Example: right answer in the wrong format, each worth 1:
    `Score(value=1.0, verdict=Verdict.CORRECT, parts={"accuracy": 1.0, "format": 0.0})`.
    """

    value: float
    verdict: Verdict
    parts: dict[str, float] = field(default_factory=dict)


RewardFn = Callable[[Problem, Response], Score]
GroupRewardFn = Callable[[Problem, Sequence[Response]], list[Score]]
