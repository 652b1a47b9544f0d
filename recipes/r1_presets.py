"""Whole pipelines by name. A preset is a function that gives the whole config."""

from collections.abc import Callable
from dataclasses import replace

from recipes.config import RunConfig
from recipes.evaluation import EvaluateConfig
from recipes.r1_config import R1Config
from recipes.r1_sizes import R1_SIZES
from recipes.rejection_config import RejectionConfig
from recipes.supervised import SftConfig
from rl.objective import LossConfig
from rl.optimizer import OptimizerConfig
from rl.packing import PackingConfig
from rl.policy import PolicyConfig
from rl.sft import SupervisedConfig
from rl.train import TrainConfig
from rollouts.models import DEFAULT_MODEL
from rollouts.prompts import PromptConfig
from rollouts.rejection import FilterConfig
from rollouts.rollout import Sampling
from rollouts.tasks.instructions import Instructions
from rollouts.tasks.mixture import Mixture
from rollouts.tasks.steps import Steps

SMALL_TOKENS = 160
"""Of a completion of the small pipeline: its longest worked solution has 130."""


def smollm2_cpu() -> R1Config:
    """The whole pipeline on two CPU cores, on problems that take steps.

    Departs from the paper where a model of 135M must: an instruct model for a base, worked
    solutions beside R1-Zero's own samples (the row "R1-Zero from Dev1" shows what these bring),
    requirements that rules check for a preference model, and every number of updates.
    """
    reasoning = _small_rl()
    zero = replace(
        reasoning,
        reward="r1_zero",
        prompts=PromptConfig(template="r1_zero"),
        train=replace(reasoning.train, num_rounds=8, max_tokens=((0, 96),)),
    )
    all_scenarios = replace(
        reasoning,
        task=Mixture(tasks=(Steps(), Instructions()), weights=(3.0, 1.0), starts=(0, 4)),
        train=replace(reasoning.train, num_rounds=6, temperature=0.7),
    )
    sampled = Sampling(temperature=1.0, max_tokens=SMALL_TOKENS)
    dev1 = _small_sft(3e-4)
    rejection = RejectionConfig(
        task=Steps(),
        sampling=sampled,
        num_samples=2,
        num_problems=800,
        filters=FilterConfig(),
        num_rows=800,
        fill_up=False,
    )
    return R1Config(
        model=DEFAULT_MODEL,
        r1_zero=zero,
        cold_start=RejectionConfig(
            task=Steps(),
            prompts=PromptConfig(template="r1_zero"),
            sampling=replace(sampled, max_tokens=96),
            num_samples=2,
            num_problems=200,
            filters=FilterConfig(format="r1_zero"),
            form="r1",
            num_rows=1000,
        ),
        dev1=dev1,
        dev2=reasoning,
        rejection=rejection,
        general=RejectionConfig(
            task=Instructions(),
            num_samples=0,
            num_rows=200,
            filters=FilterConfig(format="none"),
        ),
        dev3=dev1,
        r1=all_scenarios,
        distill_data=rejection,
        distill=dev1,
        measure=EvaluateConfig(
            models=(),
            benchmarks=("steps",),
            protocol="r1",
            num_problems=100,
            num_samples=8,
            temperature=1.0,
            top_p=1.0,
            max_tokens=SMALL_TOKENS,
        ),
        instructions=EvaluateConfig(
            models=(),
            benchmarks=("instructions",),
            protocol="r1",
            num_problems=50,
            num_samples=4,
            temperature=0.7,
            top_p=1.0,
            max_tokens=SMALL_TOKENS,
        ),
    )


def _small_rl() -> RunConfig:
    return RunConfig(
        task=Steps(),
        reward="r1",
        measured=False,
        best_prompt=False,
        train=TrainConfig(
            num_rounds=14,
            problems_per_round=16,
            group_size=16,
            max_tokens=((0, SMALL_TOKENS),),
            save_every=5,
            keep_last=1,
        ),
        optimizer=OptimizerConfig(learning_rate=1e-4),
        packing=PackingConfig(normalise="token"),
        loss=LossConfig(clip_high=0.28),
        policy=PolicyConfig(micro_batch_tokens=4096),
    )


def _small_sft(rate: float) -> SftConfig:
    return SftConfig(
        optimizer=OptimizerConfig(learning_rate=rate, schedule="cosine", warmup_updates=5),
        training=SupervisedConfig(epochs=1, max_tokens=2048, batch_size=1, save_every=0),
    )


R1_PRESETS: dict[str, Callable[[], R1Config]] = {"smollm2-cpu": smollm2_cpu, **R1_SIZES}
"""By the names of the command line."""
