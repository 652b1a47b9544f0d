"""LoRA adapters on their way into vLLM: their folder, the kernel that applies them, and their proof.

An engine holds one adapter at a time, in the first of its slots, and every token is computed with
it. What arrives has the factor alpha / rank in B already, so vLLM is told a factor of 1.

Leaves out adapters of embeddings, heads and experts, and tensor parallelism.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import linear

from rollouts.proof import WeightProofError, difference

ENGINE_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Of vLLM's slots; an adapter of a rank between them lies in the next, filled with zeros."""
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, kw_only=True)
class AdapterShape:
    """What an engine must make room for.

    Example: `AdapterShape(rank=16, layers=("q_proj", "v_proj"))`.
    """

    rank: int
    layers: tuple[str, ...]
    """The last part of each adapted layer's name."""

    @property
    def slot_rank(self) -> int:
        """Of the slot that it lies in."""
        return next(rank for rank in ENGINE_RANKS if rank >= self.rank)

    @property
    def settings(self) -> dict[str, Any]:
        """vLLM's arguments. Layers not named are left alone: an adapted head would cost [T, V, rank]."""
        return {
            "enable_lora": True,
            "max_loras": 1,
            "max_lora_rank": self.slot_rank,
            "lora_target_modules": sorted(self.layers),
        }


@contextmanager
def adapter_folder(tensors: Mapping[str, Tensor], shape: AdapterShape) -> Iterator[Path]:
    """A folder as peft writes it, in shared memory where there is some; gone on exit.

    vLLM 0.32 takes an adapter from a folder only.
    """
    place = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    values = {"peft_type": "LORA", "r": shape.rank, "lora_alpha": shape.rank}
    with tempfile.TemporaryDirectory(prefix="groupwise-adapter-", dir=place) as name:
        folder = Path(name)
        named = {f"base_model.model.{name}": t.contiguous() for name, t in tensors.items()}
        save_file(named, folder / "adapter_model.safetensors")
        settings = {**values, "target_modules": list(shape.layers)}
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        yield folder


class AdapterSlot:
    """The one adapter of an engine: each is loaded in the place of the one before.

    Attributes:
        request: What every request of the engine carries; None before the first adapter.
        base_is_proved: Whether the weights under it are known to be the trainer's.
    """

    def __init__(self, engine: Any, make_request: Callable[..., Any], shape: AdapterShape):
        self._engine, self._make_request, self._shape = engine, make_request, shape
        self._count = 0
        self.request: Any = None
        self.base_is_proved = False

    def load(self, tensors: Mapping[str, Tensor], version: int) -> None:
        """Replace the adapter; vLLM reads its folder here and never again."""
        self._count += 1
        with adapter_folder(tensors, self._shape) as folder:
            if self.request:
                self._engine.remove_lora(self.request.lora_int_id)
            self.request = self._make_request(f"version-{version}", self._count, str(folder))
            self._engine.add_lora(self.request)


class OneAdapter:
    """Applies an adapter on a CPU, in the trainer's order of operations.

    vLLM's own way gathers a copy of A and B for every token (sampling took 6 times as long, a
    prompt 10 times). Where all tokens are one adapter's, two matrix products do. Whatever else a
    layer asks goes to vLLM's wrapper, which knows whose the tokens are.
    """

    def __init__(self, wrapper: Any):
        self._wrapper = wrapper

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapper, name)

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a: tuple[Tensor, ...],
        lora_b: tuple[Tensor, ...],
        scale: float,
        widths: tuple[int, ...],
        **others: Any,
    ) -> None:
        """Add B A x to y: x [T, in], y [T, out], A and B one a packed piece, [slots, 1, rank, in]."""
        wrapper = self._wrapper
        if wrapper.no_lora:
            return
        # One run of equal indices: all tokens are the adapter's in the only slot.
        if wrapper.batch_size != 1 or len(lora_a[0]) != 1 or scale != 1.0:
            wrapper.add_lora_linear(y, x, lora_a, lora_b, scale, widths, **others)
            return
        for part, a, b in zip(y.split(widths, -1), lora_a, lora_b, strict=True):
            part += linear(linear(x, a[0, 0]), b[0, 0])


def use_one_adapter(model: nn.Module) -> None:
    """Let the model's LoRA layers compute by `OneAdapter`."""
    wrappers: dict[int, OneAdapter] = {}
    for _, layer in adapted_layers(model):
        wrapper = layer.punica_wrapper
        layer.set_mapping(wrappers.setdefault(id(wrapper), OneAdapter(wrapper)))


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """vLLM's LoRA layers by name, whatever their class."""
    for name, module in model.named_modules():
        if "lora_a_stacked" in vars(module):
            yield name, module


def prove_adapter(
    model: nn.Module, published: Mapping[str, Tensor], adapter_id: int
) -> tuple[int, int]:
    """Compare, bit for bit, the adapter that `model` computes with to `published`.


    Returns what `rollouts.proof.prove` returns. Read are the slots that the layers multiply by, packed pieces one by one: they hold the
    published tensors, and zeros beyond their rank and where nothing was published. Raises
    WeightProofError naming the first difference, or a published tensor without a place.
    """
    slots = list(model.lora_manager.lora_index_to_id)
    if slots != [adapter_id]:
        raise WeightProofError(f"the engine's adapters are {slots}, published was {adapter_id}")
    mapping = getattr(model, "packed_modules_mapping", {})
    seen: set[str] = set()
    for layer, module in adapted_layers(model):
        before, _, own = layer.rpartition(".")
        pieces = mapping.get(own, [own])
        for kind, stacked in (("A", module.lora_a_stacked), ("B", module.lora_b_stacked)):
            if len(stacked) != len(pieces):
                raise WeightProofError(
                    f"{layer}: the engine holds {len(stacked)} pieces of lora_{kind}, expected were "
                    f"{', '.join(pieces)}: this architecture's adapters cannot be proved yet"
                )
            for piece, held in zip(pieces, stacked, strict=True):
                name = f"{before}.{piece}.lora_{kind}.weight"
                _compare(name, held[0, 0], published.get(name))
                seen.add(name)
    if unplaced := sorted(set(published) - seen):
        raise WeightProofError(
            f"{unplaced[0]} was published, but the engine adapts no such layer "
            f"({len(unplaced)} such tensors): leave it out of policy.lora.target_modules"
        )
    return len(published), len(published)


def _compare(name: str, held: Tensor, published: Tensor | None) -> None:
    """Bit-compare a slot with what belongs into its first rows and columns."""
    wanted = torch.zeros_like(held)
    if published is not None:
        rows, columns = published.shape
        if rows > held.shape[0] or columns > held.shape[1]:
            raise WeightProofError(
                f"{name}: the engine holds {tuple(held.shape)}, published was {(rows, columns)}"
            )
        if published.dtype != held.dtype:
            raise WeightProofError(
                f"{name}: the engine holds {held.dtype}, published was {published.dtype}"
            )
        wanted[:rows, :columns] = published
    if not torch.equal(held, wanted):
        raise WeightProofError(difference(name, held, wanted))
