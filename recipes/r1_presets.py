"""Whole pipelines by name. A preset is a function that gives the whole config."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from eval.evaluate import EvalConfig
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
from rl.trainer import TrainConfig
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
    general = RejectionConfig(
        task=Instructions(), num_samples=0, num_rows=200, filters=FilterConfig(format="none")
    )
    return R1Config(
        model=DEFAULT_MODEL,
        r1_zero=_small_zero(),
        cold_start=_small_cold_start(),
        dev1=small_sft(),
        dev2=small_rl(),
        rejection=_small_rejection(2000),
        general=general,
        dev3=small_sft(epochs=2),
        r1=_small_all_scenarios(),
        distill_data=_small_rejection(1200),
        distill=small_sft(epochs=2),
        measure=_small_measure("steps", num_problems=100, num_samples=8, temperature=1.0),
        instructions=_small_measure(
            "instructions", num_problems=50, num_samples=4, temperature=0.7
        ),
        answer_start="The answer is \\boxed{",
    )


def small_rl() -> RunConfig:
    """Reasoning RL: accuracy, format and language."""
    return RunConfig(
        task=Steps(),
        reward="r1",
        measured=False,
        best_prompt=False,
        train=TrainConfig(
            num_rounds=20,
            problems_per_round=16,
            group_size=16,
            max_tokens=((0, SMALL_TOKENS),),
            save_every=5,
            keep_last=1,
        ),
        optimizer=OptimizerConfig(learning_rate=6e-5),
        packing=PackingConfig(normalise="token"),
        loss=LossConfig(clip_high=0.28),
        policy=PolicyConfig(micro_batch_tokens=4096),
        test=EvalConfig(split="test", max_tokens=SMALL_TOKENS),
        validation=EvalConfig(max_tokens=SMALL_TOKENS),
    )


def _small_zero() -> RunConfig:
    """R1-Zero's template and rewards; a base of this size hardly ever ends, so its limit is lower."""
    run = small_rl()
    train = replace(run.train, max_tokens=((0, 96),))
    return replace(run, reward="r1_zero", prompts=PromptConfig(template="r1_zero"), train=train)


def _small_all_scenarios() -> RunConfig:
    """Temperature 0.7 for all of it; general prompts in its last quarter, as in the paper (400 of 1,700)."""
    run = small_rl()
    both = Mixture(tasks=(Steps(), Instructions()), weights=(3.0, 1.0), starts=(0, 6))
    return replace(run, task=both, train=replace(run.train, num_rounds=8, temperature=0.7))


def _small_cold_start() -> RejectionConfig:
    return RejectionConfig(
        task=Steps(),
        prompts=PromptConfig(template="r1_zero"),
        sampling=Sampling(max_tokens=96),
        num_samples=2,
        num_problems=200,
        filters=FilterConfig(format="r1_zero"),
        form="r1",
        num_rows=2600,
    )


def _small_rejection(num_problems: int) -> RejectionConfig:
    return RejectionConfig(
        task=Steps(),
        sampling=Sampling(max_tokens=SMALL_TOKENS),
        num_samples=2,
        num_problems=num_problems,
        fill_up=False,
    )


def small_sft(epochs: int = 1) -> SftConfig:
    """A row of 2,048 tokens holds about 17 worked solutions."""
    return SftConfig(
        optimizer=OptimizerConfig(learning_rate=3e-4, schedule="cosine", warmup_updates=5),
        training=SupervisedConfig(epochs=epochs, max_tokens=2048, batch_size=1, save_every=0),
    )


def _small_measure(benchmark: str, **changed: Any) -> EvaluateConfig:
    return EvaluateConfig(
        models=(),
        benchmarks=(benchmark,),
        protocol="r1",
        top_p=1.0,
        max_tokens=SMALL_TOKENS,
        **changed,
    )


R1_PRESETS: dict[str, Callable[[], R1Config]] = {"smollm2-cpu": smollm2_cpu, **R1_SIZES}
"""By the names of the command line."""
