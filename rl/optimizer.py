"""AdamW on float32 masters while the model computes in bfloat16 (or float32).

Gradients leave the model as soon as they exist and are summed in float32, so that many
micro-batches add up exactly; after a step the model holds the cast of the masters, which is
also what is published.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


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
    """Holds masters, gradients and moments by parameter name."""

    def __init__(
        self,
        model: nn.Module,
        config: OptimizerConfig,
        dtype: torch.dtype,
        factors: Mapping[str, float] | None = None,
    ):
        """Take float32 parameters as masters and leave `dtype` copies of them in the model.

        Parameters named in `factors` compute as that many times their master (LoRA's B).
        """
        self.config = config
        self._factors = factors or {}
        self._params = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.masters = {name: param.detach().float() for name, param in self._params.items()}
        for name, param in self._params.items():
            param.data = self._computed(name).to(dtype)
            self.masters[name].grad = torch.zeros_like(self.masters[name])
            collector = self._collector(self.masters[name], self._factors.get(name, 1.0))
            param.register_post_accumulate_grad_hook(collector)
        self._adamw = torch.optim.AdamW(
            list(self.masters.values()),
            lr=config.learning_rate,
            betas=config.betas,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def step(self, rate: float) -> float:
        """Clip, step, cast; gives the gradient's norm before clipping and zeroes the gradients."""
        masters = list(self.masters.values())
        norm = torch.nn.utils.get_total_norm([m.grad for m in masters])
        if not torch.isfinite(norm):
            self.zero_grad()
            raise NonFiniteGradientError(f"the gradient's norm is {norm.item()}")
        torch.nn.utils.clip_grads_with_norm_(masters, self.config.max_grad_norm, norm)
        for settings in self._adamw.param_groups:
            settings["lr"] = rate
        self._adamw.step()
        self.zero_grad()
        self.cast()
        return norm.item()

    def zero_grad(self) -> None:
        """Forget gradients summed so far."""
        for master in self.masters.values():
            master.grad.zero_()

    def cast(self) -> None:
        """Write the masters into the model, in the model's dtype."""
        for name, param in self._params.items():
            param.data.copy_(self._computed(name))

    def state(self) -> dict[str, Tensor]:
        """Masters and moments by name, for a checkpoint; the tensors are the living ones."""
        tensors = {f"master/{name}": master for name, master in self.masters.items()}
        for name, master in self.masters.items():
            for key, value in self._adamw.state.get(master, {}).items():
                tensors[f"{key}/{name}"] = value
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        for name, master in self.masters.items():
            master.data.copy_(tensors[f"master/{name}"])
            moments = {
                key: tensors[f"{key}/{name}"].clone()
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}/{name}" in tensors
            }
            self._adamw.state.pop(master, None)
            if moments:
                self._adamw.state[master] = moments
        self.cast()

    def _computed(self, name: str) -> Tensor:
        """What the model computes with, before the cast."""
        master = self.masters[name].detach()
        return master * self._factors[name] if name in self._factors else master

    @staticmethod
    def _collector(master: Tensor, factor: float):
        def collect(param: Tensor) -> None:
            master.grad.add_(param.grad, alpha=factor)
            param.grad = None

        return collect
