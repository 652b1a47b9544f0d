"""Weights as plain arrays, which Ray carries through shared memory without another copy, and back."""

import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

Parcel = dict[str, tuple[np.ndarray, str]]
"""By name: the tensor's bytes as integers of its item's size, and its dtype's name."""
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def packed(weights: Mapping[str, Tensor]) -> Parcel:
    """Weights on their way out; tensors on a CPU are not copied, and one under two names is one."""
    arrays: dict[tuple[int, torch.Size], np.ndarray] = {}
    parcel: Parcel = {}
    for name, tensor in weights.items():
        held = tensor.detach().cpu().contiguous()
        key = held.data_ptr(), held.shape
        if key not in arrays or not held.numel():
            arrays[key] = held.view(_INTEGERS[held.element_size()]).numpy()
        parcel[name] = arrays[key], str(tensor.dtype).removeprefix("torch.")
    return parcel


def unpacked(parcel: Parcel) -> dict[str, Tensor]:
    """The same tensors, over the memory that they arrived in: read only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return {
            name: torch.from_numpy(array).view(getattr(torch, dtype))
            for name, (array, dtype) in parcel.items()
        }
