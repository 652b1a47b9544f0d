"""From run folders to what the page holds: its state, and a blob for each round.

A page that would be too large holds a sample of the rollouts, and says which; curves and the
pass-rate map are always of everything.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipes.page.blobs import encode_pieces, encode_round
from recipes.page.curves import derived, panels_json
from recipes.page.document import document
from recipes.page.pieces import Pieces, find_pieces
from recipes.page.run_reader import UNREADABLE, RunReader
from recipes.page.sampling import STATED, sampled_places
from recipes.page.summaries import RoundSummary, round_json, summarise

BASE64 = 4 / 3
TRIES = 6
MARGIN = 0.95
"""A sample aims at so much of the room, since groups differ in length."""


@dataclass(kw_only=True)
class Shown:
    """A run and what was read of it so far; a round is read once.

    Attributes:
        broken: Rounds whose file could not be read, with the reason.
        pieces: Of its tokens; None where they are not at hand or do not give the texts.
        numbers: Of (problem, source), as they were first seen.
        used: Token ids of the rounds whose blob was made.
    """

    run: RunReader
    name: str
    rounds: dict[int, RoundSummary] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)
    pieces: Pieces | None = None
    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    used: set[int] = field(default_factory=set)
    _looked: bool = False

    def refresh(
        self, seen: Callable[[int, bytes], None] | None = None, *, most_s: float = math.inf
    ) -> bool:
        """Read rounds that are new, for about `most_s` seconds; gives whether all were read.

        `seen` is handed the blob of each.
        """
        until = time.monotonic() + most_s
        for index in self.run.rounds():
            if index in self.rounds or index in self.broken:
                continue
            if time.monotonic() > until:
                return False
            try:
                groups = self.run.groups(index)
                self._find_pieces(groups)
                self.rounds[index] = summarise(groups)
                if seen:
                    self.used.update(i for g in groups for r in g.rollouts for i in r.token_ids)
                    seen(index, encode_round(groups, self.run.trained(index), self.pieces))
            except UNREADABLE as error:
                self.broken[index] = f"{type(error).__name__}: {error}"[:200]
        return True

    def blob(self, index: int, places: Sequence[int] | None = None) -> bytes:
        """A round's blob, or that of some of its groups."""
        return encode_round(self.run.groups(index), self.run.trained(index), self.pieces, places)

    def pieces_blob(self, used: Iterable[int] | None = None) -> bytes:
        """What the tokens in use are made of; by default all that the tokenizer knows."""
        pieces = self.pieces or Pieces(of={}, special=frozenset())
        return encode_pieces(pieces, pieces.of if used is None else used)

    def _find_pieces(self, groups: Sequence[Any]) -> None:
        if not self._looked:
            self._looked = True
            pieces = find_pieces(self.run)
            self.pieces = pieces if pieces and pieces.give(groups) else None

    def to_json(self, held: dict[int, list[int]] | None = None) -> dict[str, Any]:
        """What the page knows of the run; `held` are the groups it has of each round, if not all."""
        metrics = self.run.metrics()
        rounds = [
            round_json(i, self.rounds[i], self.numbers, self.run.trained_file(i).exists())
            for i in sorted(self.rounds)
        ]
        for told in rounds:
            told["held"] = None if held is None else held.get(told["round"], [])
        return {
            "name": self.name,
            "config": self.run.config,
            "versions": self.run.versions(),
            "contamination": self.run.contamination(),
            "columns": metrics.columns | derived(metrics.columns),
            "unreadable": metrics.num_unreadable,
            "ends_half": metrics.ends_half,
            "evaluations": self.run.evaluations(),
            "difference": self.run.summary().get("difference"),
            "rounds": rounds,
            "problems": [list(key) for key in self.numbers],
            "broken": {str(index): reason for index, reason in self.broken.items()},
            "has_tokens": self.pieces is not None,
            "sample": self._sample(held),
        }

    def _sample(self, held: dict[int, list[int]] | None) -> dict[str, Any] | None:
        total = sum(summary.num_rollouts for summary in self.rounds.values())
        if held is None:
            return None
        kept = sum(
            len(self.rounds[index].groups[place].verdicts)
            for index, places in held.items()
            for place in places
        )
        return {"held": kept, "of": total, "how": STATED}


def shown_runs(runs: Sequence[RunReader]) -> list[Shown]:
    """The runs under names that tell them apart."""
    names = [run.name for run in runs]
    return [
        Shown(run=run, name=name if names.count(name) == 1 else str(run.path))
        for run, name in zip(runs, names, strict=True)
    ]


def state_of(
    shown: Sequence[Shown],
    *,
    serve: bool,
    reading: bool = False,
    held: dict[str, dict[int, list[int]]] | None = None,
) -> dict[str, Any]:
    """All that the page knows before it unpacks a round; `reading`: there is more to come."""
    return {
        "serve": serve,
        "reading": reading,
        "panels": panels_json(),
        "runs": [one.to_json((held or {}).get(one.name)) for one in shown],
    }


def static_page(shown: Sequence[Shown], most_bytes: int) -> str:
    """The self-contained page of runs, at most about so large: rollouts beyond that are sampled."""
    blobs: dict[tuple[int, int], bytes] = {}
    for number, one in enumerate(shown):
        one.refresh(lambda index, blob, n=number: blobs.__setitem__((n, index), blob))
    named = [(f"pieces-{n}", one.pieces_blob(one.used)) for n, one in enumerate(shown)]
    room = most_bytes - len(document(state_of(shown, serve=False), named, serve=False))
    held, share = None, 1.0
    for _ in range(TRIES):
        size = sum(len(blob) for blob in blobs.values()) * BASE64
        if size <= max(room, 0):
            break
        share *= max(0.0, MARGIN * room / size)
        held, blobs = _sampled(shown, share)
    state = state_of(shown, serve=False, held=held)
    named += [(f"round-{number}-{index}", blob) for (number, index), blob in blobs.items()]
    return document(state, named, serve=False)


def _sampled(
    shown: Sequence[Shown], share: float
) -> tuple[dict[str, dict[int, list[int]]], dict[tuple[int, int], bytes]]:
    held: dict[str, dict[int, list[int]]] = {}
    blobs = {}
    for number, one in enumerate(shown):
        held[one.name] = {}
        for index, summary in one.rounds.items():
            places = sampled_places(summary.groups, share, run=one.name, index=index)
            held[one.name][index] = places
            if places:
                blobs[number, index] = one.blob(index, places)
    return held, blobs


def check_not_empty(shown: Sequence[Shown], paths: Sequence[Path]) -> None:
    """Raise ValueError for a run with nothing to show yet, naming it."""
    for one, path in zip(shown, paths, strict=True):
        if not one.rounds and not one.run.metrics().columns and not one.run.evaluations():
            broken = next(iter(one.broken.values()), "")
            reason = f"none of its round files can be read ({broken})" if broken else "no round yet"
            raise ValueError(f"{path} is empty: {reason}; wait for its first round, or use --serve")
