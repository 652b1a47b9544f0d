"""How good a rollout was, beside the others of its group. Pure.

Shapes: G group.
"""

from typing import Literal

import torch
from torch import Tensor

from rollouts.rollout import SIGNAL_TOLERANCE


def group_advantages(
    rewards: Tensor, *, scale: Literal["std", "none"] = "std", epsilon: float = 1e-6
) -> Tensor:
    """Group-normalised advantages, [G] to [G], in float64.

    A_i = (r_i - mean(r)) / (std(r) + epsilon)   (DeepSeekMath, section 4.1.2; DeepSeek-R1, Eq. 3)

    Neither paper says which std or epsilon: std here is the sample one (divisor G - 1) and
    epsilon 1e-6, as TRL and verl have them up to epsilon. `scale="none"` leaves the std out (Dr. GRPO).
    A group whose rewards are equal to within 1e-9 has advantage exactly 0.

    Example: rewards (0, 1, 0, 0): mean 0.25, std 0.5, advantages (-0.5, 1.5, -0.5, -0.5).
    """
    if rewards.ndim != 1 or len(rewards) < 2:
        raise ValueError(
            f"a group needs at least 2 rewards, got shape {tuple(rewards.shape)}: "
            "raise group_size to 2 or more"
        )
    rewards = rewards.double()
    if not has_signal(rewards):
        return torch.zeros_like(rewards)
    centred = rewards - rewards.mean()
    return centred / (rewards.std() + epsilon) if scale == "std" else centred


def has_signal(rewards: Tensor) -> bool:
    """False where all rewards of a group are equal after rounding to 1e-9."""
    return bool(rewards.max() - rewards.min() > SIGNAL_TOLERANCE)
