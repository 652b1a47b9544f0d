"""What vLLM gets wrong, mostly for latent attention and experts (DeepSeek-V3), cured where it was seen.

A cure is applied only where its fault was seen: vLLM 0.32, on a CPU but for that of the gates. With
another version none is, and nothing is taken on trust either: an engine compares its rotation when
it starts, and the proof (rollouts/derived.py) reads experts, routers and latent matrices back.

Takes vLLM's objects as they are and imports nothing of it. Leaves out FP8 and expert parallelism.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

from rollouts.model_config import read_model_config
from rollouts.proof import unpacked
from rollouts.sampler import EngineConfig

logger = logging.getLogger(__name__)

SEEN = "0.32."
"""Versions of vLLM in which the faults were seen begin so."""
MEETING = "GROUPWISE_MEETING"
"""The variable that names the group of a process that no torchrun started (rollouts/meeting.py)."""
ROTATION_GAP = 0.1
"""Rounding to bfloat16 moves numbers of std 1 by a few hundredths; a wrong rotation by 1 and more."""


@dataclass(frozen=True, kw_only=True)
class Cures:
    """Which faults of an engine are cured; all False where none was seen.

    Attributes:
        attention: On CPUs with AMX vLLM prefers a latent attention that takes no float32 and does
            not outlive a reload. The plain one is asked for.
        rotation: The rotary operator turns the queries of latent attention wrongly, since they are
            a view into longer ones. PyTorch's operations do it.
        experts: A reload leaves the routed experts as they came, for a kernel that reads them
            packed. The kernel is made anew, which packs them.
        gates: Routers round their logits to 16 bits, so that other experts win than in the
            trainer. They are told float32, and on a CPU, which then rounds first, made to keep it.
        memory: On a CPU the processes of a tensor-parallel engine share memory by one name for all
            engines of a machine: a second run fails, and one after a kill. Theirs is made their own.
    """

    attention: bool = False
    rotation: bool = False
    experts: bool = False
    gates: bool = False
    memory: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """What vLLM is told at its start."""
        told: dict[str, Any] = {}
        if self.attention:
            told["attention_config"] = {"backend": "CPU_MLA"}
        if self.rotation:
            told["compilation_config"] = {"custom_ops": ["-rotary_embedding"]}
        if self.gates:
            told["hf_overrides"] = {"moe_router_dtype": "float32"}
        return told

    @contextmanager
    def launching(self, executor: type) -> Iterator[None]:
        """Around an engine's making; `executor` is vLLM's class for processes that others started."""
        plain = executor._distributed_args
        if self.memory:
            executor._distributed_args = lambda self: (_own_address(), *plain(self)[1:])
        try:
            yield
            if self.memory:
                _forget_names()
        finally:
            executor._distributed_args = plain

    def start(self, model: nn.Module) -> str | None:
        """Cure a model that was just loaded; gives what it computes wrongly all the same, or None."""
        self._mend_gates(model)
        return rotation_fault(model)

    @contextmanager
    def reload(self, apply_model: Callable[[Callable[[nn.Module], None]], Any]) -> Iterator[None]:
        """Around a reload of weights; `apply_model` calls a function with the engine's model."""
        apply_model(self._forget_kernels)
        yield
        apply_model(self._mend_gates)

    def _forget_kernels(self, model: nn.Module) -> None:
        """A reload packs the routed experts for a new kernel only."""
        if self.experts:
            for module in model.modules():
                if hasattr(module, "w13_weight"):
                    module.quant_method.moe_kernel = None

    def _mend_gates(self, model: nn.Module) -> None:
        """Let routers multiply in float32, by the weights that they have just been given."""
        for gate in _rounding_gates(model) if self.gates else ():
            weight = unpacked(gate, gate.weight).float()
            gate.cpu_linear = lambda x, _, bias, weight=weight: linear(x.float(), weight, bias)


def cures_for(version: str, model: Path, config: EngineConfig) -> Cures:
    """The cures for a version of vLLM and a checkpoint folder, where they were seen needed.

    Raises ValueError for a compiled engine whose routers could then not be kept in float32.
    """
    latent = bool(read_model_config(str(model)).get("kv_lora_rank"))
    if not version.startswith(SEEN):
        if latent:
            logger.warning(
                "vLLM %s: what %sx computes wrongly for latent attention and experts is left as it "
                "is; each proof and the gate will tell",
                version,
                SEEN,
            )
        return Cures()
    if torch.cuda.is_available():
        return Cures(gates=latent)
    if latent and config.compile and config.dtype != "float32":
        raise ValueError(
            f"engine.compile with latent attention in {config.dtype} on a CPU: its routers could not "
            "be kept in float32; leave engine.compile out, or compute in float32"
        )
    several = config.tensor_parallel > 1
    return Cures(attention=latent, rotation=latent, experts=True, gates=latent, memory=several)


def _own_address() -> str:
    """Where processes meet that one launcher started: nobody goes there, for they have met already.

    What follows its last colon becomes the name of the memory that they share.
    """
    return f"env://:{_own_name()}"


def _own_name() -> str:
    return f"{os.environ.get('MASTER_PORT')}-{os.environ.get(MEETING) or os.getppid()}"


def _forget_names() -> None:
    """Once all have opened the memory that they share it needs no name, and a kill leaves none."""
    torch.distributed.barrier()
    for file in Path("/dev/shm").glob(f"{_own_name()}-*"):
        file.unlink(missing_ok=True)


@torch.no_grad()
def rotation_fault(model: nn.Module) -> str | None:
    """Whether latent attention's queries are rotated otherwise than PyTorch's operations do it.

    One layer is asked, since all share their angles; None if it has none, or agrees.
    """
    found = (m for m in model.modules() if hasattr(m, "qk_nope_head_dim") and _rotary(m))
    layer = next(found, None)
    if layer is None:
        return None
    before, width, rotary = layer.qk_nope_head_dim, layer.qk_rope_head_dim, _rotary(layer)
    some = next(model.parameters())
    draw = torch.Generator().manual_seed(0)
    queries, keys = (
        torch.randn(8, heads, size, generator=draw).to(some)
        for heads, size in ((2, before + width), (1, width))
    )
    positions = torch.arange(8, device=some.device)
    plain = rotary.forward_native(positions, queries[..., before:].contiguous(), keys.clone())
    turned = rotary(positions, queries.clone()[..., before:], keys.clone())
    gap = max(
        (a.float() - b.float()).abs().max().item() for a, b in zip(plain, turned, strict=True)
    )
    if gap < ROTATION_GAP:
        return None
    return (
        f"it rotates the queries of latent attention wrongly (by up to {gap:.2g}); this was cured "
        f"for vLLM {SEEN}x on a CPU only: use that version"
    )


def _rotary(module: nn.Module) -> Any:
    return getattr(module, "rotary_emb", None)


def _rounding_gates(model: nn.Module) -> Iterator[nn.Module]:
    """Routers whose experts are chosen by scores with a bias, in 16 bits."""
    for module in model.modules():
        biased = getattr(module, "e_score_correction_bias", None) is not None
        if biased and hasattr(module, "cpu_linear") and module.weight.dtype != torch.float32:
            yield module
