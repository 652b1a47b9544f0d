"""Kernels in C++ (rl/cpp) for CPUs with AMX, compiled at their first use and kept.

They are for bfloat16 on a CPU with AMX and a C++ compiler; elsewhere, and where compiling
fails, PyTorch's own operators serve, with the same results to rounding. Compiled without PyTorch's
builder of extensions, whose lock outlives a process that was killed.
"""

import functools
import hashlib
import logging
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.cpp_extension import include_paths, library_paths

from rl.compiling import compiler
from rollouts.models import cache_folder

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).parent / "cpp"
FLAGS = shlex.split(
    "-O3 -std=c++20 -shared -fPIC -fopenmp -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl "
    "-mavx512dq -mavx512bf16 -mamx-tile -mamx-bf16 -DCPU_CAPABILITY=AVX512 -DCPU_CAPABILITY_AVX512"
)


@functools.cache
def kernels() -> Any | None:
    """The kernels as `torch.ops` has them, or None where they cannot be had."""
    program = compiler()
    if program is None or program == "triton":
        return None
    if not torch.cpu._is_amx_tile_supported() or not torch.cpu._init_amx():
        return None
    try:
        torch.ops.load_library(str(library(program)))
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        logger.warning("the C++ kernels are not used: %s", " ".join(said.splitlines()[:2]))
        return None
    torch.library.register_fake("groupwise::weight_gradient", _weight_gradient_shape)
    return torch.ops.groupwise


def library(program: str) -> Path:
    """The compiled kernels, from the cache or compiled into it."""
    sources = sorted(SOURCES.iterdir())
    options = [*FLAGS, *(f"-I{path}" for path in include_paths())]
    key = hashlib.sha256(" ".join([program, torch.__version__, *options]).encode())
    for path in sources:
        key.update(path.read_bytes())
    kept = cache_folder() / f"kernels-{key.hexdigest()[:16]}.so"
    if not kept.exists():
        logger.info("compiling the C++ kernels, once")
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}.partial")
        files = [str(path) for path in sources if path.suffix == ".cpp"]
        linked = [f"-L{path}" for path in library_paths()] + ["-ltorch_cpu", "-lc10"]
        command = [program, *options, *files, *linked, "-o", str(partial)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        partial.replace(kept)
    return kept


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels take these: bfloat16 on the CPU."""
    mine = all(x.dtype == torch.bfloat16 and x.device.type == "cpu" for x in tensors)
    return mine and kernels() is not None


def _weight_gradient_shape(grad: Tensor, x: Tensor) -> Tensor:
    return x.new_empty(grad.shape[1], x.shape[1])
