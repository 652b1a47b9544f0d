"""Makes the files that `benchmarks.step --against` and its subjects read.

`python -m benchmarks.step_rollouts work WORK.json [--steps 7]` and
`python -m benchmarks.step_rollouts rollouts ROLLOUTS.json --shape long --silent-frac 0.5`.

Rollouts are pieces of this repository's own documents as token ids, with the logprobs that a
float32 forward of the model gives them, so that the ratio of the first update is 1. Imports no
torch before it computes them.

Shapes: P problems, G group.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.step_work import FixedRollouts, StepWork, TimeToAccuracy, write

ROOT = Path(__file__).resolve().parent.parent
Ids = tuple[int, ...]
Scorer = Callable[[Sequence[Ids], Sequence[Sequence[Ids]]], Sequence[Sequence[Sequence[float]]]]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a batch of rollouts."""

    problems: int
    group: int
    prompt_tokens: int
    max_tokens: int
    median_tokens: int | None = None
    """Of log-normal lengths with sigma 0.8, cut off at `max_tokens`; None: uniform from 6 on."""

    def length(self, rng: random.Random) -> int:
        """Tokens of one completion."""
        if self.median_tokens is None:
            return rng.randint(min(6, self.max_tokens), self.max_tokens)
        drawn = self.median_tokens * rng.lognormvariate(0.0, 0.8)
        return max(1, min(self.max_tokens, round(drawn)))


SHAPES = {
    "short": Shape(problems=8, group=8, prompt_tokens=45, max_tokens=64),
    "long": Shape(problems=4, group=16, prompt_tokens=256, max_tokens=1024, median_tokens=256),
}


def fixed_rollouts(
    shape: Shape, stream: Sequence[int], *, silent_frac: float, seed: int, score: Scorer
) -> FixedRollouts:
    """Rollouts cut out of a stream of token ids at random places.

    Args:
        stream: Real text as ids, longer than a prompt with the longest completion.
        silent_frac: Of the groups, those whose rewards are all equal (0 and 1 in turn);
            P x silent_frac is rounded, the others draw 1 to G - 1 rewards of 1.
        score: Logprobs of completions [P][G] behind prompts [P].
    """
    rng = random.Random(seed)
    need = shape.prompt_tokens + shape.max_tokens
    if len(stream) <= need:
        raise ValueError(f"the stream has {len(stream)} ids; a sequence may take {need}")
    prompts, completions = [], []
    for _ in range(shape.problems):
        prompts.append(_piece(stream, shape.prompt_tokens, rng))
        lengths = [shape.length(rng) for _ in range(shape.group)]
        completions.append(tuple(_piece(stream, length, rng) for length in lengths))
    logprobs = score(prompts, completions)
    return FixedRollouts(
        prompts=tuple(prompts),
        completions=tuple(completions),
        logprobs=tuple(tuple(tuple(row) for row in group) for group in logprobs),
        rewards=_rewards(shape, round(shape.problems * silent_frac), rng),
    )


def _piece(stream: Sequence[int], length: int, rng: random.Random) -> Ids:
    start = rng.randrange(len(stream) - length)
    return tuple(stream[start : start + length])


def _rewards(shape: Shape, num_silent: int, rng: random.Random) -> tuple[tuple[float, ...], ...]:
    silent = rng.sample(range(shape.problems), num_silent)
    rewards = []
    for group in range(shape.problems):
        if group in silent:
            rewards.append((float(silent.index(group) % 2),) * shape.group)
            continue
        right = set(rng.sample(range(shape.group), rng.randint(1, shape.group - 1)))
        rewards.append(tuple(float(i in right) for i in range(shape.group)))
    return tuple(rewards)


def document_ids(tokenizer: Any) -> list[int]:
    """The repository's documents as one stream of ids."""
    files = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n\n".join(file.read_text() for file in files)
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def arithmetic_work(
    model: Path, *, steps: int, problems: int, seed: int, target: float | None, **settings: Any
) -> StepWork:
    """Training problems of the quickstart, none twice, rendered by the model's own template.

    Args:
        target: Accuracy to be reached (`TimeToAccuracy`), or None for the coin.
        settings: Other fields of `StepWork`.
    """
    from transformers import AutoTokenizer

    from rollouts.prompts import PromptConfig, Renderer
    from rollouts.tasks.arithmetic import Arithmetic

    drawn = Arithmetic(add_max=45).problems("train")
    if len(drawn) < steps * problems:
        raise ValueError(f"there are {len(drawn)} problems, {steps * problems} were asked for")
    random.Random(seed).shuffle(drawn)
    render = Renderer(tokenizer=AutoTokenizer.from_pretrained(model), config=PromptConfig())
    rows = [drawn[i * problems : (i + 1) * problems] for i in range(steps)]
    answers = tuple(tuple(problem.answer for problem in row) for row in rows)
    return StepWork(
        model=str(model),
        prompts=tuple(tuple(render.ids(problem) for problem in row) for row in rows),
        texts=tuple(tuple(render.text(problem) for problem in row) for row in rows),
        seed=seed,
        time_to_accuracy=None if target is None else TimeToAccuracy(answers=answers, target=target),
        **settings,
    )


def main() -> None:
    """Write one file."""
    from rollouts.models import DEFAULT_MODEL, resolve_model

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("work", "rollouts"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--target", type=float, help="train to this accuracy, not on the coin")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="short")
    parser.add_argument("--silent-frac", type=float, default=0.0)
    given = parser.parse_args()
    folder = resolve_model(given.model)
    if given.what == "work":
        settings = {
            name: getattr(given, name)
            for name in ("steps", "problems", "seed", "target", "group", "max_tokens")
        }
        work = arithmetic_work(folder, learning_rate=given.learning_rate, **settings)
        return write(given.out, work)
    from transformers import AutoTokenizer

    from benchmarks.minimal_update import float32_scorer

    stream = document_ids(AutoTokenizer.from_pretrained(folder))
    write(
        given.out,
        fixed_rollouts(
            SHAPES[given.shape],
            stream,
            silent_frac=given.silent_frac,
            seed=given.seed,
            score=float32_scorer(folder),
        ),
    )


if __name__ == "__main__":
    main()
