"""Which reward a config means, and the processes that compute it."""

import contextlib
from collections.abc import Callable, Iterator

from recipes.config import RunConfig, nearest
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
def pooled(config: RunConfig, inline: Scorer, problem: Problem) -> Iterator[Scorer]:
    """The reward in scoring processes, tried on a problem; they end with the `with`.

    With `scoring.workers` 0 it is `inline`, in this process.

    Raises:
        ValueError: The reward does not work on the problem's own answer.
    """
    if config.scoring.workers == 0:
        inline.check(problem)
        yield inline
        return
    with RewardPool(reward_of(config), config.scoring) as pool:
        pool.check(problem)
        yield pool
