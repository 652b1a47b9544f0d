"""Packed rows: what one forward pass computes, each prompt once with its completions behind it.

Positions restart at every prompt's end, so that each completion computes what it would compute
alone. Nothing is padded but the row's end.

Shapes: T tokens of a batch, U places of the row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rl.packing import Batch

ROW_MULTIPLE = 64
"""Rows are filled up to a multiple of so many tokens: oneDNN compiles kernels for every shape that
it meets and keeps a thousand of them, which is time and memory."""


class Span(NamedTuple):
    """Places [start, stop) of the row, the first of them at `position` of its sequence."""

    start: int
    stop: int
    position: int


class Family(NamedTuple):
    """A prompt and the completions that share it; they follow it and each other in the row."""

    prompt: Span
    completions: tuple[Span, ...]


@dataclass(frozen=True, kw_only=True)
class RowLayout:
    """Who attends to whom in a row: each completion to its family's prompt and to itself.

    Example: a prompt of 2 with completions of 2 and 1, alone in a row of 64: family (0 x 5, -1 x 59),
    completion (-1, -1, 0, 0, 1, -1 x 59), positions (0, 1, 2, 3, 2, 0 x 59), longest 4.

    Attributes:
        families: In row order. At least one place at the row's end is filling.
        family: [U] the family of each place; -1 for filling.
        completion: [U] counts the completions of the row; -1 for prompts and filling.
        positions: [U] in the place's own sequence.
        longest: Tokens of the longest sequence.
        plans: What an attention path has worked out for this row, by its settings.
    """

    families: tuple[Family, ...]
    family: Tensor
    completion: Tensor
    positions: Tensor
    longest: int
    plans: dict[Any, Any] = field(default_factory=dict)

    @staticmethod
    def of(families: Sequence[Family], size: int) -> "RowLayout":
        """The layout of these families in a row of `size` places."""
        positions = torch.zeros(size, dtype=torch.int64)
        owner, completion = torch.full((2, size), -1)
        count = 0
        for index, family in enumerate(families):
            for span in (family.prompt, *family.completions):
                owner[span.start : span.stop] = index
                positions[span.start : span.stop] = (
                    torch.arange(span.stop - span.start) + span.position
                )
            for span in family.completions:
                completion[span.start : span.stop] = count
                count += 1
        return RowLayout(
            families=tuple(families),
            family=owner,
            completion=completion,
            positions=positions,
            longest=int(positions.max()) + 1,
        )


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one forward pass computes.

    Example: sequences (5, 6, 8, 2) and (5, 6, 9) whose first two tokens are their prompt:
    token_ids (5, 6, 8, 2, 9), positions (0, 1, 2, 3, 2), places (0, 1, 2, 3, 0, 1, 4), then filling.

    Attributes:
        token_ids, positions: [U].
        places: [T] where each token of the batch stands in the row.
    """

    token_ids: Tensor
    positions: Tensor
    places: Tensor
    layout: RowLayout


def make_row(batch: Batch, *, share: bool = True) -> Row:
    """The row of a batch; with `share`, equal prompts are computed once.

    A prompt is what comes before a sequence's first sampled token.
    """
    ids, device = batch.token_ids.tolist(), batch.token_ids.device
    families: dict[tuple[int, ...], list[range]] = {}
    start = 0
    for length, prompt in zip(batch.lengths, batch.prompt_lengths, strict=True):
        shared = share and prompt > 0
        key = tuple(ids[start : start + prompt]) if shared else (-1, start)
        families.setdefault(key, []).append(range(start, start + length))
        start += length
    row: list[int] = []
    places = [0] * len(ids)
    spans = []
    for key, members in families.items():
        prompt = len(key) if key[0] >= 0 else 0
        spans.append(_lay(ids, members, prompt, row, places))
    row += [0] * (ROW_MULTIPLE - len(row) % ROW_MULTIPLE)
    layout = RowLayout.of(spans, len(row))
    return Row(
        token_ids=torch.tensor(row, device=device),
        positions=layout.positions.to(device),
        places=torch.tensor(places, device=device),
        layout=layout,
    )


def _lay(
    ids: list[int], members: Sequence[range], prompt: int, row: list[int], places: list[int]
) -> Family:
    """Append a family to the row, the longest first, and note where its tokens went."""
    first = len(row)
    row += ids[members[0].start : members[0].start + prompt]
    completions = []
    for member in sorted(members, key=len, reverse=True):
        for offset in range(prompt):
            places[member.start + offset] = first + offset
        start = len(row)
        row += ids[member.start + prompt : member.stop]
        for offset, place in enumerate(range(start, len(row))):
            places[member.start + prompt + offset] = place
        completions.append(Span(start, len(row), prompt))
    return Family(Span(first, first + prompt, 0), tuple(completions))
