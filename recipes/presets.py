"""Whole configurations by name. A variant calls another and replaces fields."""

from collections.abc import Callable
from dataclasses import replace

from eval.evaluate import EvalConfig
from recipes.algorithms import ALGORITHMS
from recipes.config import RunConfig
from rl.objective import LossConfig
from rl.optimizer import OptimizerConfig
from rl.packing import PackingConfig
from rl.policy import PolicyConfig
from rl.train import TrainConfig
from rollouts.models import DEFAULT_MODEL
from rollouts.prompts import PromptConfig
from rollouts.sampler import EngineConfig
from rollouts.tasks.arithmetic import Arithmetic
from rollouts.tasks.countdown import Countdown


def quickstart() -> RunConfig:
    """GRPO on arithmetic with an instruct model of 135M, on two CPU cores in minutes."""
    return RunConfig(
        model=DEFAULT_MODEL,
        task=Arithmetic(add_max=45),
        train=TrainConfig(
            num_rounds=24,
            problems_per_round=16,
            group_size=16,
            max_tokens=((0, 24),),
            save_every=8,
            keep_last=1,
        ),
        optimizer=OptimizerConfig(learning_rate=4e-5),
        packing=PackingConfig(normalise="token"),
        loss=LossConfig(clip_high=0.28),
        policy=PolicyConfig(micro_batch_tokens=4096),
        test=EvalConfig(split="test", num_problems=256, num_samples=8, max_tokens=24),
        validation=EvalConfig(split="validation", num_problems=64, num_samples=4, max_tokens=24),
    )


def r1_zero() -> RunConfig:
    """R1-Zero as the paper has it: RL straight from a base model (DeepSeek-R1, Nature, Methods).

    The paper leaves out optimizer, weight decay, warm-up, gradient clipping and R1-Zero's clip
    bound. AdamW with betas 0.9 and 0.95, no weight decay, clipping at 1.0 and no warm-up are
    ours; the clip of 10 is R1's first RL stage's. One round is 512 problems x 16, in 16 updates.
    """
    return RunConfig(
        model="deepseek-ai/DeepSeek-V3-Base",
        task=Countdown(num_problems=100_000),
        reward="r1_zero",
        prompts=PromptConfig(template="r1_zero"),
        train=TrainConfig(
            num_rounds=650,
            problems_per_round=512,
            group_size=16,
            updates_per_round=16,
            temperature=1.0,
            max_tokens=((0, 32_768), (8_200, 65_536)),
            evaluate_every=10,
            save_every=1,
        ),
        optimizer=OptimizerConfig(learning_rate=3e-6, betas=(0.9, 0.95)),
        packing=PackingConfig(normalise="sequence", truncated="score"),
        loss=LossConfig(
            anchor="sampler",
            clip_low=10.0,
            clip_high=10.0,
            kl_coefficient=0.001,
            reference_every=400,
        ),
        policy=PolicyConfig(micro_batch_tokens=66_560, gradient_checkpointing=True),
        engine=EngineConfig(max_concurrent=512, compile=True),
        test=EvalConfig(
            split="test",
            num_problems=256,
            num_samples=16,
            temperature=0.6,
            top_p=0.95,
            max_tokens=32_768,
        ),
    )


def r1_zero_tiny() -> RunConfig:
    """The same recipe and template, cut to what two CPU cores do in minutes. It learns the format at best."""
    paper = r1_zero()
    return replace(
        paper,
        model=DEFAULT_MODEL,
        task=Arithmetic(instruction=""),
        train=replace(
            paper.train,
            num_rounds=4,
            problems_per_round=8,
            group_size=8,
            updates_per_round=2,
            max_tokens=((0, 64), (6, 96)),
            evaluate_every=0,
            save_every=2,
        ),
        policy=PolicyConfig(micro_batch_tokens=1024),
        engine=EngineConfig(),
        test=EvalConfig(split="test", num_problems=32, num_samples=4, max_tokens=64),
        best_prompt=False,
    )


def _by(algorithm: Callable[[RunConfig], RunConfig]) -> Callable[[], RunConfig]:
    return lambda: algorithm(quickstart())


PRESETS: dict[str, Callable[[], RunConfig]] = {
    "quickstart": quickstart,
    "r1_zero": r1_zero,
    "r1_zero_tiny": r1_zero_tiny,
} | {name: _by(algorithm) for name, algorithm in ALGORITHMS.items()}
"""Algorithms by name are the quickstart's run by that algorithm."""
