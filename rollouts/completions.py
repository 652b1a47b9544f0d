"""What was sampled and how it was graded, kept as it happens: whole lines, and nothing twice.

Two files a trial, a JSON object a line: COMPLETIONS, written when a completion ends, and
GRADES, written when its verdict is known. A killed process leaves at most one line without its
end, which is dropped when the file is opened again.
"""

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rewards.problem import Score, Verdict

COMPLETIONS, GRADES = "completions.jsonl", "grades.jsonl"

Key = tuple[str, int]
"""(problem id, sample index): which completion of a trial."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """One completion as its file holds it.

    Example: the third sample of a problem that wrote "8" and ended: `Saved(problem="gsm8k/17",
    sample=2, seed=77, num_tokens=2, finish="stop", text="8", token_ids=(40, 2))`.
    """

    problem: str
    sample: int
    seed: int
    num_tokens: int
    finish: str
    text: str
    token_ids: tuple[int, ...]

    @property
    def key(self) -> Key:
        """Which completion this is."""
        return self.problem, self.sample


@dataclass(frozen=True, kw_only=True)
class Grade:
    """A completion's score, the answer that it votes for, and whether it has the format asked for.

    Example: `Grade(problem="gsm8k/17", sample=2, value=1.0, verdict=Verdict.CORRECT, parts={},
    answer="8", formatted=None)`.
    """

    problem: str
    sample: int
    value: float
    verdict: Verdict
    parts: dict[str, float]
    answer: str | None
    formatted: bool | None

    @property
    def key(self) -> Key:
        """Of which completion."""
        return self.problem, self.sample


class JsonLines:
    """A file that only grows, by whole lines; `dropped` tells that its last one was incomplete."""

    def __init__(self, path: Path, take: Callable[[dict[str, Any]], None]):
        """Open to append, and hand each object that is there to `take`.

        Raises:
            ValueError: A line is no JSON object, or `take` refuses it; with its number.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        size = 0
        self.dropped = False
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                self.dropped = not line.endswith(b"\n")
                if not self.dropped:
                    size += len(line)
                    _take(line, f"{path}, line {number}", take)
        self._file.truncate(size)

    def append(self, row: dict[str, Any]) -> None:
        """Write one line; a kill of this process loses it whole or not at all."""
        data = (json.dumps(row) + "\n").encode()
        if self._file.write(data) != len(data):  # a full disk takes what it can
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class Store:
    """The two files of one trial, and what of them is needed in memory.

    Attributes:
        completions: Without their ids, and without the text of those that are graded.
        grades: By the same keys; those not known yet are missing.
        notes: One line for each incomplete line that was dropped.
    """

    def __init__(self, folder: Path):
        """Open or make them. Raises ValueError for a line that is not ours."""
        self.completions: dict[Key, Saved] = {}
        self.grades: dict[Key, Grade] = {}
        self._grades = JsonLines(folder / GRADES, self._take_grade)
        self._completions = JsonLines(folder / COMPLETIONS, self._take_completion)
        for key in self.grades.keys() - self.completions.keys():
            del self.grades[key]
        self.notes = tuple(
            f"{file.path}: its last line was incomplete and is dropped; what it held is made again"
            for file in (self._completions, self._grades)
            if file.dropped
        )

    def save(self, saved: Saved) -> None:
        """Keep a completion."""
        self._completions.append(asdict(saved))
        self.completions[saved.key] = replace(saved, token_ids=())

    def grade(
        self, key: Key, score: Score, *, answer: str | None, formatted: bool | None = None
    ) -> None:
        """Keep a completion's grade; its text is let go of."""
        grade = Grade(
            problem=key[0], sample=key[1], **asdict(score), answer=answer, formatted=formatted
        )
        self._grades.append(asdict(grade))
        self.grades[key] = grade
        self.completions[key] = replace(self.completions[key], text="")

    def close(self) -> None:
        """Let go of both files."""
        self._completions.close()
        self._grades.close()

    def _take_grade(self, row: dict[str, Any]) -> None:
        grade = Grade(**{**row, "verdict": Verdict(row["verdict"])})
        # A failure of ours says nothing of the text: it is graded again.
        if not grade.verdict.is_ours:
            self.grades[grade.key] = grade

    def _take_completion(self, row: dict[str, Any]) -> None:
        saved = replace(Saved(**row), token_ids=())
        graded = saved.key in self.grades
        self.completions[saved.key] = replace(saved, text="") if graded else saved


class Texts:
    """The texts of a store's completions, read from its file when they are wanted.

    Example: `texts = Texts(folder)`, then once over `texts`, which tells where each stands, and
    `texts["gsm8k/17", 2].text` for those that are wanted again.
    """

    def __init__(self, folder: Path):
        self._path = folder / COMPLETIONS
        self._starts: dict[Key, int] = {}

    def __iter__(self) -> Iterator[Saved]:
        """Every whole completion, as they finished."""
        start = 0
        with self._path.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    saved = _saved(line)
                    self._starts[saved.key] = start
                    yield saved
                start += len(line)

    def __getitem__(self, key: Key) -> Saved:
        """One that was passed before."""
        with self._path.open("rb") as file:
            file.seek(self._starts[key])
            return _saved(file.readline())


def _saved(line: bytes) -> Saved:
    row = json.loads(line)
    return Saved(**{**row, "token_ids": tuple(row["token_ids"])})


def _take(line: bytes, place: str, take: Callable[[dict[str, Any]], None]) -> None:
    try:
        take(json.loads(line))
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(
            f"{place}: not a line that was written here; remove it, and what it held is made again"
        ) from error
