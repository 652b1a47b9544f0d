"""The base under its best prompt, so that a gain is not only a format learnt.

A few ways to ask are tried on the validation split, and the best is measured on the test split
with the same sampling and the same lenient extraction (the last number in the text).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from eval.evaluate import EvalConfig, EvalResult
from rewards.problem import Problem

NUM_EXAMPLES = 4
ROOM_TOKENS = 160
"""More than training's longest prompt that a way to ask may take; the engine is built for it."""
Ask = Callable[[Problem, list[Problem]], Problem]


def as_trained(problem: Problem, examples: list[Problem]) -> Problem:
    """The prompt of training."""
    return problem


def question_alone(problem: Problem, examples: list[Problem]) -> Problem:
    """The first sentence only, without instructions."""
    return replace(problem, prompt=_first_sentence(problem))


def with_examples(problem: Problem, examples: list[Problem]) -> Problem:
    """After four solved training problems, as turns of the conversation."""
    turns: list[dict[str, str]] = []
    for example in examples:
        turns.append({"role": "user", "content": str(example.prompt)})
        turns.append({"role": "assistant", "content": example.answer})
    return replace(problem, prompt=(*turns, {"role": "user", "content": str(problem.prompt)}))


def step_by_step(problem: Problem, examples: list[Problem]) -> Problem:
    """Asked to think first."""
    return replace(problem, prompt=f"{_first_sentence(problem)} Let's think step by step.")


ASKS: tuple[Ask, ...] = (as_trained, question_alone, with_examples, step_by_step)


def best_prompt(
    config: Any, data: Any, sample: Callable[..., EvalResult], base: EvalResult
) -> EvalResult:
    """Choose among `ASKS` on the validation split, then measure the choice on the test split.

    Where the choice is training's prompt, `base` is that measurement: the same requests with the
    same seeds would give the same numbers again. A way to ask whose prompt and completion are
    longer than the engine's `data.max_tokens` is left out; that of training is always tried.
    """
    examples = data.problems["train"][:: max(1, len(data.problems["train"]) // NUM_EXAMPLES)]
    examples = examples[:NUM_EXAMPLES]
    validation, test = config.validation, config.test
    completion = max(validation.max_tokens, test.max_tokens)

    def rendered(problem: Problem, ask: Ask) -> tuple[int, ...]:
        return data.renderer.ids(ask(problem, examples))

    def measured(config: EvalConfig, ask: Ask) -> EvalResult:
        rows = data.selected(config)
        return sample(config, rows, _label(ask), partial(rendered, ask=ask))

    problems = [*data.selected(validation), *data.selected(test)]
    asks = [as_trained]
    for ask in ASKS[1:] if data.renderer.config.template == "chat" else ASKS[1:2]:
        if max(len(rendered(p, ask)) for p in problems) + completion <= data.max_tokens:
            asks.append(ask)
    best = max(asks, key=lambda ask: measured(validation, ask).pass_at_1)
    if best is as_trained:
        return replace(base, label=_label(best))
    return measured(test, best)


def _label(ask: Ask) -> str:
    return f"base, {ask.__name__.replace('_', ' ')}"


def _first_sentence(problem: Problem) -> str:
    text = problem.prompt if isinstance(problem.prompt, str) else problem.prompt[-1]["content"]
    head, mark, _ = text.partition("?")
    return head + mark
