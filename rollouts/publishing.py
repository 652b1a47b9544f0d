"""New weights for all workers of a crew: from device to device where that is set up, else by their hosts.

From device to device they go to workers that have proved a whole version before. If a worker has not
(the first time, after a death) or a transfer breaks, that version goes through the hosts' memory.
What a transfer brought is proved too, by tensors that come from the trainer another way.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import ray

from rollouts.crew import Crew
from rollouts.exchange import TransferError
from rollouts.parcel import packed
from rollouts.placement import HOST, Ray
from rollouts.proof import Proof

logger = logging.getLogger(__name__)
MOST_FAILURES = 2
"""Transfers that break in a row: then it is not chance."""
Weights = Mapping[str, Any] | Iterable[tuple[str, Any]]


def open_transfer(kind: str, placement: Ray) -> Any:
    """The trainer's end of one; only then is vLLM imported in a process that has no engine."""
    if kind == HOST:
        return None
    from rollouts.transfer import Transfer

    return Transfer(kind, placement.publish_s)


class Publisher:
    """Two steps, since trainers that hold shards take part in both: `send`, then `settle`."""

    def __init__(self, crew: Crew, transfer: Any = None):
        """`transfer` is a `rollouts.transfer.Transfer`, or None for the hosts' memory only."""
        self._crew, self._transfer = crew, transfer
        self._number = 0  # of the transfer, by which it is known what part of it is proved
        self._is_sent, self._failures = False, 0
        self._names: list[str] = []

    def publish(self, weights: Weights, version: int) -> Proof:
        """Both steps; for a trainer that holds the weights itself."""
        named = weights if isinstance(weights, Mapping) else dict(weights)
        names = self.send(named, version) if self.sends() else list(named)
        return self.settle({name: named[name] for name in names}, version)

    def sends(self) -> bool:
        """Whether the next version goes from device to device."""
        return self._transfer is not None and self._crew.has_proved()

    def send(self, weights: Mapping[str, Any], version: int) -> list[str]:
        """Give the workers the weights, reading all; gives the names of those that `settle` needs."""
        self._names = list(weights)
        self._number += 1
        try:
            wanted = self._crew.receive(
                version,
                lambda remotes: self._transfer.send(remotes, weights, version, self._number),
            )
        except TransferError as error:
            self._failures += 1
            if self._failures == MOST_FAILURES:
                self._transfer = None
            after = "" if self._transfer else ", and so do all after it"
            logger.warning("version %d goes through the hosts' memory%s: %s", version, after, error)
            return self._names
        self._is_sent, self._failures = True, 0
        return wanted

    def settle(self, weights: Mapping[str, Any], version: int) -> Proof:
        """Have the workers prove what was sent, or give them all of it; gives one's proof, if any is there.

        Weights through the hosts' memory are one copy a machine, in Ray's shared memory.
        """
        given = ray.put(packed(weights))
        if not self._is_sent:
            return self._crew.publish(given, version)
        self._is_sent = False
        return self._crew.tell("prove_part", given, ray.put(self._names), self._number)
