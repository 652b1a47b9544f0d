"""From a problem to the ids that the policy continues.

The tokenizer is passed in; a template decides the words around the question and what of the
answer is already written (the prefill). Rendering never truncates: `fitting` leaves out what
is too long, and counts it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rewards.problem import Problem

# Data of the recipe, quoted: DeepSeek-R1, arXiv 2501.12948 v2, Table 1 (CC BY 4.0).
R1_ZERO_TEMPLATE = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant "
    "solves it. The assistant first thinks about the reasoning process in the mind and then "
    "provides the user with the answer. The reasoning process and answer are enclosed within "
    "<think> </think> and <answer> </answer> tags, respectively, i.e., <think> reasoning process "
    "here </think> <answer> answer here </answer>. User: {question}. Assistant:"
)


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """How a problem becomes a prompt."""

    template: Literal["chat", "r1_zero", "plain"] = "chat"
    """chat: the model's own chat template; r1_zero: the paper's plain text (DeepSeek-R1, Table 1);
    plain: the question alone."""
    system: str | None = None
    """System message of the chat template; None leaves the template's default."""
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    """Passed to the chat template, e.g. enable_thinking: false."""
    prefill: str = ""
    """Written at the start of the answer, e.g. "<think>"; graders see it, the policy does not draw it."""
    max_prompt_tokens: int = 1024
    """Problems with a longer prompt are left out, with their count."""


@dataclass(frozen=True, kw_only=True)
class Renderer:
    """Renders problems with one tokenizer and one template.

    Example: under the chat template "What is 3 + 5?" becomes the ids of
    "<|im_start|>user\\nWhat is 3 + 5?<|im_end|>\\n<|im_start|>assistant\\n".
    """

    tokenizer: Any
    config: PromptConfig

    def text(self, problem: Problem) -> str:
        """The prompt as text, prefill included."""
        if self.config.template == "chat":
            return self._chat(problem) + self.config.prefill
        question = _question(problem)
        if self.config.template == "r1_zero":
            # The paper's template ends the question with a full stop of its own.
            question = R1_ZERO_TEMPLATE.format(question=question.removesuffix("."))
        return question + self.config.prefill

    def ids(self, problem: Problem) -> tuple[int, ...]:
        """The prompt as ids. A chat template writes its own special tokens; others get the tokenizer's."""
        special = self.config.template != "chat"
        return tuple(self.tokenizer(self.text(problem), add_special_tokens=special)["input_ids"])

    def _chat(self, problem: Problem) -> str:
        if not getattr(self.tokenizer, "chat_template", None):
            raise ValueError(
                "prompts.template is 'chat', but this model's tokenizer has no chat template: "
                "use --prompts.template r1_zero or plain"
            )
        messages = messages_of(problem, self.config.system)
        return self.tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=True,
            **self.config.chat_template_kwargs,
        )


def messages_of(problem: Problem, system: str | None) -> list[dict[str, str]]:
    """A problem as a conversation, behind a system message where there is one."""
    messages = [{"role": "system", "content": system}] if system is not None else []
    if isinstance(problem.prompt, str):
        return [*messages, {"role": "user", "content": problem.prompt}]
    return [*messages, *problem.prompt]


def fitting(
    problems: Sequence[Problem], ids: Callable[[Problem], tuple[int, ...]], max_prompt_tokens: int
) -> tuple[list[Problem], int]:
    """Problems whose prompt has at most `max_prompt_tokens` ids, and how many were left out."""
    kept = [problem for problem in problems if len(ids(problem)) <= max_prompt_tokens]
    return kept, len(problems) - len(kept)


def _question(problem: Problem) -> str:
    if isinstance(problem.prompt, str):
        return problem.prompt
    return "\n".join(message["content"] for message in problem.prompt)
