"""Which groups a page holds when it cannot hold all: a sample that it states.

Whole groups only, so that completions of one problem stay side by side. Within a round groups are
of three kinds, none right, some right, all right; each kind of each round keeps the same share, a
fraction of a group by chance. Which ones, and that chance, come from hashes.
"""

from collections.abc import Sequence
from hashlib import sha256

from recipes.page.summaries import GroupSummary

STATED = (
    "whole groups: of every round the same share, and within a round the same share of groups with "
    "none, some and all completions right, chosen by a hash of run, round and problem"
)


def sampled_places(
    groups: Sequence[GroupSummary], share: float, *, run: str, index: int
) -> list[int]:
    """The places of the kept groups in a round, in order.

    Example: 10 groups of which 4 have some right and 6 none, share 0.5: two and three of them.
    Of 5 with share 0.5 two are kept in half of the rounds and three in the others.
    """
    if share >= 1.0:
        return list(range(len(groups)))
    kinds: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        kinds.setdefault(_kind(group), []).append(place)
    kept: list[int] = []
    for kind, places in kinds.items():
        places.sort(key=lambda place: _chance(f"{run}/{index}/{place}/{groups[place].id}"))
        kept += places[: int(share * len(places) + _chance(f"{run}/{index}/{kind}"))]
    return sorted(kept)


def _kind(group: GroupSummary) -> str:
    right = group.verdicts.count("a")
    return "none" if right == 0 else "all" if right == len(group.verdicts) else "some"


def _chance(key: str) -> float:
    """Even in [0, 1), by the key alone."""
    digest = sha256(key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / 256**7
