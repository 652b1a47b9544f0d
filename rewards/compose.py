"""Rewards made of rewards: named weighted sums, R1-Zero's sum, and a guard against exceptions.

What these functions return can be pickled wherever the rewards they were given can be.
"""

import logging
import math
from collections.abc import Mapping
from functools import lru_cache, partial

from rewards.problem import Problem, Response, RewardFn, Score, Verdict
from rewards.tags import format_reward

logger = logging.getLogger(__name__)


def weighted(parts: Mapping[str, tuple[RewardFn, float]]) -> RewardFn:
    """The reward sum_i weight_i * reward_i, from `{name: (reward, weight)}`.

    The verdict is that of the first part, so the part that says right or wrong comes first.
    `Score.parts` holds each part's own value, before its weight. If a part failed by our own
    fault, its verdict is the verdict and the value is 0.

    Example: accuracy 1 and format 0 with weights 1 and 0.5 give value 1.0, correct, parts
    {"accuracy": 1.0, "format": 0.0}.
    """
    if not parts:
        raise ValueError("weighted() got no parts; give at least one {name: (reward, weight)}")
    for name, (_, weight) in parts.items():
        if not math.isfinite(weight):
            raise ValueError(f"the weight of {name!r} is {weight}; give a finite number")
    return partial(_weighted_score, dict(parts))


def r1_zero_reward(accuracy: RewardFn) -> RewardFn:
    """R1-Zero's rule-based reward, `accuracy` + format with equal weight.

    DeepSeek-R1 (Nature, 2025, Methods), Eq. 4: Reward_rule = Reward_acc + Reward_format.
    """
    return weighted({"accuracy": (accuracy, 1.0), "format": (format_reward, 1.0)})


def safely(reward: RewardFn) -> RewardFn:
    """`reward`, with an exception turned into the verdict grader_error and value 0.

    The error is logged with its traceback, once for each distinct message.
    """
    return partial(_guarded_score, reward)


def _weighted_score(
    parts: Mapping[str, tuple[RewardFn, float]], problem: Problem, response: Response
) -> Score:
    scores = {name: reward(problem, response) for name, (reward, _) in parts.items()}
    values = {name: score.value for name, score in scores.items()}
    for score in scores.values():
        if score.verdict.is_ours:
            return Score(value=0.0, verdict=score.verdict, parts=values)
    value = math.fsum(weight * values[name] for name, (_, weight) in parts.items())
    first = next(iter(scores.values()))
    return Score(value=value, verdict=first.verdict, parts=values)


def _guarded_score(reward: RewardFn, problem: Problem, response: Response) -> Score:
    try:
        return reward(problem, response)
    except Exception as error:  # noqa: BLE001  the boundary: a reward is anyone's code
        _log_once(f"{type(error).__name__}: {error}")
        return Score(value=0.0, verdict=Verdict.GRADER_ERROR)


@lru_cache(maxsize=1024)  # bounded: a message can hold model text
def _log_once(message: str) -> None:
    """Log the exception being handled; the cache makes a second call with `message` a no-op."""
    logger.error("a reward failed: %s", message, exc_info=True)
