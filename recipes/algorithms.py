"""Algorithms by the names of their papers: each replaces what its paper is about in a run.

Model, task, sizes and learning rate stay the run's. What a paper leaves open is left as the run
has it. `python -m recipes.quickstart dapo` is the quickstart by DAPO.
"""

from collections.abc import Callable
from dataclasses import replace

from recipes.config import RunConfig
from rl.objective import LossConfig
from rl.packing import PackingConfig


def grpo(run: RunConfig) -> RunConfig:
    """GRPO as DeepSeekMath has it (arXiv 2402.03300): mean by completion, std, k3 at 0.04.

    The clip is not printed; 0.2 is what reimplementations use.
    """
    return replace(
        run,
        packing=PackingConfig(advantage_scale="std", normalise="sequence"),
        loss=LossConfig(kl="k3", kl_coefficient=0.04),
    )


def dr_grpo(run: RunConfig) -> RunConfig:
    """Dr. GRPO (arXiv 2503.20783): no std, a constant divisor, no KL."""
    return replace(
        run,
        packing=PackingConfig(advantage_scale="none", normalise="constant"),
        loss=LossConfig(),
    )


def dapo(run: RunConfig) -> RunConfig:
    """DAPO (arXiv 2503.14476): token mean, clip-higher, dynamic sampling, soft overlong, no KL.

    The dual clip of 10 and at most 10 samplings a round are those of its authors' script. The paper
    keeps groups neither all right nor all wrong; here those whose rewards differ, length included.
    """
    return replace(
        run,
        reward="dapo",
        packing=PackingConfig(advantage_scale="std", normalise="token"),
        loss=LossConfig(clip_low=0.2, clip_high=0.28, dual_clip=10.0),
        train=replace(run.train, refills=9),
    )


def gspo(run: RunConfig) -> RunConfig:
    """GSPO (arXiv 2507.18071): one clipped ratio a completion, four updates a round, no KL."""
    return replace(
        run,
        packing=PackingConfig(advantage_scale="std", normalise="sequence"),
        loss=LossConfig(
            objective="gspo", clip_low=3e-4, clip_high=4e-4, importance_level="sequence"
        ),
        train=replace(run.train, updates_per_round=4),
    )


def cispo(run: RunConfig) -> RunConfig:
    """CISPO (MiniMax-M1, arXiv 2506.13585): a capped weight that drops no token, a float32 head.

    The cap is not printed; 5, which is ScaleRL's (arXiv 2510.13786), is 1 + clip_high.
    """
    return replace(
        run,
        packing=PackingConfig(advantage_scale="std", normalise="token"),
        loss=LossConfig(objective="cispo", clip_high=4.0),
        optimizer=replace(run.optimizer, betas=(0.9, 0.95), epsilon=1e-15),
        policy=replace(run.policy, float32_head=True),
    )


def sapo(run: RunConfig) -> RunConfig:
    """SAPO (arXiv 2511.20347): a soft gate instead of a clip, sharper for bad tokens."""
    return replace(
        run,
        packing=PackingConfig(advantage_scale="std", normalise="sequence"),
        loss=LossConfig(objective="sapo", sapo_temperatures=(1.0, 1.05)),
    )


def dppo(run: RunConfig) -> RunConfig:
    """DPPO (arXiv 2602.04879): tokens masked by how far their probability moved from the sampler's."""
    return replace(
        run,
        loss=LossConfig(objective="dppo", anchor="sampler", dppo_delta=0.15, importance_cap=5.0),
    )


def maxrl(run: RunConfig) -> RunConfig:
    """MaxRL (arXiv 2602.02710): centred rewards over the success rate, for rewards of 0 and 1."""
    return replace(run, packing=replace(run.packing, advantage_scale="maxrl"))


def rloo(run: RunConfig) -> RunConfig:
    """RLOO (arXiv 2402.14740): each completion against the mean of the others.

    The paper has one update a round and no clip; here the clip stays, which one update never meets.
    """
    return replace(
        run,
        packing=PackingConfig(advantage_scale="leave_one_out", normalise="constant"),
        loss=LossConfig(),
    )


def lite_ppo(run: RunConfig) -> RunConfig:
    """Lite PPO (arXiv 2508.08221): the group's mean, the batch's std, token mean."""
    return replace(
        run,
        packing=PackingConfig(advantage_scale="batch_std", normalise="token"),
        loss=LossConfig(),
    )


ALGORITHMS: dict[str, Callable[[RunConfig], RunConfig]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "dapo": dapo,
    "gspo": gspo,
    "cispo": cispo,
    "sapo": sapo,
    "dppo": dppo,
    "maxrl": maxrl,
    "rloo": rloo,
    "lite_ppo": lite_ppo,
}
