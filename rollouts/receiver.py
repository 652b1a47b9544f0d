"""An engine that also takes weights straight from the trainer's device, by vLLM's weight transfer.

The other end is rollouts/transfer.py. What arrives is loaded as a checkpoint is, layer by layer, by
vLLM's own reload. It is a worker's engine (rollouts/worker.py); one in the trainer's process needs none,
for it loads the trainer's own tensors.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rollouts.engine import WEIGHT_TRANSFERS, Engine
from rollouts.proof import Proof, sources
from rollouts.sampler import EngineConfig

WEIGHT_TRANSFERS.register_engine("gloo", "rollouts.gloo", "GlooReceiver")


class Receiver(Engine):
    """An engine whose weights come through the hosts' memory (`publish`) or by a transfer."""

    def __init__(self, model: Path, config: EngineConfig, *, transfer: str, **shape: Any):
        """Load `model`; `transfer` names vLLM's way: nccl, or on CPUs gloo."""
        super().__init__(model, config, transfer=transfer, **shape)

    def join(self, met: Mapping[str, Any]) -> None:
        """Meet the trainer and its other workers at an address; returns when all are there."""
        self._llm.collective_rpc("shutdown_weight_transfer_engine")  # those met before
        self._llm.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": dict(met)})

    def receive(self, announced: Mapping[str, Any], version: int, part: int) -> list[str]:
        """Take the tensors that the trainer sends now, in the order announced, as this version.

        What is unfinished goes on with them. Gives the names of those by which `prove_part` proves
        that part. Raises EngineError where the engine refuses them, or they do not arrive.
        """
        with self._taking(version), self._cures.reload(self._llm.apply_model):
            self._llm.collective_rpc("start_weight_update")
            self._llm.collective_rpc("update_weights", kwargs={"update_info": dict(announced)})
            self._llm.collective_rpc("finish_weight_update")
        self.version = version
        names, num_parts = set(announced["names"]), self.config.proof_parts
        return self._llm.apply_model(
            lambda model: sources(model, names, part=part, num_parts=num_parts)
        )[0]

    def prove_part(
        self, tensors: Mapping[str, torch.Tensor], names: Sequence[str], part: int
    ) -> Proof:
        """Compare a part, from 1, of the weights with the trainer's tensors; `names` are of all."""
        self._num_proofs = part
        return self.prove(Some(tensors, names))


class Some(Mapping[str, torch.Tensor]):
    """Of published weights all names, but only some tensors."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], names: Sequence[str]):
        self._tensors, self._names = tensors, dict.fromkeys(names)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
