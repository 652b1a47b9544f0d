"""A round's groups as one zstd-compressed JSON-lines file, one group a line, written whole.

Logprobs survive to the last bit: JSON holds Python's shortest exact form of each float.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import zstandard

from rewards.problem import Problem, Response, Score, Verdict
from rollouts.rollout import Group, Rollout

MAX_HEAD_BYTES = 18
"""Of a zstd frame's header, which holds the size of its content."""


def encode_groups(groups: Sequence[Group]) -> bytes:
    """The bytes of a round file."""
    lines = (json.dumps(_group_to_json(group), ensure_ascii=True) + "\n" for group in groups)
    return zstandard.ZstdCompressor(level=3).compress("".join(lines).encode())


def read_groups(path: Path) -> list[Group]:
    """The groups of a round file, in draw order. Raises ValueError if it was cut off."""
    with path.open("rb") as file:
        size = zstandard.frame_content_size(file.read(MAX_HEAD_BYTES))
        file.seek(0)
        reader = zstandard.ZstdDecompressor().stream_reader(file, closefd=False)
        text = io.TextIOWrapper(reader, encoding="utf-8")
        groups = [_group_from_json(json.loads(line)) for line in text]
        if -1 < size != reader.tell():  # zstandard ends silently where a file does
            raise ValueError(f"{path} was cut off: it holds {reader.tell()} of {size} bytes")
        return groups


def _group_to_json(group: Group) -> dict[str, Any]:
    return {
        "problem": asdict(group.problem),
        "rollouts": [_rollout_to_json(rollout) for rollout in group.rollouts],
    }


def _rollout_to_json(rollout: Rollout) -> dict[str, Any]:
    """Masks as spans and logprobs only where sampled: half the size of aligned arrays."""
    return {
        "token_ids": rollout.token_ids,
        "sampled": _spans(rollout.sampled),
        "logprobs": [
            p for p, drawn in zip(rollout.logprobs, rollout.sampled, strict=True) if drawn
        ],
        "response": asdict(rollout.response),
        "score": asdict(rollout.score),
        "versions": rollout.versions,
    }


def _group_from_json(row: dict[str, Any]) -> Group:
    problem = dict(row["problem"])
    if isinstance(problem["prompt"], list):
        problem["prompt"] = tuple(problem["prompt"])
    rollouts = tuple(_rollout_from_json(item) for item in row["rollouts"])
    return Group(problem=Problem(**problem), rollouts=rollouts)


def _rollout_from_json(row: dict[str, Any]) -> Rollout:
    size = len(row["token_ids"])
    sampled = [False] * size
    for start, stop in row["sampled"]:
        sampled[start:stop] = [True] * (stop - start)
    drawn = iter(row["logprobs"])
    score = {**row["score"], "verdict": Verdict(row["score"]["verdict"])}
    return Rollout(
        token_ids=tuple(row["token_ids"]),
        sampled=tuple(sampled),
        logprobs=tuple(next(drawn) if flag else 0.0 for flag in sampled),
        response=Response(**row["response"]),
        score=Score(**score),
        versions=tuple(tuple(span) for span in row["versions"]),
    )


def _spans(mask: Sequence[bool]) -> list[tuple[int, int]]:
    """Half-open [start, stop) runs of True."""
    edges = [i for i in range(len(mask) + 1) if _at(mask, i - 1) != _at(mask, i)]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _at(mask: Sequence[bool], index: int) -> bool:
    return 0 <= index < len(mask) and mask[index]
