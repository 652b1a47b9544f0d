"""vLLM's weight transfer between CPUs: both ends of its NCCL one, over gloo.

Handshake, order, checks and reload are vLLM's; only what carries the bytes is another, and tensors
go one by one. So what a cluster of GPUs does on a publish runs, and is tested, on two cores.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from rollouts.engine import VLLM_NCCL

WORKER_PATIENCE = timedelta(hours=1)
"""A worker waits so long for what the trainer sends; the trainer kills it long before."""


class GlooGroup:
    """The trainer, rank 0, and workers; beside whatever other groups they are in."""

    def __init__(self, host: str, port: int, rank: int, size: int, patience: timedelta):
        """Meet the others; raises DistStoreError or RuntimeError if they do not come."""
        store = dist.TCPStore(host, port, size, is_master=rank == 0, timeout=patience)
        self._group = dist.ProcessGroupGloo(
            dist.PrefixStore("weights", store), rank, size, patience
        )

    def broadcast(self, tensor: Tensor, src: int) -> None:
        """Fill everyone's contiguous tensor with that of rank `src`."""
        options = dist.BroadcastOptions()
        options.rootRank = src
        self._group.broadcast([tensor.view(-1).view(torch.uint8)], options).wait()

    def abort(self) -> None:
        """End what is under way, which then raises where it is waited for."""
        self._group.abort()

    def destroy(self) -> None:
        """Leave."""
        self._group.shutdown()


class GlooReceiver(VLLM_NCCL.NCCLWeightTransferEngine):
    """A worker's end."""

    def init_transfer_engine(self, init_info: Any) -> None:
        """Meet the trainer."""
        rank, size = init_info.rank_offset + self.parallel_config.rank, init_info.world_size
        address = init_info.master_address, init_info.master_port
        self.model_update_group = GlooGroup(*address, rank, size, WORKER_PATIENCE)

    def receive_weights(self, update_info: Any) -> None:
        """Load each tensor as it comes."""
        self.model.load_weights(self._arriving(update_info))

    def _arriving(self, update_info: Any) -> Iterator[tuple[str, Tensor]]:
        announced = zip(update_info.names, update_info.dtype_names, update_info.shapes, strict=True)
        for name, dtype, shape in announced:
            tensor = torch.empty(shape, dtype=getattr(torch, dtype))
            self.model_update_group.broadcast(tensor, src=0)
            yield name, tensor


class GlooSender(VLLM_NCCL.NCCLTrainerWeightTransferEngine):
    """The trainer's end."""

    @classmethod
    def trainer_init(cls, init_info: Any, *, client: Any, source: Any) -> Self:
        """Meet the workers, whom the client has wait at the same address."""
        sender = cls(client=client, source=source, packed=False)
        address = init_info.master_address, init_info.master_port
        size, patience = init_info.world_size, timedelta(seconds=client.patience_s)
        met = VLLM_NCCL.NCCLWeightTransferInitInfo(
            master_address=address[0], master_port=address[1], rank_offset=1, world_size=size
        )
        with ThreadPoolExecutor(max_workers=1) as thread:
            joined = thread.submit(client.init_weight_transfer_engine, asdict(met))
            sender.model_update_group = GlooGroup(*address, 0, size, patience)
            joined.result()
        return sender

    def _broadcast(self, source: Any, meta: Any) -> None:
        for _, tensor in self._checked_iter(source, meta):
            self.model_update_group.broadcast(tensor.contiguous(), src=0)
