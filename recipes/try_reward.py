"""Replay a reward over rollouts that were saved: what it would have said, before it trains.

`python -m recipes.try_reward package.module:function PATH [--workers N] [--deadline-s S]
[--limit N]`. PATH is a run folder, one of its round files, or a .jsonl file whose rows have
prompt, answer and response, and, if known, reward. Neither a model nor torch is loaded.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby, islice
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from recipes.cli import guarded
from rewards.adapters import adapted, load_reward
from rewards.pool import RewardPool, ScoringConfig, num_workers
from rewards.problem import Problem, Response, Score
from rollouts.records import read_groups

MAX_SHOWN = 5
MAX_VALUES = 12
TOLERANCE = 1e-9
RESPONSE_FIELDS = ("response", "completion", "text")


@dataclass(frozen=True, kw_only=True)
class Saved:
    """The saved responses to one problem, with the values that were recorded.

    Example: two rows of a .jsonl file with the same prompt, the second without a reward:
    `Saved(problem=..., responses=(..., ...), recorded=(1.0, None))`.
    """

    problem: Problem
    responses: tuple[Response, ...]
    recorded: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """One response scored again.

    Attributes:
        recorded: The value that was saved, or None.
        failure: What went wrong, "" if nothing did.
        seconds: That it took; for rewards of whole groups, the group's.
    """

    problem: Problem
    response: Response
    score: Score
    recorded: float | None
    failure: str
    seconds: float

    @property
    def differs(self) -> bool:
        """True if another value was recorded."""
        return self.recorded is not None and abs(self.recorded - self.score.value) > TOLERANCE


def read_saved(path: Path) -> Iterator[Saved]:
    """The groups of a run folder, a round file or a .jsonl file, in order.

    Raises:
        ValueError: PATH is none of these, or a row lacks a field.
    """
    if (path / "rollouts").is_dir():
        files = sorted((path / "rollouts").glob("round-*.jsonl.zst"))
        if not files:
            raise ValueError(f"{path} holds no rollouts yet")
    elif path.is_file():
        files = [path]
    else:
        raise ValueError(f"{path} is no run folder and no file: name either")
    for file in files:
        yield from _rounds(file) if file.suffix == ".zst" else _rows(file)


def replay(saved: Sequence[Saved], reward: str, scoring: ScoringConfig) -> list[Replayed]:
    """Score everything again with `package.module:function`, in the order given.

    Raises:
        ValueError: It is no reward.
    """
    with RewardPool(adapted(load_reward(reward)), scoring) as pool:
        asked = []
        for group in saved:
            size = len(group.responses) if pool.takes_group else 1
            for start in range(0, len(group.responses), size):
                cut = slice(start, start + size)
                future = pool.examine(group.problem, group.responses[cut])
                asked.append((group, cut, future))
        found = []
        for group, cut, future in asked:
            outcome = future.result()
            triples = zip(group.responses[cut], outcome.scores, group.recorded[cut], strict=True)
            found += [
                Replayed(
                    problem=group.problem,
                    response=response,
                    score=score,
                    recorded=recorded,
                    failure=outcome.failure,
                    seconds=outcome.seconds,
                )
                for response, score, recorded in triples
            ]
        return found


def report(found: Sequence[Replayed]) -> str:
    """What the reward said, in lines for a person."""
    sections = [_values(found), _verdicts(found), _slowest(found)]
    sections += [_failures(found), _disagreements(found)]
    return "\n".join(line for section in sections for line in section)


def main(argv: Sequence[str]) -> None:
    """Read, score, print. Raises ValueError for a person's mistake."""
    parser = argparse.ArgumentParser(prog="python -m recipes.try_reward", description=__doc__)
    parser.add_argument("reward", help="package.module:function")
    parser.add_argument("path", type=Path, help="run folder, round file or .jsonl file")
    parser.add_argument("--workers", type=int, default=None, help="processes; one a core")
    parser.add_argument("--deadline-s", type=float, default=ScoringConfig.deadline_s)
    parser.add_argument("--limit", type=int, default=None, help="groups, the first so many")
    given = parser.parse_args(argv)
    if given.workers == 0:
        raise ValueError("--workers is 0: a reward is tried in a process of its own; use 1 or more")
    scoring = ScoringConfig(workers=given.workers, deadline_s=given.deadline_s)
    saved = list(islice(read_saved(given.path), given.limit))
    count = sum(len(group.responses) for group in saved)
    print(f"{count} responses, {len(saved)} groups; processes: {num_workers(scoring)}", flush=True)
    if count:
        print(report(replay(saved, given.reward, scoring)))


def _rounds(file: Path) -> Iterator[Saved]:
    for group in read_groups(file):
        yield Saved(
            problem=group.problem,
            responses=tuple(rollout.response for rollout in group.rollouts),
            recorded=group.rewards,
        )


def _rows(file: Path) -> Iterator[Saved]:
    """Rows with the same prompt and answer that follow each other are a group."""
    with file.open("rb") as lines:
        rows = [
            _row(line, f"{file}, line {number}")
            for number, line in enumerate(lines, start=1)
            if line.strip()
        ]
    for problem, members in groupby(rows, key=lambda row: row[0]):
        kept = list(members)
        yield Saved(
            problem=problem,
            responses=tuple(response for _, response, _ in kept),
            recorded=tuple(value for _, _, value in kept),
        )


def _row(line: bytes, place: str) -> tuple[Problem, Response, float | None]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place}: not valid JSON ({error})") from error
    name = next((n for n in RESPONSE_FIELDS if isinstance(row, dict) and n in row), None)
    if name is None or "prompt" not in row or "answer" not in row:
        has = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(f"{place}: prompt, answer and response are needed; it has {has}")
    prompt = row["prompt"] if isinstance(row["prompt"], str) else tuple(row["prompt"])
    known = sha256(repr((prompt, row["answer"])).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    problem = Problem(
        id=str(row.get("id", known)),
        prompt=prompt,
        answer=str(row["answer"]),
        source=str(row.get("source", "")),
    )
    response = Response(text=str(row[name]), prefill=str(row.get("prefill", "")))
    recorded: Any = row.get("reward")
    if recorded is not None and not isinstance(recorded, int | float):
        raise ValueError(f"{place}: reward is {recorded!r}; a number is needed")
    return problem, response, recorded


def _values(found: Sequence[Replayed]) -> Iterator[str]:
    values = [item.score.value for item in found]
    yield (
        f"value     mean {fmean(values):.4f}, std {pstdev(values):.4f}, "
        f"min {min(values):g}, max {max(values):g}"
    )
    counts = Counter(round(value, 6) for value in values)
    if len(counts) > MAX_VALUES:
        width = (max(values) - min(values)) / 10
        counts = Counter(
            min(values) + width * min(int((v - min(values)) / width), 9) for v in values
        )
        yield f"          in tenths, {width:g} wide:"
    for value, count in sorted(counts.items()):
        yield f"  {value:>10.4g}  {count:>7}  {'#' * round(40 * count / len(values))}"
    parts: dict[str, list[float]] = {}
    for item in found:
        for name, part in item.score.parts.items():
            parts.setdefault(name, []).append(part)
    for name, part_values in sorted(parts.items()):
        yield f"  part {name}: mean {fmean(part_values):.4f} of {len(part_values)}"


def _verdicts(found: Sequence[Replayed]) -> Iterator[str]:
    counts = Counter(item.score.verdict for item in found).most_common()
    yield "verdict   " + ", ".join(f"{verdict} {count}" for verdict, count in counts)


def _slowest(found: Sequence[Replayed]) -> Iterator[str]:
    slowest = sorted(found, key=lambda item: -item.seconds)[:MAX_SHOWN]
    yield f"slowest   of {sum(item.seconds for item in found):.2f} s in all"
    for item in slowest:
        yield f"  {1e3 * item.seconds:>9.1f} ms  {_described(item)}"


def _failures(found: Sequence[Replayed]) -> Iterator[str]:
    failures: dict[str, list[Replayed]] = {}
    for item in found:
        if item.failure:
            failures.setdefault(item.failure, []).append(item)
    yield f"failures  {sum(map(len, failures.values()))}"
    for failure, items in sorted(failures.items(), key=lambda pair: -len(pair[1]))[:MAX_SHOWN]:
        yield f"  {len(items):>7} x {ascii(failure)[1:-1]}; the first: {_described(items[0])}"


def _disagreements(found: Sequence[Replayed]) -> Iterator[str]:
    known = [item for item in found if item.recorded is not None]
    differing = [item for item in known if item.differs]
    yield f"recorded  {len(known)} values, {len(differing)} of them differ"
    for item in differing[:MAX_SHOWN]:
        yield f"  recorded {item.recorded:g}, now {item.score.value:g}  {_described(item)}"


def _described(item: Replayed) -> str:
    """The problem and the end of the response, in printable ASCII: it is hostile."""
    return f"{item.problem.id!a} {item.response.text[-60:]!a}"


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
