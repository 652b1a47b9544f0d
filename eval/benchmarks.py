"""Benchmarks by name: their problems, their reward, and how many samples a report draws.

    gsm8k = benchmark("gsm8k", data=data_folder(None))     # a folder, else the Hugging Face hub
    evaluate(sampler, gsm8k.problems, score=gsm8k.reward, ...)

A data set's rows, prompt and reward are defined in rollouts/tasks; which task a name means, in
eval/benchmark_tasks.py. Leaves out templates and instructions (the caller's).
"""

import json
import os
from dataclasses import dataclass, replace
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from random import Random

from eval.benchmark_tasks import BENCHMARKS, Entry, Kind, entry_of_file
from rewards.problem import Problem, RewardFn
from rollouts.tasks.dataset import Dataset, scores_itself
from rollouts.tasks.programs import Programs
from rollouts.tasks.rows import READERS, HubUnreachable, MissingField, RowSource, read_rows

VARIABLE = "GROUPWISE_DATA"
NAMED = 5
"""So many of the rows that a note is about are named."""


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
        digest = sha256()
        for problem in self.problems:  # one by one: LiveCodeBench's answers have hundreds of MB
            row = json.dumps([problem.id, problem.prompt, problem.answer])
            digest.update(f"{row}\n".encode())
        return digest.hexdigest()

    def sample(self, num_problems: int) -> "Benchmark":
        """So many of its problems, drawn once: the same in every run; all if it has fewer.

        Raises:
            ValueError: `num_problems` is less than 1.
        """
        if num_problems < 1:
            raise ValueError(f"{num_problems} problems of {self.name}; ask for 1 or more")
        if num_problems >= len(self.problems):
            return self
        drawn = list(range(len(self.problems)))
        Random("evaluation").shuffle(drawn)
        kept = tuple(self.problems[i] for i in sorted(drawn[:num_problems]))
        note = f"{num_problems} of its {len(self.problems)} problems, drawn once for all runs"
        return replace(self, problems=kept, notes=(*self.notes, note))


def data_folder(given: str | Path | None) -> Path | None:
    """The folder of `<data set>/<split>.jsonl`: the one given, else GROUPWISE_DATA, else None.

    Raises:
        ValueError: It is not a folder.
    """
    place, name = (given, "--data") if given else (os.environ.get(VARIABLE), VARIABLE)
    if not place:
        return None
    folder = Path(place).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"{name} is {str(place)!r}, which is no folder; give one that holds "
            "<data set>/<split>.jsonl, or leave it out to read from the hub"
        )
    return folder


def benchmark_names() -> tuple[str, ...]:
    """All names that `benchmark` knows, in the order of its table."""
    return tuple(BENCHMARKS)


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
    if Path(name.partition(":")[0]).suffix in READERS:
        entry = entry_of_file(name)
        return _from_rows(entry.task.name, entry, entry.task, entry.task.path)
    if name not in BENCHMARKS:
        nearest = get_close_matches(name.lower(), BENCHMARKS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown benchmark {name!r}; did you mean {nearest!r}? It is one of "
            f"{', '.join(BENCHMARKS)}, or a file such as my.jsonl:prompt=question:answer=gold"
        )
    entry = BENCHMARKS[name]
    if not isinstance(entry.task, RowSource):
        problems = tuple(entry.task.problems("test"))
        return _made(name, entry, "test", problems, "generated", ())
    task = replace(entry.task, name=name, **({"seed": seed} if hasattr(entry.task, "seed") else {}))
    place = _file_in(data, name, task.test_split)
    if place:
        return _from_rows(name, entry, replace(task, path=str(place), subset=""), str(place))
    hub = f"{task.path}/{task.subset}" if task.subset else task.path
    try:
        return _from_rows(name, entry, task, hub)
    except HubUnreachable as error:
        folder = data or "FOLDER"
        raise ValueError(
            f"{name}: {error.reason}. Its rows as {folder}/{name}/{task.test_split}.jsonl would serve, "
            f"with --data {folder} or {VARIABLE}={folder}"
            f"{'; ' + entry.access if entry.access else ''}"
        ) from error


def _file_in(data: Path | None, name: str, split: str) -> Path | None:
    """The file of a benchmark's split in the folder of data, if it is there."""
    places = [data / name / f"{split}{ending}" for ending in READERS] if data else []
    return next((place for place in places if place.is_file()), None)


def _from_rows(name: str, entry: Entry, task: Dataset | Programs, origin: str) -> Benchmark:
    """Every row as a problem; one whose question was there before has "#2" behind its id."""
    problems: list[Problem] = []
    times: dict[str, int] = {}
    left_out: list[str] = []
    unscored: list[str] = []
    for place, row in read_rows(task.path, task.subset, task.test_split):
        try:
            _, problem = task.problem(row, place)
        except MissingField:
            raise
        except ValueError as error:
            if not isinstance(task, Programs):
                raise
            left_out.append(f"{task.id_of(row, place)} ({error})")
            continue
        times[problem.id] = times.get(problem.id, 0) + 1
        if times[problem.id] > 1:
            problem = replace(problem, id=f"{problem.id}#{times[problem.id]}")
        if isinstance(task, Dataset) and not scores_itself(task, problem):
            unscored.append(f"{problem.id} ({problem.answer[:40]!r})")
        problems.append(problem)
    if not problems:
        raise ValueError(
            f"{name}: {origin} has no problem that can be graded"
            f"{': ' + left_out[0] if left_out else ''}; look at its rows"
        )
    total = len(problems) + len(left_out)
    notes = [entry.note] if entry.note else []
    notes += _note(left_out, total, "left out, their tests cannot be run apart from a solution")
    notes += _note(unscored, total, "kept, though not even their reference scores 1")
    return _made(name, entry, task.test_split, tuple(problems), origin, tuple(notes))


def _note(rows: list[str], total: int, what: str) -> list[str]:
    if not rows:
        return []
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return [f"{len(rows)} of {total} rows {what}: {', '.join(rows[:NAMED])}{more}"]


def _made(
    name: str,
    entry: Entry,
    split: str,
    problems: tuple[Problem, ...],
    origin: str,
    notes: tuple[str, ...],
) -> Benchmark:
    return Benchmark(
        name=name,
        split=split,
        problems=problems,
        reward=entry.task.score,
        kind=entry.kind,
        votes=entry.votes,
        num_samples=entry.num_samples,
        origin=origin,
        notes=notes,
    )
