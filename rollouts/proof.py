"""Proof that an engine computes with the weights that were published.

Checksums of parameters say nothing where the engine computes with packed copies of them (on
CPU every linear layer). So each packed layer is applied to the identity matrix, which gives
back the exact weights it multiplies by; whatever is not packed is read directly. Both are
compared bit for bit with the published tensors; what is made of several or of parts of them, as
latent attention and experts do, is told by rollouts/derived.py, and of a tensor-parallel engine
what this process holds by rollouts/tensor_slices.py.

Works on any module tree with vLLM's `packed_modules_mapping`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from rollouts.derived import Held, derived_tensors
from rollouts.tensor_slices import own_slices

_IDENTITY_ROWS = 4096


class WeightProofError(RuntimeError):
    """The engine does not hold what was published; going on would train on wrong samples."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a proof covered: tensors compared, of how many, and the version found.

    Example: `Proof(num_checked=211, num_total=211, version=3)` for a whole SmolLM2-135M.
    """

    num_checked: int
    num_total: int
    version: int


def prove(
    model: nn.Module, published: Mapping[str, torch.Tensor], *, part: int = 0, num_parts: int = 1
) -> tuple[int, int]:
    """Compare what `model` computes with to `published`; part `part` of `num_parts` of it.

    Returns (tensors compared, tensors in all). Raises WeightProofError naming the first
    difference, a published tensor the engine has no place for, or one it holds unpublished.
    """
    tensors = _engine_tensors(model, published)
    _check_coverage({name: held.sources for name, held in tensors.items()}, published)
    chosen = _part(tensors, part, num_parts)
    for name in chosen:
        _prove_tensor(name, tensors[name], published)
    return len(chosen), len(tensors)


def sources(
    model: nn.Module, published: Collection[str], *, part: int, num_parts: int
) -> list[str]:
    """The names, of all those published, whose tensors `prove` reads for a part."""
    tensors = _engine_tensors(model, published)
    chosen = _part(tensors, part, num_parts)
    return list(dict.fromkeys(s for name in chosen for s in tensors[name].sources))


def _part(names: Iterable[str], part: int, num_parts: int) -> list[str]:
    return [n for index, n in enumerate(sorted(names)) if index % num_parts == part % num_parts]


def _prove_tensor(name: str, held: Held, published: Mapping[str, torch.Tensor]) -> None:
    """One of the engine's; what it is compared with may have been made for it and goes with it."""
    expected = held.expect([published[source] for source in held.sources])
    for actual in held.read():
        _compare(name, actual, expected)


def _engine_tensors(model: nn.Module, published: Collection[str]) -> dict[str, Held]:
    """What the engine's model computes with, by name: parameters, and what it makes of others.

    Of buffers those that a checkpoint holds. A layer that vLLM has wrapped for LoRA has its plain
    name.
    """
    mapping = getattr(model, "packed_modules_mapping", {})
    try:
        found = dict(derived_tensors(model))
    except ValueError as error:
        raise WeightProofError(f"{error}: this architecture cannot be proved yet") from error
    for prefix, module in model.named_modules():
        plain = prefix.removesuffix(".base_layer")
        names = {name: f"{plain}.{name}" for name in (*module._parameters, *module._buffers)}
        for name, full in names.items():
            held = getattr(module, name) is not None and full not in found
            if held and (name in module._parameters or full in published):
                sources = _published_names(full, published, mapping)
                found[full] = Held(
                    read=partial(_copies, module, name),
                    sources=sources,
                    expect=partial(own_slices, module, name),
                )
    return found


def _published_names(
    name: str, published: Collection[str], mapping: Mapping[str, list[str]]
) -> list[str]:
    """The checkpoint tensors that are stacked into the engine's tensor `name`."""
    if name in published:
        return [name]
    parts = name.split(".")
    for index, part in enumerate(parts):
        if part in mapping:
            return [
                ".".join([*parts[:index], piece, *parts[index + 1 :]]) for piece in mapping[part]
            ]
    return [name]


def _check_coverage(
    sources: Mapping[str, Sequence[str]], published: Mapping[str, torch.Tensor]
) -> None:
    held = {source for names in sources.values() for source in names}
    if missing := sorted(held - set(published)):
        raise WeightProofError(
            f"the engine computes with {missing[0]}, which was not published "
            f"({len(missing)} such tensors): a published checkpoint must hold every tensor"
        )
    if unplaced := sorted(set(published) - held):
        raise WeightProofError(
            f"{unplaced[0]} was published, but the engine has no tensor to compare it with "
            f"({len(unplaced)} such tensors): this architecture cannot be proved yet"
        )


def _copies(module: nn.Module, name: str) -> Iterator[torch.Tensor]:
    """The tensor as the engine computes with it: the plain one, the packed one, or both.

    Both, since an embedding is looked up in the plain tensor though a packed one lies beside it,
    and a head multiplies by the packed one though a plain one does.
    """
    value = getattr(module, name).data
    packed = name == "weight" and hasattr(module, "cpu_linear")
    if value.numel() or not packed:
        yield value
    if packed:
        yield unpacked(module, value)


def unpacked(layer: nn.Module, value: torch.Tensor) -> torch.Tensor:
    """The weight that a packed linear layer multiplies by; `value` is the plain one, or empty."""
    width = _input_width(layer, value)
    rows = torch.arange(width)
    columns = []
    for start in range(0, width, _IDENTITY_ROWS):
        identity = torch.zeros(min(_IDENTITY_ROWS, width - start), width, dtype=value.dtype)
        identity[rows[: len(identity)], rows[start : start + len(identity)]] = 1
        columns.append(layer.cpu_linear(identity, layer.weight, None))
    return torch.cat(columns).t()


def _input_width(module: nn.Module, value: torch.Tensor) -> int:
    for attribute in ("input_size_per_partition", "input_size", "embedding_dim"):
        if hasattr(module, attribute):
            return getattr(module, attribute)
    return value.shape[-1]


def _compare(name: str, actual: torch.Tensor, expected: list[torch.Tensor]) -> None:
    """Bit-compare; rows beyond the published ones are the engine's vocabulary padding."""
    rows = sum(tensor.shape[0] for tensor in expected)
    if actual.shape[0] < rows or actual.shape[1:] != expected[0].shape[1:]:
        raise WeightProofError(
            f"{name}: the engine holds {tuple(actual.shape)}, published were "
            f"{[tuple(tensor.shape) for tensor in expected]}"
        )
    start = 0
    for tensor in expected:
        held = actual[start : start + tensor.shape[0]]
        if torch.promote_types(held.dtype, tensor.dtype) != held.dtype:
            raise WeightProofError(
                f"{name}: the engine holds {held.dtype}, published was {tensor.dtype}"
            )
        wanted = tensor.to(device=held.device, dtype=held.dtype)
        if not torch.equal(held, wanted):
            raise WeightProofError(difference(name, held, wanted))
        start += tensor.shape[0]


def difference(name: str, held: torch.Tensor, wanted: torch.Tensor) -> str:
    """How two tensors of one shape differ, in words."""
    wrong = (held != wanted).flatten()
    index = int(wrong.nonzero()[0])
    return (
        f"{name}: {int(wrong.sum())} of {wrong.numel()} elements differ from what was published, "
        f"first at {index}: {held.flatten()[index].item()!r} in the engine, "
        f"{wanted.flatten()[index].item()!r} published"
    )
