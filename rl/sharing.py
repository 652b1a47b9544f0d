"""May a model's completions share a row and their prompt? Proved on it before it may.

Logprobs, gradients and every layer's output of shared rows against one completion a row by
transformers' own attention, in float32, on as many layers as there are kinds of layers. Layers that
are not attention, linear or convolutional, mix neighbours silently: they are named.

Shapes: T tokens of a batch, H hidden size.
"""

import copy
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rl.attention import NAME as PACKED
from rl.forward import row_hidden, single_hidden
from rl.packing import Batch
from rl.rows import make_row

MOVED = 1e-3
"""Shared rows may move outputs and gradients by this share of their size: rounding moves a
millionth, a leak or a wrong window tens of percents."""
NUM_COMPLETIONS = 4


def sharing_fault(model: nn.Module, batch: Batch) -> str | None:
    """Why sequences may not share a row, naming the layer; None if they may.

    Args:
        model: A float32 copy, computing by transformers' own attention; it is left so.
        batch: Real prompts with completions of unequal length, one of them longer than the
            smallest sliding window where there is one.
    """
    return layers_fault(*few_layers(model), batch)


def layers_fault(few: nn.Module, names: dict[str, str], batch: Batch) -> str | None:
    """As `sharing_fault`, of what `few_layers` gave; that changes."""
    batches = [part.to(few.device) for part in crossed(batch)]
    expected = [_outputs(few, names, partial(_alone, few, part)) for part in batches]
    wanted = _gradients(few, _alone, batches)
    few.set_attn_implementation(PACKED)
    try:
        for part, before in zip(batches, expected, strict=True):
            places = make_row(part).places
            for name, output in _outputs(few, names, partial(_row, few, part)).items():
                if fault := _moved(name, output[places], before[name]):
                    return fault
        for checkpointing in (False, True):
            with _checkpointing(few, checkpointing):
                found = _gradients(few, _together, batches)
            if fault := _gradient_fault(found, wanted, checkpointing):
                return fault
    except (ValueError, TypeError) as error:  # layers that know no packed rows
        return f"{type(error).__name__}: {error}"
    return None


def crossed(batch: Batch) -> list[Batch]:
    """Two micro-batches, of a long prompt and of a short one, each with the completions of both.

    Example: sequences a1 and b2 (prompt, completion) give a1, a2 and b1, b2.
    """
    starts = [0]
    for length in batch.lengths:
        starts.append(starts[-1] + length)
    sequences = list(zip(starts[:-1], batch.lengths, batch.prompt_lengths, strict=True))
    chosen = sequences[:: max(1, len(sequences) // NUM_COMPLETIONS)][:NUM_COMPLETIONS]
    if len(chosen) == 1:
        chosen *= 2
    found = []
    by_prompt = sorted(chosen, key=lambda sequence: -sequence[2])
    for start, _, prompt in (by_prompt[0], by_prompt[-1]):  # two layouts that cannot be confused
        picked = []
        for other, length, before in chosen:
            picked += [*range(start, start + prompt), *range(other + before, other + length)]
        lengths = [prompt + length - before for _, length, before in chosen]
        positions = torch.cat([torch.arange(length) for length in lengths])
        held = batch.pick(torch.tensor(picked, device=batch.token_ids.device))
        found.append(replace(held, positions=positions.to(batch.token_ids.device)))
    return found


def few_layers(model: nn.Module) -> tuple[nn.Module, dict[str, str]]:
    """A copy with the first layer of each kind only, and its layers' names in the whole model."""
    decoder = model.get_decoder()
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        return copy.deepcopy(model), {}
    kinds: dict[tuple[Any, ...], int] = {}
    for index, layer in enumerate(layers):
        kinds.setdefault(_kind(layer), index)
    kept = sorted(kinds.values())
    decoder.layers = nn.ModuleList(layers[index] for index in kept)
    try:
        few = copy.deepcopy(model)
    finally:
        decoder.layers = layers
    config = few.get_decoder().config
    if "layer_types" in vars(config):
        config.layer_types = [config.layer_types[index] for index in kept]
    config.num_hidden_layers = len(kept)
    return few, {f"layers.{place}": f"layers.{index}" for place, index in enumerate(kept)}


def _kind(layer: nn.Module) -> tuple[Any, ...]:
    """What tells kinds of layers apart: their modules, and the window and type of each."""
    return tuple(
        (type(m).__name__, getattr(m, "sliding_window", None), getattr(m, "attention_type", None))
        for m in layer.modules()
    )


def _alone(model: nn.Module, batch: Batch) -> Tensor:
    return torch.cat([single_hidden(model, ids) for ids in batch.token_ids.split(batch.lengths)])


def _row(model: nn.Module, batch: Batch) -> Tensor:
    return row_hidden(model, make_row(batch))


def _together(model: nn.Module, batch: Batch) -> Tensor:
    return _row(model, batch)[make_row(batch).places]


def _gradients(
    model: nn.Module, forward: Callable[[nn.Module, Batch], Tensor], batches: Sequence[Batch]
) -> dict[str, Tensor]:
    """Of a sum of logprobs, weighted unequally; all forward passes before any backward pass."""
    model.zero_grad()
    losses = []
    for batch in batches:
        drawn = batch.sampled.nonzero()[:, 0]
        logits = model.get_output_embeddings()(forward(model, batch)[drawn - 1])
        logprobs = logits.log_softmax(-1).gather(1, batch.token_ids[drawn, None])[:, 0]
        losses.append((logprobs * torch.linspace(-1, 2, len(drawn), device=logits.device)).sum())
    for loss in losses:
        loss.backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def _gradient_fault(
    found: dict[str, Tensor], wanted: dict[str, Tensor], checkpointing: bool
) -> str | None:
    size = torch.stack([g.norm() for g in wanted.values()]).norm()
    gaps = {n: found.get(n, torch.zeros_like(g)) - g for n, g in wanted.items()}
    moved = {name: (gap.norm() / size).item() for name, gap in gaps.items()}
    worst = max(moved, key=lambda name: (math.isnan(moved[name]), moved[name]))
    if moved[worst] <= MOVED:
        return None
    how = " with gradient checkpointing" if checkpointing else ""
    return f"sharing a row moves the gradient of {worst} by {moved[worst]:.2g} of the whole's size{how}"


def _moved(name: str, output: Tensor, expected: Tensor) -> str | None:
    moved = (output - expected).norm(dim=-1).max() / expected.norm(dim=-1).mean()
    if moved <= MOVED:
        return None
    return f"{name} mixes neighbours, whose company moves its output by {moved:.2g} of its size"


@contextmanager
def _checkpointing(model: nn.Module, wanted: bool) -> Iterator[None]:
    training = model.training
    if wanted:
        model.train()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        yield
    finally:
        model.train(training)
        if wanted:
            model.gradient_checkpointing_disable()


@torch.no_grad()
def _outputs(
    model: nn.Module, names: dict[str, str], forward: Callable[[], Tensor]
) -> dict[str, Tensor]:
    """Outputs [T, H] of what each layer is made of, in the order of computing, and of the whole.

    A module that a layer uses several times is left out: a dropout, which computes nothing here.
    """
    seen: dict[str, list[Tensor]] = {}

    def keep(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        seen.setdefault(name, []).append(output.reshape(-1, output.shape[-1]))

    hooks = []
    for name, module in model.get_decoder().named_modules():
        if part := re.fullmatch(r"(\D*\d+)\.\w+", name):  # "layers.0.self_attn"
            known = name.replace(part[1], names.get(part[1], part[1]))
            hooks.append(module.register_forward_hook(partial(keep, known)))
    try:
        whole = forward()
    finally:
        for hook in hooks:
            hook.remove()
    joined = {name: torch.cat(outputs) for name, outputs in seen.items()} | {"the model": whole}
    return {name: output for name, output in joined.items() if len(output) == len(whole)}
