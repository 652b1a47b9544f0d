"""How a benchmark is asked and sampled: R1's way, greedy, after four worked examples, training's.

A protocol gives sampling, samples a problem, and the words around a question; the template that
writes these into a model's form is chosen beside it. Leaves out graders: benchmarks have them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from eval.benchmark_tasks import Kind
from eval.benchmarks import Benchmark
from eval.shots import SHOTS, Shot
from rewards.problem import Messages, Problem
from rollouts.rollout import Sampling

Template = Literal["chat", "r1_zero", "plain"]
TEMPLATES: tuple[Template, ...] = ("chat", "plain", "r1_zero")
STEPS: dict[Kind, str] = {
    "mathematics": "\n\nPlease reason step by step, and put your final answer within \\boxed{}.",
    "choice": "\n\nPlease reason step by step, and put the letter of your answer within \\boxed{}.",
}
"""What follows a question, by the kind of benchmark; the first sentence is Qwen2.5-Math's and R1's."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way to measure, with everything but the model and the problems.

    Example: `PROTOCOLS["r1"]` asks AIME's 30 problems 64 times each at temperature 0.6 and top-p
    0.95, for at most 32,768 tokens.

    Attributes:
        name: On the command line.
        sampling: How tokens are drawn, and their limit.
        num_samples: n; None for the benchmark's own, which is R1's.
        template: The prompt's form if none is asked for; None for chat where the model has a
            chat template, else plain.
        instructions: What follows a question, by the kind of benchmark; not under r1_zero,
            whose own words say what to do, unless `always_instructed`, as in a training that did so.
        shots: Worked examples before a mathematics question.
    """

    name: str
    sampling: Sampling
    num_samples: int | None = None
    template: Template | None = None
    instructions: Mapping[Kind, str] = field(default_factory=lambda: STEPS)
    always_instructed: bool = False
    shots: tuple[Shot, ...] = ()

    def samples_of(self, benchmark: Benchmark) -> int:
        """n, completions of each problem."""
        return benchmark.num_samples if self.num_samples is None else self.num_samples


PROTOCOLS: dict[str, Protocol] = {
    "r1": Protocol(name="r1", sampling=Sampling(temperature=0.6, top_p=0.95, max_tokens=32_768)),
    "greedy": Protocol(
        name="greedy", sampling=Sampling(temperature=0.0, max_tokens=2048), num_samples=1
    ),
    "few_shot": Protocol(
        name="few_shot",
        sampling=Sampling(temperature=0.0, max_tokens=1024),
        num_samples=1,
        template="plain",
        shots=SHOTS,
    ),
}
"""By name; `training` is made from a run's config (recipes/evaluation.py).

r1: DeepSeek-R1 (arXiv 2501.12948 v2), its evaluation setup, zero-shot. greedy: one completion,
zero-shot, as Qwen2.5-Math reports instruct models; the limit is ours. few_shot: the form in which
Qwen measures base models, four solved problems and then the question; the examples are ours.
"""

NEXT_QUESTION = "\nQuestion:"
"""Where a base model that has answered goes on to ask itself something; nothing after it counts."""


def asked(problem: Problem, kind: Kind, protocol: Protocol, template: Template) -> Problem:
    """The problem with the protocol's words around its question.

    Examples stand before mathematics only, as turns of a conversation under chat and as text
    under plain. The prompts of programs and of our own tasks say everything themselves, and so
    do conversations.

    Raises:
        ValueError: The template has no place for examples.
    """
    if not isinstance(problem.prompt, str):
        return problem
    check_template(protocol, template)
    if protocol.shots and kind == "mathematics":
        return replace(problem, prompt=_after_shots(problem.prompt, protocol.shots, template))
    if template == "r1_zero" and not protocol.always_instructed:
        return problem
    return replace(problem, prompt=problem.prompt + protocol.instructions.get(kind, ""))


def check_template(protocol: Protocol, template: Template) -> None:
    """Raise ValueError if the protocol's examples have no place in the template."""
    if protocol.shots and template == "r1_zero":
        raise ValueError(
            f"protocol {protocol.name} shows {len(protocol.shots)} examples, for which the template "
            "r1_zero has no place: use --template plain or chat, or another --protocol"
        )


def counted(text: str, kind: Kind, protocol: Protocol, template: Template) -> str:
    """What of a completion is graded: after examples as text, up to the next question it asks."""
    cut = protocol.shots and kind == "mathematics" and template == "plain"
    return text.split(NEXT_QUESTION)[0] if cut else text


def _after_shots(question: str, shots: tuple[Shot, ...], template: Template) -> str | Messages:
    if template == "chat":
        turns: list[dict[str, str]] = []
        for shot in shots:
            turns.append({"role": "user", "content": shot.question})
            turns.append({"role": "assistant", "content": shot.answer})
        return (*turns, {"role": "user", "content": question})
    parts = [f"Question: {shot.question}\nAnswer: {shot.answer}" for shot in shots]
    return "\n\n".join([*parts, f"Question: {question}\nAnswer:"])
