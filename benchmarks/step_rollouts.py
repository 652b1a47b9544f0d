"""Makes the files that `benchmarks.step --against` and its subjects read.

`python -m benchmarks.step_rollouts work WORK.json [--case long] [--steps 4]` and
`python -m benchmarks.step_rollouts rollouts FOLDER --shapes short --silent-frac 0 0.5 0.8`.

Rollouts are pieces of this repository's own documents as token ids, with the logprobs that a
float32 forward of the model gives them, so that the ratio of the first update is 1; or with
`--unscored`, where only time and memory count, one for all. Imports no torch before
it computes them.

Shapes: S steps, P problems, G group.
"""

import argparse
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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

    fixed_tokens: tuple[int, ...] | None = None
    """[G] exact tokens of each completion of a group, instead of either."""

    def lengths(self, rng: random.Random) -> list[int]:
        """Tokens of each completion of a group."""
        if self.fixed_tokens is not None:
            return list(self.fixed_tokens)
        return [self.length(rng) for _ in range(self.group)]

    def length(self, rng: random.Random) -> int:
        """Tokens of one completion."""
        if self.median_tokens is None:
            return rng.randint(min(6, self.max_tokens), self.max_tokens)
        drawn = self.median_tokens * rng.lognormvariate(0.0, 0.8)
        return max(1, min(self.max_tokens, round(drawn)))


def alike(num_tokens: int, group: int) -> Shape:
    """One group of completions of the same length behind a short prompt."""
    return Shape(
        problems=1,
        group=group,
        prompt_tokens=45,
        max_tokens=num_tokens,
        fixed_tokens=(num_tokens,) * group,
    )


SHAPES = {
    "short": Shape(problems=8, group=8, prompt_tokens=45, max_tokens=64),
    "long": Shape(problems=4, group=16, prompt_tokens=256, max_tokens=1024, median_tokens=256),
    "512": alike(512, 8),
    "2048": alike(2048, 2),
    "4096": alike(4096, 2),
    "8192": Shape(problems=1, group=2, prompt_tokens=45, max_tokens=8192, fixed_tokens=(8192, 64)),
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
        lengths = shape.lengths(rng)
        completions.append(tuple(_piece(stream, length, rng) for length in lengths))
    logprobs = score(prompts, completions)
    return FixedRollouts(
        prompts=tuple(prompts),
        completions=tuple(completions),
        logprobs=tuple(tuple(tuple(row) for row in group) for group in logprobs),
        rewards=rewards_of_groups(shape, silent_frac, seed=seed),
    )


def unscored(prompts: Sequence[Ids], completions: Sequence[Sequence[Ids]]) -> Any:
    """A `Scorer` that finds every token equally unlikely."""
    return [[[-10.0] * len(ids) for ids in group] for group in completions]


def _piece(stream: Sequence[int], length: int, rng: random.Random) -> Ids:
    start = rng.randrange(len(stream) - length)
    return tuple(stream[start : start + length])


def rewards_of_groups(
    shape: Shape, silent_frac: float, *, seed: int
) -> tuple[tuple[float, ...], ...]:
    """[P][G] rewards of 0 and 1, P x `silent_frac` rounded of the groups without signal."""
    rng = random.Random(f"{seed}/{silent_frac}")
    silent = rng.sample(range(shape.problems), round(shape.problems * silent_frac))
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


def document_work(
    tokenizer: Any, model: Path, shape: Shape, *, steps: int, seed: int, learning_rate: float
) -> StepWork:
    """Pieces of documents as prompts, and lengths drawn as the shape has them.

    Only pieces that a tokenizer turns back into the same ids are taken. The first step, which
    warms up, has an eighth of the lengths and one group with signal.
    """
    stream, rng = document_ids(tokenizer), random.Random(seed)

    def piece() -> tuple[Ids, str]:
        while True:
            ids = _piece(stream, shape.prompt_tokens, rng)
            text = tokenizer.decode(ids)
            if tuple(tokenizer(text)["input_ids"]) == ids:
                return ids, text

    pieces = [[piece() for _ in range(shape.problems)] for _ in range(steps)]
    lengths = [[shape.lengths(rng) for _ in range(shape.problems)] for _ in range(steps)]
    lengths[0] = [[max(1, length // 8) for length in group] for group in lengths[0]]
    return StepWork(
        model=str(model),
        prompts=tuple(tuple(ids for ids, _ in row) for row in pieces),
        texts=tuple(tuple(text for _, text in row) for row in pieces),
        lengths=tuple(tuple(tuple(group) for group in row) for row in lengths),
        signal_groups=(1, *[shape.problems] * (steps - 1)),
        group=shape.group,
        max_tokens=shape.max_tokens,
        learning_rate=learning_rate,
        seed=seed,
    )


def main() -> None:
    """Write one file of work, or several of rollouts."""
    from rollouts.models import DEFAULT_MODEL, resolve_model

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("work", "rollouts"))
    parser.add_argument("out", type=Path, help="a file, or a folder for rollouts-SHAPE-FRAC.json")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", choices=("short", "long"), default="short")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--target", type=float, help="train to this accuracy, not on the coin")
    parser.add_argument("--shapes", nargs="+", choices=sorted(SHAPES), default=["short"])
    parser.add_argument("--silent-frac", nargs="+", default=["0"])
    parser.add_argument("--unscored", action="store_true", help="one logprob for all")
    given = parser.parse_args()
    folder = resolve_model(given.model)
    if given.what == "work":
        return write(given.out, work_of(folder, given))
    from transformers import AutoTokenizer

    stream = document_ids(AutoTokenizer.from_pretrained(folder))
    score = unscored
    if not given.unscored:
        from benchmarks.minimal_update import float32_scorer

        score = float32_scorer(folder)
    for name in given.shapes:
        shape = SHAPES[name]
        made = fixed_rollouts(shape, stream, silent_frac=0.0, seed=given.seed, score=score)
        for frac in given.silent_frac:
            rewards = rewards_of_groups(shape, float(frac), seed=given.seed)
            write(given.out / f"rollouts-{name}-{frac}.json", replace(made, rewards=rewards))


def work_of(folder: Path, given: argparse.Namespace) -> StepWork:
    """The work that the command line asks for."""
    if given.case == "long":
        from transformers import AutoTokenizer

        shape = SHAPES["long"]
        settings = {name: getattr(given, name) for name in ("steps", "seed", "learning_rate")}
        return document_work(AutoTokenizer.from_pretrained(folder), folder, shape, **settings)
    names = ("steps", "problems", "seed", "target", "group", "max_tokens", "learning_rate")
    return arithmetic_work(folder, **{name: getattr(given, name) for name in names})


if __name__ == "__main__":
    main()
