"""Moments in 8 bits of sharded parameters in a checkpoint: a file for each process.

A shard's blocks begin at its own first value, so that codes of one cut mean nothing in another,
and DCP cannot carry them. As many processes read their own files, bit for bit; another number
joins the values of all files and codes them anew, which rounds them once more.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rl.eight_bit import eight_bit_values, in_eight_bits, moment_tensors
from rl.fsdp import part_of
from rl.ranks import Ranks

FOLDER = "moments"


def write_moments(folder: Path, moments: Mapping[str, Tensor], ranks: Ranks) -> None:
    """This process's moments by `KIND/NAME`, onto the disk. Waits for nobody."""
    if not moments:  # before the first update
        return
    tensors: dict[str, Tensor] = {}
    for key, moment in moments.items():
        tensors |= moment_tensors(key, moment)
    (folder / FOLDER).mkdir(exist_ok=True)
    path = folder / FOLDER / f"part-{ranks.index + 1:05d}-of-{ranks.count:05d}.safetensors"
    save_file({key: tensor.cpu() for key, tensor in tensors.items()}, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_moments(
    folder: Path, params: Mapping[str, Tensor], count: int, index: int
) -> dict[str, Tensor]:
    """What `MasterOptimizer.load` takes: of each moment the part of process `index` of `count`."""
    files = sorted((folder / FOLDER).glob("part-*"))
    if len(files) == count:
        return load_file(files[index])
    parts = [load_file(file) for file in files]
    found: dict[str, Tensor] = {}
    named = parts[0] if parts else {}
    for key in [key.removesuffix(".codes") for key in named if not key.endswith(".scale")]:
        whole = torch.cat([eight_bit_values(key, part) for part in parts])  # FSDP cuts along it
        mine = part_of(whole, params[key.partition("/")[2]]).cpu()
        found |= moment_tensors(key, in_eight_bits(key, mine))
    return found
