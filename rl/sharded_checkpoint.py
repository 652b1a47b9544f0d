"""Checkpoints of sharded parameters: each process writes its own shards, nothing is gathered.

PyTorch's distributed checkpoint (DCP) as safetensors: a folder for each kind of tensor, in it a
file for each process that says which part of each tensor it holds. So any number of processes
reads what any other number wrote, each its own part; one process reads the whole. No pickles.
What every process holds whole (steps, buffers) is not written here; moments in 8 bits have
files of their own (rl/eight_bit_shards.py).
"""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint import (
    CheckpointException,
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
    load,
    save,
)

from rl.eight_bit_shards import read_moments, write_moments
from rl.fsdp import cut_as, local
from rl.optimizer import SHARDED_KINDS
from rl.policy import Policy

REFERENCE = "reference"


def write_shards(folder: Path, policy: Policy) -> str:
    """Write this process's shards into a folder that all see, onto the disk; gives the digest.

    All processes call it; each has written when it returns. The digest is the SHA-256 of the
    processes' SHA-256 (in hex, in their order) of the bytes of their masters (in the model's
    order): equal runs of as many processes have equal ones.

    Raises:
        ValueError: Not every process sees the folder.
        OSError: What one process could not write, in all of them.
    """
    if policy.ranks.any(not folder.is_dir()):
        raise ValueError(
            f"every process writes its shards of {folder}, but not all of them see this folder: "
            "give a --run-folder on a file system that all machines share"
        )
    optimizer = policy.optimizer
    in_eight_bits = optimizer.config.states == "8bit"
    for kind in ("master",) if in_eight_bits else SHARDED_KINDS:
        _write(folder / kind, optimizer.shards(kind))
    if in_eight_bits:
        write_moments(folder, optimizer.moments(), policy.ranks)
    if policy.reference is not None:
        params = dict(policy.model.named_parameters())
        shards = {name: cut_as(part, params[name]) for name, part in policy.reference.items()}
        _write(folder / REFERENCE, shards)
    digests = policy.ranks.gather([_masters_sha256(policy)])
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def take_shards(folder: Path, policy: Policy, steps: Mapping[str, Tensor]) -> None:
    """Put masters, moments and reference back into a policy, sharded or not; waits for nobody.

    `steps` is what `MasterOptimizer.state` gave for them. Parts pass through the host's memory.
    """
    params = {n: p for n, p in policy.model.named_parameters() if p.requires_grad}
    tensors = dict(steps)
    for kind in SHARDED_KINDS:
        parts = _read(folder / kind, params, torch.float32)
        tensors |= {f"{kind}/{name}": part for name, part in parts.items()}
    index, count = (policy.ranks.index, policy.ranks.count) if policy.sharded else (0, 1)
    tensors |= read_moments(folder, params, count, index)
    policy.optimizer.load(tensors, lambda part, _: part)
    if reference := _read(folder / REFERENCE, params, policy.dtype):
        policy.reference = {n: t.to(local(params[n]).device) for n, t in reference.items()}


def is_sharded_checkpoint(folder: Path) -> bool:
    """Whether `write_shards` made it; else it holds whole tensors."""
    return (folder / "master").is_dir()


def _write(folder: Path, shards: dict[str, Tensor]) -> None:
    if not shards:  # no moments before the first update
        return
    writer = HuggingFaceStorageWriter(path=str(folder), save_distributed=True)
    try:
        save(shards, storage_writer=writer)
    except CheckpointException as error:
        cause, _ = next(iter(error.failures.values()))
        raise cause from error


def _read(folder: Path, params: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """One kind; nothing if the checkpoint has none of it."""
    if not folder.is_dir():
        return {}
    held = {name: _room_for(param, dtype) for name, param in params.items()}
    with warnings.catch_warnings():  # that nobody is waited for, which is meant
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        load(held, storage_reader=HuggingFaceStorageReader(path=str(folder)), no_dist=True)
    return {name: local(tensor).cpu() for name, tensor in held.items()}


def _room_for(param: Tensor, dtype: torch.dtype) -> Tensor:
    """To be filled: cut as the parameter is, or whole."""
    return cut_as(torch.empty_like(local(param), dtype=dtype, device="cpu"), param)


def _masters_sha256(policy: Policy) -> str:
    digest = hashlib.sha256()
    for master in policy.optimizer.masters.values():
        digest.update(master.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
