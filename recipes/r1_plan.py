"""A pipeline's plan: that of its largest RL stage, with the hours of all of them.

Supervised stages take what an update of RL takes, without an engine. Rejection sampling and
evaluations run on one GPU each; their hours, and those of supervised stages, are left out.
"""

from dataclasses import replace

from recipes.devices import Device
from recipes.plan import Plan, plan_of
from recipes.preset_facts import PresetFacts
from recipes.r1_config import R1Config
from rl.memory import peak

RL_STAGES = ("r1_zero", "dev2", "r1")


def plan_pipeline(config: R1Config, device: Device, facts: PresetFacts | None) -> Plan:
    """The plan of the stage that takes most of a device.

    Raises:
        ValueError: As `plan_of`.
    """
    prompt = facts.prompt_tokens if facts else None
    mean = facts.mean_tokens if facts else None
    runs = {name: replace(getattr(config, name), model=config.model) for name in RL_STAGES}
    plans = {name: plan_of(run, device, prompt=prompt, mean=mean) for name, run in runs.items()}
    stage, largest = max(plans.items(), key=lambda item: peak(item[1].memory)[1])
    others = sum(plan.hours for plan in plans.values()) - largest.hours
    found = replace(largest, stage=stage, other_hours=others, facts=facts)
    if device.machines > 1 and found.verdict != "too large":
        told = (
            f"{device.name} are {device.machines} machines, and recipes.r1 starts the processes of "
            "one: run the stages by hand, by torchrun on each (recipes.r1 --show has their settings)"
        )
        return replace(found, verdict="too large", line=told)
    return found
