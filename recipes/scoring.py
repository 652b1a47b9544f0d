"""Which reward a config means, and the processes that compute it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from recipes.config import RunConfig, nearest
from recipes.general import with_preferences
from rewards.adapters import AdaptedReward, adapted, load_reward
from rewards.compose import dapo_reward, r1_reward, r1_zero_reward
from rewards.language import language_reward
from rewards.pool import RewardPool
from rewards.problem import Problem, RewardFn
from rewards.scorer import Scorer

NAMED: dict[str, Callable[[RewardFn], RewardFn]] = {
    "accuracy": lambda accuracy: accuracy,
    "r1_zero": r1_zero_reward,
    "dapo": dapo_reward,
    "r1": lambda accuracy: r1_reward(accuracy, language_reward("en")),
}
"""Rewards made of the task's own."""


def reward_of(config: RunConfig) -> AdaptedReward:
    """The reward that `config.reward` names, made of the task's or loaded from a module.

    Raises:
        ValueError: There is none of this name, or what is there is no reward.
    """
    if ":" in config.reward:
        return adapted(load_reward(config.reward))
    if config.reward not in NAMED:
        near = nearest(config.reward, NAMED) or "accuracy"
        raise ValueError(
            f"reward is {config.reward!r}; did you mean {near!r}? It is one of {', '.join(NAMED)}, "
            "or package.module:function"
        )
    return adapted(NAMED[config.reward](config.task.score))


@contextlib.contextmanager
def pooled(config: RunConfig, inline: Scorer, problems: Sequence[Problem]) -> Iterator[Scorer]:
    """The reward in scoring processes, with the preferences of general tasks; they end with the `with`.

    It is tried on the first problem of each task. With `scoring.workers` 0 rules are `inline`, in
    this process.

    Raises:
        ValueError: The reward does not work on a problem's own answer.
    """
    with contextlib.ExitStack() as stack:
        rules = inline
        if config.scoring.workers != 0:
            rules = stack.enter_context(RewardPool(reward_of(config), config.scoring))
        score = stack.enter_context(with_preferences(config, rules))
        firsts = {problem.source.partition("/")[0]: problem for problem in reversed(problems)}
        for problem in firsts.values():
            score.check(problem)
        yield score
