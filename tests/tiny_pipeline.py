"""R1's pipeline on a tiny random model: settings that run through every stage in minutes."""

from dataclasses import replace

from recipes.r1_presets import smollm2_cpu
from rollouts.prompts import PromptConfig
from rollouts.rollout import Sampling
from rollouts.sampler import EngineConfig
from rollouts.tasks.instructions import Instructions
from rollouts.tasks.mixture import Mixture
from rollouts.tasks.steps import Steps

TASK = Steps(kinds=("add2",), num_problems=30)
ENGINE = EngineConfig(dtype="float32", max_concurrent=64, gpu_memory_frac=0.1)


def tiny_pipeline(model):
    """The small preset cut down: 16 problems to learn by heart, one round of everything."""
    preset = smollm2_cpu()

    def rl(config, task):
        train = replace(
            config.train, num_rounds=1, problems_per_round=2, group_size=2, max_tokens=((0, 120),)
        )
        policy = replace(config.policy, dtype="float32", compile=False)
        scoring = replace(config.scoring, workers=1)
        short = {
            each: replace(getattr(config, each), max_tokens=8) for each in ("test", "validation")
        }
        parts = {"policy": policy, "engine": ENGINE, "scoring": scoring, "prompts": PromptConfig()}
        return replace(config, task=task, train=train, **parts, **short)

    def sft(config, epochs):
        training = replace(config.training, epochs=epochs, max_tokens=512)
        optimizer = replace(config.optimizer, learning_rate=5e-3)
        policy = replace(config.policy, dtype="float32", compile=False)
        return replace(config, training=training, optimizer=optimizer, policy=policy)

    def reject(config, **changed):
        sampling = Sampling(temperature=1.0, max_tokens=120)
        scoring = replace(config.scoring, workers=1)
        changed = {
            "task": TASK,
            "sampling": sampling,
            "engine": ENGINE,
            "scoring": scoring,
        } | changed
        return replace(config, num_problems=None, **changed)

    def measure(config):
        scoring = replace(config.scoring, workers=1)
        return replace(
            config, num_problems=4, num_samples=2, max_tokens=120, engine=ENGINE, scoring=scoring
        )

    both = Mixture(tasks=(TASK, Instructions(num_problems=20)), weights=(1.0, 1.0), starts=(0, 0))
    return replace(
        preset,
        model=str(model),
        r1_zero=rl(preset.r1_zero, TASK),
        cold_start=reject(preset.cold_start, num_rows=16, num_samples=1, prompts=PromptConfig()),
        dev1=sft(preset.dev1, 40),
        dev2=rl(preset.dev2, TASK),
        rejection=reject(preset.rejection, num_rows=None),
        general=reject(preset.general, task=Instructions(num_problems=20), num_rows=8),
        dev3=sft(preset.dev3, 40),
        r1=rl(preset.r1, both),
        distill_data=reject(preset.distill_data, num_rows=None),
        distill=sft(preset.distill, 2),
        measure=measure(preset.measure),
        instructions=measure(preset.instructions),
    )
