"""The processes of one worker whose engine is tensor-parallel: how they find each other and keep step.

All of them are on one machine. vLLM takes the group that is there, as it does under torchrun.
"""

import os
from typing import Any

import torch
import torch.distributed as dist

from rollouts.cures import MEETING
from rollouts.exchange import EngineError
from rollouts.worker import Meeting

LOOPBACK = "127.0.0.1"


def invite(size: int) -> tuple[Any, Meeting]:
    """Open a place to meet, by the first process; it is there for as long as the first answer is."""
    store = dist.TCPStore(LOOPBACK, 0, size, is_master=True, wait_for_workers=False)
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    return store, Meeting(size=size, port=store.port, name=f"{os.getpid()}", devices=devices)


def join(meeting: Meeting, rank: int, store: Any = None) -> None:
    """Be one of them from now on, as if torchrun had said so; returns when all are there.

    Args:
        store: The one of `invite`, which only the first process has.
    """
    told = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": meeting.size,
        "LOCAL_WORLD_SIZE": meeting.size,
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": meeting.port,
        MEETING: meeting.name,
    }
    os.environ.update({name: str(value) for name, value in told.items()})
    there = store or dist.TCPStore(LOOPBACK, meeting.port, meeting.size, is_master=False)
    kinds = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(kinds, store=there, rank=rank, world_size=meeting.size)


def first_says(flag: bool) -> bool:
    """What the first process says of something that each could see otherwise, the time for one.

    Raises EngineError if one of them is gone.
    """
    told = torch.tensor([flag])
    try:
        dist.broadcast(told, src=0)
    except RuntimeError as error:
        raise EngineError(f"a process of this engine is gone: {error}") from error
    return bool(told.item())
