"""How good a rollout was, beside the others of its group. Pure.

Shapes: G group.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from rollouts.rollout import SIGNAL_TOLERANCE

AdvantageScale = Literal["std", "none", "leave_one_out", "batch_std", "maxrl"]


def group_advantages(
    rewards: Tensor,
    *,
    scale: AdvantageScale = "std",
    epsilon: float = 1e-6,
    batch_std: float | None = None,
) -> Tensor:
    """Group-relative advantages, [G] to [G], in float64, whose sum is 0 whatever the scale.

    With the group's mean m = mean(r) and the example (0, 1, 0, 0):
        std            (r_i - m) / (std(r) + epsilon)             (-0.5, 1.5, -0.5, -0.5)
            DeepSeekMath, section 4.1.2; DeepSeek-R1, Eq. 3. Neither says which std or epsilon:
            here the sample one (divisor G - 1), as in TRL and verl, whose epsilons differ.
        none           r_i - m                                    (-1/4, 3/4, -1/4, -1/4)
            Dr. GRPO (Liu et al. 2025, arXiv 2503.20783).
        leave_one_out  r_i - mean of the others = (r_i - m) G / (G - 1)    (-1/3, 1, -1/3, -1/3)
            RLOO (Ahmadian et al. 2024, arXiv 2402.14740).
        batch_std      (r_i - m) / (batch_std + epsilon)    (-1/2, 3/2, -1/2, -1/2) where it is 1/2
            Lite PPO (arXiv 2508.08221); `batch_standard_deviation` gives the divisor.
        maxrl          (r_i - m) / m                              (-1, 3, -1, -1)
            MaxRL (Tajwar et al. 2026, arXiv 2602.02710), for rewards from 0 to 1. The authors'
            code adds 1e-6 to m in one estimator and nothing in another. A group all wrong has
            no signal here; on average that is the paper's series for log p up to order G - 1.

    A group whose rewards are equal to within 1e-9 has advantage exactly 0. Raises ValueError for
    fewer than two rewards, a missing `batch_std`, and under maxrl a reward outside 0..1.
    """
    if rewards.ndim != 1 or len(rewards) < 2:
        raise ValueError(
            f"a group needs at least 2 rewards, got shape {tuple(rewards.shape)}: "
            "raise group_size to 2 or more"
        )
    if scale == "batch_std" and batch_std is None:
        raise ValueError(
            "scale='batch_std' got no batch_std: give batch_standard_deviation of all groups' rewards"
        )
    rewards = _success_rates(rewards.double()) if scale == "maxrl" else rewards.double()
    if not has_signal(rewards):
        return torch.zeros_like(rewards)
    centred = rewards - rewards.mean()
    match scale:
        case "std":
            return centred / (rewards.std() + epsilon)
        case "none":
            return centred
        case "leave_one_out":
            return centred * len(rewards) / (len(rewards) - 1)
        case "batch_std":
            return centred / (batch_std + epsilon)
        case "maxrl":
            return centred / rewards.mean()
        case _:
            raise ValueError(
                f"unknown scale {scale!r}: choose std, none, leave_one_out, batch_std or maxrl"
            )


def batch_standard_deviation(rewards: Sequence[Tensor]) -> float:
    """The sample standard deviation of all rewards of all groups, for `scale="batch_std"`.

    Groups without signal count. 0 for fewer than two rewards. Example: groups (1, 0) and (0, 0):
    mean 1/4, squares 9/16 and 3 times 1/16, over 3: 1/4, so 0.5.
    """
    values = torch.cat([group.double() for group in rewards]) if rewards else torch.zeros(0)
    return values.std().item() if len(values) > 1 else 0.0


def has_signal(rewards: Tensor) -> bool:
    """False where all rewards of a group are equal after rounding to 1e-9."""
    return bool(rewards.max() - rewards.min() > SIGNAL_TOLERANCE)


def _success_rates(rewards: Tensor) -> Tensor:
    """The same rewards, if they lie in 0..1 up to rounding: their mean is what maxrl divides by."""
    outside = rewards[(rewards < -SIGNAL_TOLERANCE) | (rewards > 1.0 + SIGNAL_TOLERANCE)]
    if len(outside):
        raise ValueError(
            f"maxrl needs rewards from 0 to 1, got {outside[0].item():g}: "
            "score right as 1 and wrong as 0, or choose another advantage scale"
        )
    return rewards.clamp(0.0, 1.0)
