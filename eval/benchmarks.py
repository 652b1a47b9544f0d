"""Benchmarks by name: their problems, their reward, and how many samples a report draws.

    gsm8k = benchmark("gsm8k", data=data_folder(None))     # a folder, else the Hugging Face hub
    evaluate(sampler, gsm8k.problems, score=gsm8k.reward, ...)

A data set's rows, prompt and reward are defined in rollouts/tasks; here stand its split, its
place and its protocol's numbers. Leaves out templates and instructions (the caller's).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rewards.problem import Problem, RewardFn

Kind = Literal["mathematics", "choice", "program", "own"]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The problems of one benchmark, ready to be sampled and graded.

    Example: `benchmark("aime_2024")` has 30 problems, kind "mathematics", votes, 64 samples.

    Attributes:
        name: As it was asked for; the first part of every problem's id.
        split: The data's own name of the rows: "test", or "train" where the hub calls it so.
        problems: In the order of the rows; prompts are bare questions unless `kind` says more.
        reward: `(Problem, Response) -> Score`; a bound method or function that can be pickled.
        kind: What a protocol adds to the prompt. mathematics: a question, asks for a boxed
            answer; choice: a question with lettered options, asks for the letter; program and
            own: the prompt says what to give, add nothing.
        votes: Whether answers can be equal, so that maj@k means something.
        num_samples: Samples a problem in DeepSeek-R1's protocol: 64, 16 or 8.
        origin: The file or hub data set that the rows were read from; "generated" for none.
        notes: What a reader of the score must know, such as rows left out, each a sentence.
    """

    name: str
    split: str
    problems: tuple[Problem, ...]
    reward: RewardFn
    kind: Kind
    votes: bool
    num_samples: int
    origin: str
    notes: tuple[str, ...] = ()

    def digest(self) -> str:
        """SHA-256 over ids, prompts and reference answers, in order: equal rows, equal digest."""
        raise NotImplementedError

    def sample(self, num_problems: int) -> "Benchmark":
        """So many of its problems, drawn once: the same in every run; all if it has fewer."""
        raise NotImplementedError


def data_folder(given: str | Path | None) -> Path | None:
    """The folder of `<data set>/<split>.jsonl`: the one given, else GROUPWISE_DATA, else None.

    Raises:
        ValueError: It is not a folder.
    """
    raise NotImplementedError


def benchmark_names() -> tuple[str, ...]:
    """All names that `benchmark` knows, in the order of its table."""
    raise NotImplementedError


def benchmark(name: str, *, data: Path | None = None, seed: int = 0) -> Benchmark:
    """The benchmark of that name, from `data` if the folder holds it, else from the hub.

    `name` may also be a file (.jsonl, .json, .csv, .parquet) with columns named behind colons:
    "my.jsonl:prompt=question:answer=gold", and `id=`, `reward=math|numeric`, `name=`.

    Args:
        data: As `data_folder` gives it.
        seed: Of the order of choices in gpqa_diamond; no other benchmark depends on it.

    Raises:
        ValueError: An unknown name (with the nearest), rows that cannot be had (with the file
            that would serve), a row without an answer (with its file and line).
    """
    raise NotImplementedError
