"""What general prompts need of a run: preferences that score them, and when they start."""

import contextlib
from collections.abc import Iterator

from recipes.config import PreferenceConfig, RunConfig
from recipes.noise import quiet
from rewards.judge import Judge
from rewards.routing import Routed
from rewards.scorer import Inline, Scorer
from rollouts.tasks.general import General
from rollouts.tasks.mixture import Mixture

ASPECTS = {"helpfulness": "summary", "safety": "whole"}
"""The preferences, and what of a response a reward model reads for each."""


def general_tasks(config: RunConfig) -> tuple[General, ...]:
    """The tasks whose reward is preference."""
    tasks = config.task.tasks if isinstance(config.task, Mixture) else (config.task,)
    return tuple(task for task in tasks if isinstance(task, General))


def aspects_of(task: General, preference: PreferenceConfig) -> list[str]:
    """Which preferences score a task's prompts."""
    asked = ASPECTS if task.judged == "both" else (task.judged,)
    return [aspect for aspect in asked if getattr(preference, aspect) != "none"]


def preference_fault(config: RunConfig) -> str | None:
    """What is wrong with the preferences of a run, or None."""
    tasks, preference = general_tasks(config), config.preference
    for task in tasks:
        aspects = aspects_of(task, preference)
        if not aspects:
            aspect = "helpfulness" if task.judged == "both" else task.judged
            return (
                f"the reward of the general task {task.name} is preference, but preference.{aspect} "
                "is none: set it to reward_model or judge"
            )
        judged = "helpfulness" in aspects and preference.helpfulness == "judge"
        if judged and not task.reference_column:
            return (
                f"a judge of helpfulness compares with a reference, but the general task {task.name} "
                "names none: set its reference_column"
            )
    for aspect in ASPECTS:
        by = getattr(preference, aspect)
        if by != "none" and not any(aspect in aspects_of(task, preference) for task in tasks):
            return (
                f"preference.{aspect} is {by}, but no task of the run is judged by it: name one of "
                f"the kind general, or set preference.{aspect} to none"
            )
        if by == "reward_model" and not getattr(preference, f"{aspect}_model"):
            return f"preference.{aspect} is reward_model, but preference.{aspect}_model names none"
        if by == "judge" and not preference.judge.model:
            return f"preference.{aspect} is judge, but preference.judge.model names none"
    return None


def late_start_fault(config: RunConfig) -> str | None:
    """Which task of a mixture would start after the run's last update, or None."""
    if not isinstance(config.task, Mixture):
        return None
    last_round = (config.train.num_rounds - 1) * config.train.updates_per_round
    for task, start in zip(config.task.tasks, config.task.starts, strict=False):
        if start > last_round:
            return (
                f"the task {task.name} starts at update {start}, but the run's last round starts at "
                f"update {last_round}: start it earlier, or leave it out"
            )
    return None


@contextlib.contextmanager
def with_preferences(config: RunConfig, rules: Scorer) -> Iterator[Scorer]:
    """`rules`, and on top of it what scores the run's general tasks; that ends with the `with`.

    Raises:
        ValueError: A reward model is none, or an environment variable of the judge is not set.
    """
    tasks, preference = general_tasks(config), config.preference
    with contextlib.ExitStack() as stack:
        scorers: dict[str, Scorer] = {}
        for aspect in dict.fromkeys(a for task in tasks for a in aspects_of(task, preference)):
            if getattr(preference, aspect) == "judge":
                scorers[aspect] = stack.enter_context(Judge(preference.judge, aspect))
            else:
                with quiet():
                    scorers[aspect] = _reward_model(preference, aspect)
        named = {t.name: {a: scorers[a] for a in aspects_of(t, preference)} for t in tasks}
        yield Routed(rules, named) if named else rules


def _reward_model(preference: PreferenceConfig, aspect: str) -> Scorer:
    from rl.reward_model import RewardModel

    name = getattr(preference, f"{aspect}_model")
    return Inline(RewardModel(preference.reward_models, name, scope=ASPECTS[aspect]))
