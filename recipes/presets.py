"""Whole configurations by name, for each recipe. A variant calls another and replaces fields.

Papers' runs are in recipes/papers.py, R1-Zero by size in recipes/sizes.py, algorithms alone in
recipes/algorithms.py. docs/presets.md is written from here: `python -m recipes.preset_table`.
"""

from collections.abc import Callable
from dataclasses import replace

from eval.evaluate import EvalConfig
from recipes.algorithms import ALGORITHMS
from recipes.config import RunConfig
from recipes.papers import PAPER_FACTS, PAPERS, r1_zero
from recipes.preset_facts import PresetFacts
from recipes.sizes import SIZE_FACTS, SIZES
from rl.objective import LossConfig
from rl.optimizer import OptimizerConfig
from rl.packing import PackingConfig
from rl.policy import PolicyConfig
from rl.trainer import TrainConfig
from rollouts.models import DEFAULT_MODEL
from rollouts.sampler import EngineConfig
from rollouts.tasks.arithmetic import Arithmetic


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
        validation=EvalConfig(num_problems=32, num_samples=4, max_tokens=64),
        best_prompt=False,
    )


def _by(algorithm: Callable[[RunConfig], RunConfig]) -> Callable[[], RunConfig]:
    return lambda: algorithm(quickstart())


Presets = dict[str, Callable[[], RunConfig]]

QUICKSTART_PRESETS: Presets = {
    "quickstart": quickstart,
    "r1_zero_tiny": r1_zero_tiny,
    **{name: _by(algorithm) for name, algorithm in ALGORITHMS.items()},
}
"""Of recipes.quickstart: algorithms by name are the quickstart's run by that algorithm."""

R1_ZERO_PRESETS: Presets = {
    **PAPERS,
    **SIZES,
    "r1_zero_tiny": r1_zero_tiny,
    "quickstart": quickstart,
}
"""Of recipes.r1_zero: papers by name are the paper's own run."""

RECIPES: dict[str, Presets] = {"r1_zero": R1_ZERO_PRESETS, "quickstart": QUICKSTART_PRESETS}
"""By the module that a person types."""

PRESETS: Presets = {**QUICKSTART_PRESETS, **R1_ZERO_PRESETS}
"""All by name; of a name that both have, r1_zero's: dapo is the paper's run, sapo the quickstart's."""

_TWO_CORES = PresetFacts(
    about="GRPO on arithmetic with an instruct model of 135M",
    device="cpu",
    hardware="two CPU cores, 8 GB of memory",
    data="sums, differences and products of small numbers, generated",
    licence="SmolLM2-135M-Instruct: Apache-2.0",
    hours="0.1 (measured)",
    mean_tokens=14,
    prompt_tokens=50,
    expected="pass@1 4.8 to 63.4 on held-out problems, one seed (README)",
    ours="all of it",
    ran="run here (README, LOG.md)",
)

FACTS: dict[str, PresetFacts] = {
    **PAPER_FACTS,
    **SIZE_FACTS,
    "r1_zero_tiny": replace(
        _TWO_CORES,
        about="R1-Zero's recipe cut to two cores, for trying it",
        hours="minutes (its tests run it)",
        mean_tokens=64,
        prompt_tokens=150,
        expected="the format at best",
        ran="run by the tests",
    ),
    "quickstart": _TWO_CORES,
}
"""Of `R1_ZERO_PRESETS`, beside them. An algorithm on the quickstart's run has none of its own."""


def facts_of(presets: Presets, name: str) -> PresetFacts | None:
    """What is known of a preset, as these presets mean its name."""
    return FACTS.get(name) if presets.get(name) is PRESETS[name] else None
