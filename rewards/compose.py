"""Rewards made of rewards: named weighted sums, and the sums of R1-Zero and R1.

What these functions return can be pickled, and is pure, wherever the rewards they were given are.
"""

import math
from collections.abc import Mapping
from functools import partial

from rewards.adapters import as_score
from rewards.length import soft_overlong_reward
from rewards.problem import Problem, Response, RewardFn, Score
from rewards.purity import pure
from rewards.tags import format_reward, think_summary_reward


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


def r1_reward(accuracy: RewardFn, language: RewardFn) -> RewardFn:
    """R1's reward in its first RL stage: accuracy, the cold start's format, and one language.

    DeepSeek-R1 (Nature, 2025, Methods): Reward_language is added directly to the final reward.
    The format is a chain of thought and a summary. Leaves out the learned reward models of its
    last stage.

    Example: `r1_reward(numeric_reward, language_reward("en"))`.
    """
    rules = {"accuracy": (accuracy, 1.0), "format": (think_summary_reward, 1.0)}
    return weighted({**rules, "language": (language, 1.0)})


def dapo_reward(accuracy: RewardFn) -> RewardFn:
    """accuracy + soft_overlong / 2 (DAPO, arXiv 2503.14476, Sec. 3.4).

    Half, for the paper's accuracy is -1 or 1 and ours 0 or 1. Example: a right answer as long as
    its limit: 1 - 0.5.
    """
    return weighted({"accuracy": (accuracy, 1.0), "overlong": (soft_overlong_reward(), 0.5)})


@pure(version="1", reads=())
def _weighted_score(
    parts: Mapping[str, tuple[RewardFn, float]], problem: Problem, response: Response
) -> Score:
    scores = {name: as_score(reward(problem, response)) for name, (reward, _) in parts.items()}
    values = {name: score.value for name, score in scores.items()}
    for score in scores.values():
        if score.verdict.is_ours:
            return Score(value=0.0, verdict=score.verdict, parts=values)
    value = math.fsum(weight * values[name] for name, (_, weight) in parts.items())
    first = next(iter(scores.values()))
    return Score(value=value, verdict=first.verdict, parts=values)
