"""Which task, kind of prompt and number of samples each benchmark's name means.

Hub ids, columns and splits are those of the versions that reports commonly use. Samples are
DeepSeek-R1's: 64 for AIME and GPQA, 16 for MATH, 8 for LiveCodeBench; sets that it does not name
have 64 up to 50 problems, 16 up to 1,000, else 8.
"""

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

from rollouts.tasks.arithmetic import Arithmetic
from rollouts.tasks.countdown import Countdown
from rollouts.tasks.dataset import REWARDS, Competition, Dataset, Gsm8k
from rollouts.tasks.gpqa import Gpqa
from rollouts.tasks.ifeval import IfEval
from rollouts.tasks.instructions import Instructions
from rollouts.tasks.livecodebench import LiveCodeBench
from rollouts.tasks.olympiad import Olympiad
from rollouts.tasks.programs import HumanEval, Mbpp
from rollouts.tasks.steps import Steps

Kind = Literal["mathematics", "choice", "program", "own"]

FILE_FIELDS = {
    "prompt": "prompt_column",
    "answer": "answer_column",
    "id": "id_column",
    "reward": "reward",
    "name": "name",
}
"""What may stand behind a file's name, and the field of Dataset that it sets."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the table.

    Attributes:
        task: Rows, prompt and reward; its name and place are replaced by the benchmark's.
        kind, votes, num_samples: As in `eval.benchmarks.Benchmark`.
        note: What a reader of any score on it must know.
        access: What the hub wants before it gives the rows.
    """

    task: Any
    kind: Kind = "mathematics"
    votes: bool = True
    num_samples: int
    note: str = ""
    access: str = ""


def _questions(
    path: str, prompt: str = "problem", answer: str = "answer", **fields: Any
) -> Dataset:
    given = {"test_split": "test", **fields}
    return Dataset(path=path, train_split="", prompt_column=prompt, answer_column=answer, **given)


BENCHMARKS: dict[str, Entry] = {
    "math500": Entry(task=_questions("HuggingFaceH4/MATH-500"), num_samples=16),
    "aime_2024": Entry(
        task=_questions("HuggingFaceH4/aime_2024", test_split="train"), num_samples=64
    ),
    "aime_2025": Entry(task=_questions("MathArena/aime_2025", test_split="train"), num_samples=64),
    "amc23": Entry(task=_questions("math-ai/amc23", "question"), num_samples=64),
    "gsm8k": Entry(task=replace(Gsm8k(), train_split=""), num_samples=8),
    "minervamath": Entry(task=_questions("math-ai/minervamath", "question"), num_samples=16),
    "olympiadbench": Entry(task=Olympiad(), num_samples=16),
    "math": Entry(task=replace(Competition(), train_split=""), num_samples=16),
    "svamp": Entry(
        task=_questions("ChilleD/SVAMP", "question_concat", "Answer", reward="numeric"),
        num_samples=16,
        note="copies differ in their test rows (300 or all 1,000); compare on equal digests only",
    ),
    "humaneval": Entry(task=HumanEval(), kind="program", votes=False, num_samples=16),
    "mbpp": Entry(
        task=replace(Mbpp(), subset="full", train_split=""),
        kind="program",
        votes=False,
        num_samples=16,
    ),
    "mbpp_sanitized": Entry(
        task=replace(Mbpp(), train_split=""), kind="program", votes=False, num_samples=16
    ),
    "gpqa_diamond": Entry(
        task=Gpqa(),
        kind="choice",
        num_samples=64,
        note="its authors ask that its questions not be published in plain text",
        access="the hub gives it after its terms are accepted on its page and `hf auth login`",
    ),
    "livecodebench": Entry(task=LiveCodeBench(), kind="program", votes=False, num_samples=8),
    "ifeval": Entry(
        task=IfEval(),
        kind="own",
        votes=False,
        num_samples=16,
        note="pass@1 is prompt-strict accuracy; prompt-loose and the shares of instructions are parts",
    ),
    "arithmetic": Entry(task=Arithmetic(), kind="own", num_samples=16),
    "instructions": Entry(task=Instructions(), kind="own", votes=False, num_samples=16),
    "steps": Entry(task=Steps(), kind="own", num_samples=16),
    "countdown": Entry(task=Countdown(), kind="own", votes=False, num_samples=16),
}
"""By name, in the order in which they are shown."""


def entry_of_file(text: str) -> Entry:
    """The entry of a file of questions: "my.jsonl:prompt=question:answer=gold".

    Raises:
        ValueError: An unknown or repeated name behind a colon, with the nearest.
    """
    path, *parts = text.split(":")
    fields: dict[str, Any] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if key not in FILE_FIELDS or not equals or not value:
            nearest = get_close_matches(key, FILE_FIELDS, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"{text!r}: {part!r} is not understood; did you mean {nearest}=...? Behind a file "
                f"may stand {', '.join(name + '=' for name in FILE_FIELDS)}"
            )
        fields[FILE_FIELDS[key]] = value
    if fields.get("reward", "math") not in REWARDS:
        raise ValueError(
            f"{text!r}: reward is {fields['reward']!r}; it is one of {', '.join(REWARDS)}"
        )
    task = Dataset(path=path, train_split="", test_split="test", **fields)
    return Entry(task=task, num_samples=8)
