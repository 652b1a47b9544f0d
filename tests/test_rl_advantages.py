import itertools
import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.advantages import group_advantages, has_signal

rewards_of_a_group = st.lists(
    st.floats(min_value=-10, max_value=10).map(lambda x: round(x, 3)), min_size=2, max_size=16
)


def test_one_right_of_four_by_hand():
    # mean 1/4; deviations -1/4 (three times) and 3/4; squares 3/16 + 9/16 = 3/4; sample variance
    # 3/4 / 3 = 1/4; std 1/2. With 1e-6 beside it: 0.75 / 0.500001 = 1.499997, -0.25 / 0.500001.
    advantages = group_advantages(torch.tensor([0.0, 1.0, 0.0, 0.0]))
    expected = [-0.25 / 0.500001, 0.75 / 0.500001, -0.25 / 0.500001, -0.25 / 0.500001]
    assert advantages.tolist() == pytest.approx(expected, rel=1e-15)


def test_two_members_have_plus_and_minus_one_over_root_two():
    # Deviations 1/2 and -1/2, sample variance (1/4 + 1/4) / 1 = 1/2, std 1/sqrt(2).
    advantages = group_advantages(torch.tensor([1.0, 0.0]), epsilon=0.0)
    assert advantages.tolist() == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)], rel=1e-15)


def test_without_scale_rewards_are_only_centred():
    # Mean of 0, 0.5, 1.2, 0.3 is 0.5.
    advantages = group_advantages(
        torch.tensor([0.0, 0.5, 1.2, 0.3], dtype=torch.float64), scale="none"
    )
    assert advantages.tolist() == pytest.approx([-0.5, 0.0, 0.7, -0.2], abs=1e-15)


def test_epsilon_is_added_to_the_std():
    # Std 1/sqrt(2) as above, epsilon as large: 0.5 / sqrt(2).
    advantages = group_advantages(torch.tensor([1.0, 0.0]), epsilon=math.sqrt(0.5))
    assert advantages.tolist() == pytest.approx([0.5 / math.sqrt(2), -0.5 / math.sqrt(2)])


@pytest.mark.parametrize(
    "rewards",
    [[1.0] * 4, [0.0] * 2, [0.1 + 0.2, 0.3], [1 / 3, 1 / 3 + 9e-10, 1 / 3]],
)
def test_equal_rewards_have_no_signal_and_advantages_of_exactly_zero(rewards):
    rewards = torch.tensor(rewards, dtype=torch.float64)
    assert not has_signal(rewards)
    for scale in ("std", "none"):
        # -0.0 would pass a comparison: the sign bit is looked at too.
        advantages = group_advantages(rewards, scale=scale, epsilon=0.0)
        assert advantages.tolist() == [0.0] * len(rewards)
        assert not advantages.signbit().any()


def test_a_difference_above_the_tolerance_is_signal():
    rewards = torch.tensor([0.5, 0.5 + 2e-9], dtype=torch.float64)
    assert has_signal(rewards)
    assert group_advantages(rewards, epsilon=0.0).tolist() == pytest.approx(
        [-math.sqrt(0.5), math.sqrt(0.5)]
    )


@pytest.mark.parametrize("rewards", [[1.0], [], [[0.0, 1.0]], 1.0])
def test_a_group_of_one_or_not_a_group_is_refused(rewards):
    with pytest.raises(ValueError, match="raise group_size"):
        group_advantages(torch.tensor(rewards))


@settings(deadline=None)
@given(rewards_of_a_group)
def test_agrees_with_the_standard_library(rewards):
    advantages = group_advantages(torch.tensor(rewards, dtype=torch.float64))
    assert advantages.dtype == torch.float64
    mean, std = statistics.fmean(rewards), statistics.stdev(rewards)
    if max(rewards) == min(rewards):
        assert advantages.tolist() == [0.0] * len(rewards)
    else:
        expected = [(reward - mean) / (std + 1e-6) for reward in rewards]
        assert advantages.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(rewards_of_a_group, st.sampled_from(["std", "none"]))
def test_sums_to_zero_and_keeps_the_order_of_rewards(rewards, scale):
    advantages = group_advantages(torch.tensor(rewards, dtype=torch.float64), scale=scale).tolist()
    assert sum(advantages) == pytest.approx(0, abs=1e-9)
    ranked = sorted(zip(rewards, advantages, strict=True))
    assert all(low[1] <= high[1] for low, high in itertools.pairwise(ranked))
