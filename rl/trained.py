"""The second file of a round: what the trainer made of each completion that it trained on.

It is written after the round's updates, for those who look at a run; no run reads it back.
Completions that moved nothing (no signal in their group, masked, not graded) are not in it.
"""

import base64
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One completion as an update saw it.

    Example: the third completion of a round's first group, of two tokens, in the second update:
    `Trained(group=0, sample=2, update=1, advantage=-0.71, logprobs=[-0.11 -0.02])`.

    Attributes:
        group, sample: Its place in the round file.
        update: Which of the round's updates trained on it, from 0.
        advantage: Of all its tokens.
        logprobs: The trainer's, of its sampled tokens in order, float32.
    """

    group: int
    sample: int
    update: int
    advantage: float
    logprobs: np.ndarray


def encode_trained(rows: Iterable[Trained]) -> bytes:
    """The bytes of the file: one JSON line a completion, its logprobs as base64 of little-endian floats."""
    lines = "".join(json.dumps(_to_json(row)) + "\n" for row in rows)
    return zstandard.ZstdCompressor(level=3).compress(lines.encode())


def read_trained(path: Path) -> list[Trained]:
    """The completions of a second file, in the order in which they were written."""
    with path.open("rb") as file:
        text = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
        return [_from_json(json.loads(line)) for line in text]


def _to_json(row: Trained) -> dict[str, object]:
    packed = base64.b64encode(row.logprobs.astype("<f4").tobytes()).decode()
    return {
        "group": row.group,
        "sample": row.sample,
        "update": row.update,
        "advantage": row.advantage,
        "logprobs": packed,
    }


def _from_json(row: dict[str, object]) -> Trained:
    logprobs = np.frombuffer(base64.b64decode(str(row["logprobs"])), dtype="<f4")
    return Trained(**{**row, "logprobs": logprobs})
