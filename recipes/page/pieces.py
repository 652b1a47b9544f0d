"""The bytes behind each token id, read from tokenizer.json alone: no tokenizer is loaded.

A page shows tokens one by one, and a token may be half a character: bytes join where texts do not.
"""

import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.page.run_reader import UNREADABLE, RunReader
from rollouts.models import DEFAULT_KEY, DEFAULT_MODEL, cache_folder
from rollouts.rollout import Group

CHECKED = 64
"""Completions whose tokens must give their text before pieces are believed."""
AGREEING = 0.9
"""Of those, the share that must. The rest may end in half a character."""
_HEX_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """What tokens are made of.

    Attributes:
        of: Bytes of each token id.
        special: Ids that stand for no text, such as the end of a sequence.
    """

    of: dict[int, bytes]
    special: frozenset[int]

    def text(self, token_ids: Sequence[int]) -> str:
        """The tokens joined, special ones left out."""
        parts = (self.of.get(i, b"") for i in token_ids if i not in self.special)
        return b"".join(parts).decode("utf-8", "replace")

    def give(self, groups: Sequence[Group]) -> bool:
        """Whether they give the texts that were recorded, judged on the first few."""
        rollouts = [r for group in groups for r in group.rollouts][:CHECKED]
        same = sum(
            self.text(_sampled(r.token_ids, r.sampled)).strip("\ufffd ")
            == r.response.text.strip("\ufffd ")
            for r in rollouts
        )
        return same >= AGREEING * len(rollouts)


def find_pieces(run: RunReader) -> Pieces | None:
    """The pieces of a run's tokenizer, if it lies on this machine; nothing is downloaded."""
    for path in _candidates(run):
        try:
            return read_pieces(path)
        except UNREADABLE:
            continue
    return None


def read_pieces(path: Path) -> Pieces:
    """The pieces of a tokenizer.json. Raises one of `UNREADABLE` if it is none."""
    values = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = values["model"]["vocab"]
    if isinstance(vocabulary, list):  # a unigram model: [piece, score]
        vocabulary = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    in_bytes = '"ByteLevel"' in json.dumps(values.get("decoder"))
    table = _byte_alphabet() if in_bytes else {}
    of = {index: _bytes_of(piece, table) for piece, index in vocabulary.items()}
    added = values.get("added_tokens") or []
    of |= {token["id"]: token["content"].encode("utf-8", "replace") for token in added}
    special = frozenset(token["id"] for token in added if token.get("special"))
    return Pieces(of=of, special=special)


def _candidates(run: RunReader) -> list[Path]:
    model = str(run.config.get("model", ""))
    folders = [run.path / "final", Path(model).expanduser()]
    if model == DEFAULT_MODEL:
        folders.append(cache_folder() / DEFAULT_KEY)
    found = [path for folder in folders if (path := folder / "tokenizer.json").is_file()]
    return found or [path for path in [_from_hub_cache(model)] if path]


def _from_hub_cache(model: str) -> Path | None:
    if model.count("/") != 1 or not importlib.util.find_spec("huggingface_hub"):
        return None
    from huggingface_hub import try_to_load_from_cache

    try:
        found: Any = try_to_load_from_cache(model, "tokenizer.json")
    except ValueError:  # no such id can be
        return None
    return Path(found) if isinstance(found, str) else None


def _bytes_of(piece: str, table: dict[str, int]) -> bytes:
    if table:
        if all(char in table for char in piece):
            return bytes(table[char] for char in piece)
        return piece.encode("utf-8", "replace")
    if match := _HEX_BYTE.fullmatch(piece):
        return bytes([int(match[1], 16)])
    return piece.replace("\u2581", " ").encode("utf-8", "replace")


def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE spells each byte as one printable character (GPT-2's table)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    table = {chr(byte): byte for byte in shown}
    return table | {chr(0x100 + place): byte for place, byte in enumerate(hidden)}


def _sampled(token_ids: Sequence[int], sampled: Sequence[bool]) -> list[int]:
    return [i for i, drawn in zip(token_ids, sampled, strict=True) if drawn]
