"""AdamW on float32 masters while the model computes in bfloat16 (or float32).

Gradients leave the model as soon as they exist and are summed in float32, so that many
micro-batches add up exactly; after a step the model holds the cast of the masters, which is
also what is published.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from rl.eight_bit import eight_bit_adamw, eight_bit_step, moment_from, moment_tensors
from rl.fsdp import cut_as, gathered, is_sharded, local, part_of
from rl.ranks import ALONE, Ranks

SHARDED_KINDS = ("master", "exp_avg", "exp_avg_sq")
"""Of the tensors that are cut as their parameters are."""
KINDS = (*SHARDED_KINDS, "step")
"""Of the tensors that a checkpoint holds."""
FIRST_SCALE = 2.0**16
GROW_EVERY = 2000
LOSS_SCALE = "step/loss_scale"


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW and its learning-rate schedule; updates are optimizer steps."""

    learning_rate: float = 1e-6
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the first and second moment."""
    epsilon: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.0
    """Decoupled weight decay, of every parameter."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm over all parameters."""
    warmup_updates: int = 0
    """Updates over which the learning rate rises linearly from zero."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After warm-up: stay, or fall to `final_learning_rate_frac` by the run's last update."""
    final_learning_rate_frac: float = 0.1
    """Of the peak, at the last update."""
    states: Literal["float32", "8bit", "bfloat16"] = "float32"
    """float32: masters and moments. 8bit: float32 masters and moments in 8 bits (rl/eight_bit.py;
    needs torchao), half of the memory. bfloat16: no masters, and moments in the model's dtype: a
    third of the memory, but changes below a 256th of a weight are lost; for comparisons. Adapters
    keep float32 for bfloat16."""
    offload: bool = False
    """Keep masters and moments in the host's memory and step there; nothing to do on CPU."""


def learning_rate(config: OptimizerConfig, update: int, num_updates: int) -> float:
    """The learning rate of `update` (from 0) in a run of `num_updates`.

    Example: peak 1, 2 warm-up updates, constant: 0.5, 1, 1, 1.
    """
    if update < config.warmup_updates:
        return config.learning_rate * (update + 1) / config.warmup_updates
    if config.schedule == "constant":
        return config.learning_rate
    falling = max(1, num_updates - 1 - config.warmup_updates)
    progress = min(1.0, (update - config.warmup_updates) / falling)
    fall = 1.0 - progress if config.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    floor = config.final_learning_rate_frac
    return config.learning_rate * (floor + (1 - floor) * fall)


class NonFiniteGradientError(RuntimeError):
    """A loss or gradient is NaN or infinite; the parameters were left as they were."""


class MasterOptimizer:
    """Holds masters, gradients and moments by parameter name.

    With float16 the loss is multiplied by `loss_scale`, so that small gradients are not lost; a
    gradient that overflows halves the scale and its step is skipped, `GROW_EVERY` steps without
    one double it (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2).

    Several processes step alike: gradients are summed over them first. Of sharded parameters each
    process holds and steps its own part, which is a master already.
    """

    def __init__(
        self,
        model: nn.Module,
        config: OptimizerConfig,
        dtype: torch.dtype,
        factors: Mapping[str, float] | None = None,
        ranks: Ranks = ALONE,
    ):
        """Take float32 parameters as masters and leave `dtype` copies of them in the model.

        Parameters named in `factors` compute as that many times their master (LoRA's B).
        """
        self.config, self._ranks = config, ranks
        self.loss_scale = FIRST_SCALE if dtype == torch.float16 else 1.0
        self._good_steps = 0
        self._factors = factors or {}
        self._params = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._summed: set[str] = set()
        self.masters: dict[str, Tensor] = {}
        for name, param in self._params.items():
            if is_sharded(param):
                self.masters[name] = local(param)
            elif config.states != "bfloat16" or self._factors:
                self.masters[name] = self._master(name, param, dtype)
            else:
                param.data = param.detach().to(dtype)
                self.masters[name] = param
        self._adamw = _adamw(self.masters.values(), config)

    def step(self, rate: float) -> float:
        """Clip, step, cast; gives the gradient's norm before clipping and forgets the gradients.

        Raises NonFiniteGradientError with nothing changed, where no smaller loss scale helps.
        """
        norm = self._gradient_norm() / self.loss_scale
        if not math.isfinite(norm):
            self.zero_grad()
            if self.loss_scale <= 1.0:
                raise NonFiniteGradientError(f"the gradient's norm is {norm}")
            self.loss_scale, self._good_steps = self.loss_scale / 2, 0
            return norm
        clip = max(1.0, (norm + 1e-6) / self.config.max_grad_norm)
        if self.config.states == "8bit":
            eight_bit_step(self._adamw, rate, self.loss_scale * clip)
        else:
            # The kernel divides by it on its way: a pass over all gradients less.
            self._adamw.grad_scale = torch.tensor(self.loss_scale * clip)
            for settings in self._adamw.param_groups:
                settings["lr"] = rate
            self._adamw.step()
        self.zero_grad()
        self.cast()
        self._grow()
        return norm

    def zero_grad(self) -> None:
        """Forget gradients summed so far."""
        self._summed.clear()
        for param in self._params.values():
            param.grad = None

    def cast(self) -> None:
        """Write the masters into the model, in the model's dtype."""
        for name, param in self._params.items():
            if self.masters[name] is not param and not is_sharded(param):
                param.data.copy_(self._computed(name))

    def state(self, kinds: Sequence[str] = KINDS) -> dict[str, Tensor]:
        """Masters and moments as `KIND/NAME`, for a checkpoint.

        Whole tensors: the living ones, or where parameters are sharded copies on the CPU.
        """
        tensors: dict[str, Tensor] = {}
        for name in self.masters:
            held = self._held(name)
            for kind in [kind for kind in kinds if kind in held]:  # in every process's order
                whole = held[kind] if kind == "step" else gathered(held[kind], self._params[name])
                whole = whole.cpu() if self._is_sharded else whole
                tensors |= moment_tensors(f"{kind}/{name}", whole)
        if "step" in kinds and self.loss_scale > 1.0:
            tensors[LOSS_SCALE] = torch.tensor([self.loss_scale, float(self._good_steps)])
        return tensors

    def shards(self, kind: str) -> dict[str, Tensor]:
        """One of `SHARDED_KINDS` by name, cut as the parameters are (DTensors), nothing gathered.

        None before the first update has made moments. Not for moments in 8 bits.
        """
        held = {name: self._held(name).get(kind) for name in self.masters}
        return {n: cut_as(t, self._params[n]) for n, t in held.items() if t is not None}

    def moments(self) -> dict[str, Tensor]:
        """This process's part of each moment, as `KIND/NAME`, in the bits that AdamW holds."""
        return {
            f"{kind}/{name}": held
            for name in self.masters
            for kind, held in self._held(name).items()
            if kind in SHARDED_KINDS[1:]
        }

    def load(
        self, tensors: dict[str, Tensor], part: Callable[[Tensor, Tensor], Tensor] = part_of
    ) -> None:
        """Take back what `state` gave; `part` takes this process's part of a parameter's tensor."""
        for name, master in self.masters.items():
            param = self._params[name]
            master.data.copy_(part(tensors[f"master/{name}"], param))
            moments = {}
            for key in ("exp_avg", "exp_avg_sq"):
                place = f"{key}/{name}"
                mine = {place: part(tensors[place], param)} if place in tensors else tensors
                if (moment := moment_from(place, mine, master)) is not None:
                    moments[key] = moment
            if moments:
                moments["step"] = tensors[f"step/{name}"].to("cpu", copy=True)
            self._adamw.state.pop(master, None)
            if moments:
                self._adamw.state[master] = moments
        if LOSS_SCALE in tensors:
            self.loss_scale, self._good_steps = tensors[LOSS_SCALE].tolist()
        self.cast()

    def checksum(self) -> int:
        """Of the masters' bytes; processes that hold whole parameters must have the same."""
        if self._is_sharded:
            return 0
        words = {4: torch.int32, 2: torch.int16}
        masters = (master.detach() for master in self.masters.values())
        return sum(int(m.view(words[m.itemsize]).sum(dtype=torch.int64)) for m in masters)

    def _gradient_norm(self) -> float:
        """Of the gradient summed over all processes, the same number in each."""
        gradients = [master.grad for master in self._with_gradients()]
        if self._is_sharded:
            square = torch.nn.utils.get_total_norm(gradients).double().square()
            self._ranks.add([square])
            return square.sqrt().item()
        self._ranks.add(gradients)
        # Sums of equal numbers may round differently on another machine.
        return self._ranks.from_first(lambda: torch.nn.utils.get_total_norm(gradients).item())

    def _held(self, name: str) -> dict[str, Tensor]:
        """By kind, this process's part."""
        master = self.masters[name]
        return {"master": master.detach(), **self._adamw.state.get(master, {})}

    @property
    def _is_sharded(self) -> bool:
        return any(is_sharded(param) for param in self._params.values())

    def _computed(self, name: str) -> Tensor:
        """What the model computes with, before the cast."""
        master = self.masters[name].detach()
        return master * self._factors[name] if name in self._factors else master

    def _master(self, name: str, param: nn.Parameter, dtype: torch.dtype) -> Tensor:
        home = torch.device("cpu") if self.config.offload else param.device
        factor = self._factors.get(name, 1.0)
        master = param.detach().to(home, torch.float32)
        param.data = (param.detach() * factor).to(dtype)
        master.grad = torch.empty_like(master)

        def collect(param: Tensor) -> None:
            if name in self._summed:
                master.grad.add_(param.grad.to(home), alpha=factor)
            else:
                master.grad.copy_(param.grad)
                if factor != 1.0:
                    master.grad.mul_(factor)
            self._summed.add(name)
            param.grad = None

        param.register_post_accumulate_grad_hook(collect)
        return master

    def _with_gradients(self) -> list[Tensor]:
        """All masters; those that nothing reached have a gradient of zero."""
        for name, master in self.masters.items():
            param = self._params[name]
            if master is param or is_sharded(param):
                held = torch.zeros_like(param) if param.grad is None else param.grad
                master.grad = local(held)
            elif name not in self._summed:
                master.grad.zero_()
        return list(self.masters.values())

    def _grow(self) -> None:
        self._good_steps += 1
        if self.loss_scale > 1.0 and self._good_steps >= GROW_EVERY:
            self.loss_scale, self._good_steps = self.loss_scale * 2, 0


def _adamw(masters: Iterable[Tensor], config: OptimizerConfig) -> torch.optim.Optimizer:
    settings = {
        "lr": config.learning_rate,
        "betas": config.betas,
        "eps": config.epsilon,
        "weight_decay": config.weight_decay,
    }
    if config.states == "8bit":
        return eight_bit_adamw(masters, **settings)
    return torch.optim.AdamW(list(masters), fused=True, **settings)
