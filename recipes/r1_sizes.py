"""DeepSeek-R1's pipeline with the paper's numbers, and on Qwen2.5: `python -m recipes.r1 qwen2.5-7b`.

RL stages have model, lengths and hardware of the R1-Zero preset of their size (recipes/papers.py,
recipes/sizes.py) and differ where the paper's stages do. What is scaled keeps the paper's
proportions: R1's last stage is 1,700 of 10,400 updates long, its last 400 with general prompts.
"""

from dataclasses import dataclass, replace

from recipes import papers, sizes
from recipes.config import RunConfig
from recipes.evaluation import EvaluateConfig
from recipes.r1_config import R1Config
from recipes.rejection_config import RejectionConfig
from recipes.supervised import SftConfig
from rl.optimizer import OptimizerConfig
from rl.sft import SupervisedConfig
from rollouts.prompts import PromptConfig
from rollouts.rejection import FilterConfig
from rollouts.rollout import Sampling
from rollouts.tasks.dataset import Dataset
from rollouts.tasks.instructions import Instructions
from rollouts.tasks.mixture import Mixture

R1_UPDATES, R1_GENERAL, ZERO_UPDATES = 1_700, 400, 10_400
"""Updates of R1's last stage, those of it with general prompts, and those of R1-Zero."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What a size of the pipeline chooses.

    Attributes:
        cold_rows: Examples of the cold start; "thousands" in the paper.
        dev2_rounds: Of reasoning RL; not printed.
        r1_rounds: Of the last stage.
        samples: Of each problem in rejection sampling.
        general_rows: Of Dev3's data; 200,000 in the paper.
        student_rate: Learning rate of the student (supplement B.4.3).
        processes: Of every stage that trains.
    """

    cold_rows: int
    dev2_rounds: int
    r1_rounds: int
    samples: int
    general_rows: int
    student_rate: float
    benchmarks: tuple[str, ...]
    processes: int


PAPER = Scale(
    cold_rows=5_000,
    dev2_rounds=250,
    r1_rounds=106,
    samples=16,
    general_rows=1_000,
    student_rate=6e-5,
    benchmarks=("aime_2024", "math500"),
    processes=512,
)
SMALL = Scale(
    cold_rows=2_000,
    dev2_rounds=100,
    r1_rounds=33,
    samples=4,
    general_rows=500,
    student_rate=1e-4,
    benchmarks=("gsm8k", "math500"),
    processes=1,
)


def paper() -> R1Config:
    """DeepSeek-R1 from DeepSeek-V3-Base: the paper's learning rates, sizes, lengths and updates."""
    zero = replace(papers.r1_zero(), task=papers.dapo_math(wrapped=False))
    return pipeline(zero, PAPER)


def qwen25_32b() -> R1Config:
    """The paper's numbers on Qwen2.5-32B, which DeepSeek trained by R1-Zero's stage alone."""
    return pipeline(sizes.qwen25_32b(), replace(PAPER, samples=8, processes=64))


def qwen25_7b() -> R1Config:
    """One node of eight GPUs with 80 GB."""
    scale = Scale(
        cold_rows=2_000,
        dev2_rounds=125,
        r1_rounds=41,
        samples=8,
        general_rows=500,
        student_rate=8e-5,
        benchmarks=("aime_2024", "math500"),
        processes=8,
    )
    return pipeline(sizes.qwen25_7b(), scale)


def qwen25_15b() -> R1Config:
    """One GPU with 80 GB."""
    return pipeline(sizes.qwen25_15b(), SMALL)


def qwen25_05b() -> R1Config:
    """One GPU with 24 GB."""
    return pipeline(sizes.qwen25_05b(), replace(SMALL, cold_rows=1_000))


def pipeline(zero: RunConfig, scale: Scale) -> R1Config:
    """Every stage from R1-Zero's run."""
    zero = replace(zero, measured=False, best_prompt=False)
    asked = replace(zero.task, instruction=papers.BOXED)
    dev2 = replace(
        zero,
        task=asked,
        reward="r1",
        prompts=PromptConfig(max_prompt_tokens=zero.prompts.max_prompt_tokens),
        train=replace(
            zero.train, num_rounds=scale.dev2_rounds, max_tokens=zero.train.max_tokens[-1:]
        ),
    )
    dev2 = papers.limited(dev2, (0, min(32_768, zero.train.max_tokens[-1][1])))
    limit = dev2.train.max_tokens[-1][1]
    sft = _supervised(dev2, 5e-5, 128, scale.processes)
    sampled = _sampled(dev2, asked, limit, scale)
    measure = EvaluateConfig(
        models=(),
        benchmarks=scale.benchmarks,
        protocol="r1",
        max_tokens=limit,
        engine=replace(zero.engine, gpu_memory_frac=0.9),
    )
    general = Instructions()
    return R1Config(
        model=zero.model,
        r1_zero=zero,
        cold_start=replace(
            sampled,
            task=zero.task,
            prompts=zero.prompts,
            filters=FilterConfig(format="r1_zero"),
            form="r1",
            num_rows=scale.cold_rows,
        ),
        dev1=sft,
        dev2=dev2,
        rejection=sampled,
        general=replace(
            sampled,
            task=general,
            num_samples=0,
            num_rows=scale.general_rows,
            fill_up=True,
            filters=FilterConfig(format="none"),
        ),
        dev3=sft,
        r1=_last_stage(dev2, general, scale),
        distill_data=sampled,
        distill=_supervised(dev2, scale.student_rate, 64, scale.processes),
        measure=measure,
        instructions=replace(measure, benchmarks=("instructions",), max_tokens=min(limit, 4_096)),
        num_processes=scale.processes,
    )


def _last_stage(dev2: RunConfig, general: Instructions, scale: Scale) -> RunConfig:
    """R1: temperature 0.7, and general prompts for the last 400 of 1,700 updates."""
    per_round = dev2.train.updates_per_round
    rounds = scale.r1_rounds
    first = round(rounds * (R1_UPDATES - R1_GENERAL) / R1_UPDATES) * per_round
    task = Mixture(tasks=(dev2.task, general), weights=(1.0, 1.0), starts=(0, first))
    return replace(dev2, task=task, train=replace(dev2.train, num_rounds=rounds, temperature=0.7))


def _supervised(run: RunConfig, rate: float, batch: int, processes: int) -> SftConfig:
    """Two epochs, cosine to a tenth, batches of so many examples (Methods; supplement B.4.3)."""
    return SftConfig(
        prompts=run.prompts,
        policy=run.policy,
        optimizer=OptimizerConfig(learning_rate=rate, schedule="cosine", betas=(0.9, 0.95)),
        training=SupervisedConfig(
            epochs=2, max_tokens=32_768, packing=False, batch_size=batch, num_processes=processes
        ),
    )


def _sampled(run: RunConfig, task: Dataset, limit: int, scale: Scale) -> RejectionConfig:
    return RejectionConfig(
        task=task,
        prompts=run.prompts,
        engine=replace(run.engine, gpu_memory_frac=0.9),
        sampling=Sampling(temperature=1.0, max_tokens=limit),
        num_samples=scale.samples,
        filters=FilterConfig(),
        fill_up=False,
    )


R1_SIZES = {
    "paper": paper,
    "qwen2.5-32b": qwen25_32b,
    "qwen2.5-7b": qwen25_7b,
    "qwen2.5-1.5b": qwen25_15b,
    "qwen2.5-0.5b": qwen25_05b,
}
"""By the names of `python -m recipes.r1`."""
