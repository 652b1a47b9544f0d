"""Low-rank adapters (LoRA, arXiv 2106.09685, Eq. 3): W + (alpha / rank) B A, where only A and B are trained.

peft makes the layers. The base W stays in the compute dtype, without masters or moments. A and B
have float32 masters; what the model computes with, and what is published, is the cast of A and of
(alpha / rank) B, so that trainer and engine multiply by the same bytes whatever the factor.

Leaves out adapters of embeddings and heads, and dropout.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from rollouts.adapters import ENGINE_RANKS, AdapterShape
from rollouts.seeds import request_seed

NAME = "default"
"""peft's name of the one adapter."""
SHELL = "policy"
ALL = "all-linear"
STRENGTH = 0.3
"""Size of what a random adapter adds, as a share of what the layer gives: a fault would show."""


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters (LoRA) in place of full weights; they want a ten times higher learning rate."""

    rank: int = 0
    """Of the adapters, 1 to 512; 0 trains the full weights."""
    alpha: float = 32.0
    """What an adapter adds is multiplied by alpha / rank."""
    target_modules: str | tuple[str, ...] = ALL
    """The linear layers that are adapted, by the last parts of their names, such as q_proj v_proj;
    all-linear for every one but the head."""
    dropout: float = 0.0
    """0 only: the policy that is trained must be the one that was published and sampled from."""


def settings_fault(settings: LoraSettings) -> str | None:
    """What is wrong with settings, whatever the model; None if nothing is."""
    rank = settings.rank
    if rank == 0 and settings != LoraSettings():
        return "policy.lora.rank is 0, which trains the full weights: give a rank with the other fields"
    if not 0 <= rank <= ENGINE_RANKS[-1]:
        return f"policy.lora.rank is {rank}: use 1 to {ENGINE_RANKS[-1]}, or 0 for full weights"
    if not 0.0 < settings.alpha < math.inf:
        return f"policy.lora.alpha is {settings.alpha}: use more than 0"
    if settings.dropout:
        return (
            f"policy.lora.dropout is {settings.dropout}: use 0, since dropout would train another "
            "policy than the one that was published and sampled from"
        )
    return None


def target_layers(model: nn.Module, settings: LoraSettings) -> dict[str, nn.Linear]:
    """The linear layers that are adapted, by name.

    Raises ValueError for a target that matches none, with the names that there are.
    """
    head = model.get_output_embeddings()
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    wanted = settings.target_modules
    wanted = (wanted,) if isinstance(wanted, str) else wanted
    if wanted == (ALL,):
        return linear
    for target in wanted or ("",):
        if not any(_ends_with(name, target) for name in linear):
            names = sorted({name.rpartition(".")[2] for name in linear})
            raise ValueError(
                f"policy.lora.target_modules names {target!r}, which is no linear layer of this model "
                f"(its head left out); it has {', '.join(names[:12])}"
            )
    return {n: m for n, m in linear.items() if any(_ends_with(n, target) for target in wanted)}


def adapter_size(folder: Path, settings: LoraSettings) -> int:
    """How many parameters the adapters of a checkpoint would have; reads no weights.

    Example: rank 16 on all linear layers of SmolLM2-135M: 4,884,480.
    Raises ValueError as `target_layers`.
    """
    widths = target_widths(AutoConfig.from_pretrained(folder), settings)
    return settings.rank * sum(map(sum, widths))


def target_widths(config: PreTrainedConfig, settings: LoraSettings) -> list[tuple[int, int]]:
    """Inputs and outputs of each layer that would be adapted, from a model's config alone.

    Raises ValueError as `target_layers`.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    layers = target_layers(model, settings).values()
    return [(layer.in_features, layer.out_features) for layer in layers]


def add_adapters(
    model: nn.Module, settings: LoraSettings, dtype: torch.dtype, seed: int
) -> AdapterShape:
    """Put adapters into a float32 model, which stays what it is: B is zero, A is drawn from the seed.

    The base is frozen and cast to `dtype`; the adapters stay float32.
    """
    from peft import LoraConfig, inject_adapter_in_model

    targets = target_layers(model, settings)
    # peft's own factor is 1: `factors` puts ours into B.
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.rank,
        lora_dropout=0.0,
        target_modules=[f"{SHELL}.{name}" for name in targets],
    )
    # Inside a module without a config: for models with experts peft would move names to these.
    shell = nn.ModuleDict({SHELL: model})
    with torch.random.fork_rng(devices=[]):
        inject_adapter_in_model(config, shell, NAME)
    found = adapted_layers(model)
    assert found.keys() == targets.keys(), "peft adapted other layers than those asked for"
    for name, layer in found.items():
        draw = torch.Generator().manual_seed(request_seed(seed, "lora", name))
        nn.init.kaiming_uniform_(layer.lora_A[NAME].weight, a=math.sqrt(5), generator=draw)
    for param in model.parameters():
        if not param.requires_grad:
            param.data = param.data.to(dtype)
    layers = sorted({name.rpartition(".")[2] for name in targets})
    return AdapterShape(rank=settings.rank, layers=tuple(layers))


def adapted_layers(model: nn.Module) -> dict[str, nn.Module]:
    """peft's layers by the names of those that they wrap."""
    return {n: m for n, m in model.named_modules() if "lora_A" in m._modules}


def factors(model: nn.Module, settings: LoraSettings) -> dict[str, float]:
    """What the master of each parameter is multiplied by before it computes: alpha / rank for B."""
    names = [name for name, _ in model.named_parameters() if ".lora_B." in name]
    return dict.fromkeys(names, settings.alpha / settings.rank)


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """A and B of each layer as an engine takes them: `LAYER.lora_A.weight`. No copies."""
    return {
        f"{name}.{kind}.weight": getattr(layer, kind)[NAME].weight.detach()
        for name, layer in adapted_layers(model).items()
        for kind in ("lora_A", "lora_B")
    }


def base_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model as it would be without adapters. No copies."""
    return {
        name.replace(".base_layer.", "."): tensor.detach()
        for name, tensor in model.state_dict().items()
        if ".lora_A." not in name and ".lora_B." not in name
    }


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """As `base_state`, with B A added in float32 and then cast; the model itself is left alone."""
    state = base_state(model)
    for name, layer in adapted_layers(model).items():
        added = layer.lora_B[NAME].weight.float() @ layer.lora_A[NAME].weight.float()
        weight = state[f"{name}.weight"]
        state[f"{name}.weight"] = (weight.float() + added).to(weight.dtype)
    return state


@contextmanager
def random_adapter(model: nn.Module) -> Iterator[None]:
    """Inside, B is random and adds `STRENGTH` of each layer's output; after, it is itself again."""
    held = []
    try:
        for name, layer in adapted_layers(model).items():
            a, b = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
            held.append((b, b.data))
            draw = torch.Generator().manual_seed(request_seed(0, "random adapter", name))
            ratio = layer.base_layer.weight.float().norm() / a.detach().float().norm()
            drawn = torch.randn(b.shape, generator=draw).to(b.device)
            b.data = (STRENGTH * ratio / math.sqrt(len(b)) * drawn).to(b.dtype)
        yield
    finally:
        for b, data in held:
            b.data = data


def _ends_with(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
