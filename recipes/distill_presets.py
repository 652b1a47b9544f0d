"""Whole distillations by name: the small one, and R1-Distill's students with their learning rates."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from recipes.distill_config import DistillConfig
from recipes.evaluation import EvaluateConfig
from recipes.r1_presets import small_rl, small_sft, smollm2_cpu
from recipes.rejection_config import RejectionConfig
from recipes.supervised import SftConfig
from rl.optimizer import OptimizerConfig
from rl.policy import PolicyConfig
from rl.sft import SupervisedConfig
from rollouts.rollout import Sampling
from rollouts.tasks.dataset import Competition

STUDENTS = {
    "qwen-1.5b": ("Qwen/Qwen2.5-Math-1.5B", 1e-4),
    "qwen-7b": ("Qwen/Qwen2.5-Math-7B", 8e-5),
    "qwen-14b": ("Qwen/Qwen2.5-14B", 7e-5),
    "qwen-32b": ("Qwen/Qwen2.5-32B", 6e-5),
    "llama-8b": ("meta-llama/Llama-3.1-8B", 5e-5),
    "llama-70b": ("meta-llama/Llama-3.3-70B-Instruct", 2e-5),
}
"""R1-Distill's bases and peak learning rates (Nature 645, 2025, supplement B.4.3)."""


def smollm2_cpu_distill() -> DistillConfig:
    """A student of 135M on two CPU cores; the teacher is `--teacher`, such as the small pipeline's R1."""
    pipeline = smollm2_cpu()
    return DistillConfig(
        data=pipeline.distill_data,
        distill=small_sft(epochs=2),
        rl=replace(small_rl(), train=replace(small_rl().train, num_rounds=200)),
        measure=pipeline.measure,
    )


def r1_distill(student: str, learning_rate: float) -> DistillConfig:
    """R1-Distill: 2 epochs, batches of 64, cosine to a tenth, up to 32,768 tokens; no RL.

    The paper's 800,000 samples are not public: MATH's training problems stand in for its prompts. A
    row holds as many examples as fit, so that batches are rows, about 64 examples of 5,355 tokens.
    """
    return DistillConfig(
        student=student,
        data=RejectionConfig(
            task=Competition(),
            sampling=Sampling(temperature=0.6, top_p=0.95, max_tokens=32_768),
        ),
        distill=SftConfig(
            policy=PolicyConfig(micro_batch_tokens=32_768, gradient_checkpointing=True, fsdp=True),
            optimizer=OptimizerConfig(learning_rate=learning_rate, schedule="cosine"),
            training=SupervisedConfig(epochs=2, batch_size=10, num_processes=8),
        ),
        measure=EvaluateConfig(
            models=(), benchmarks=("aime_2024", "math500", "gpqa_diamond"), protocol="r1"
        ),
        num_processes=8,
    )


DISTILL_PRESETS: dict[str, Callable[[], DistillConfig]] = {"smollm2-cpu": smollm2_cpu_distill} | {
    name: partial(r1_distill, *student) for name, student in STUDENTS.items()
}
"""By the names of the command line."""
