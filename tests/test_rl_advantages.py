import itertools
import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.advantages import batch_standard_deviation, group_advantages, has_signal

SCALES = ["std", "none", "leave_one_out", "batch_std", "maxrl"]
few = settings(deadline=None, derandomize=True, max_examples=60)

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
    for scale in SCALES:
        # -0.0 would pass a comparison: the sign bit is looked at too.
        advantages = group_advantages(rewards, scale=scale, epsilon=0.0, batch_std=0.0)
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


# One right of four: mean 1/4, std 1/2; the batch's std is given as 1/8.
@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("std", [-0.5, 1.5, -0.5, -0.5]),
        ("none", [-0.25, 0.75, -0.25, -0.25]),
        # The others' mean is 0 for the right one and 1/3 for a wrong one.
        ("leave_one_out", [-1 / 3, 1.0, -1 / 3, -1 / 3]),
        ("batch_std", [-2.0, 6.0, -2.0, -2.0]),
        ("maxrl", [-1.0, 3.0, -1.0, -1.0]),  # over 1/4
    ],
)
def test_every_scale_by_hand(scale, expected):
    advantages = group_advantages(
        torch.tensor([0.0, 1.0, 0.0, 0.0]), scale=scale, epsilon=0.0, batch_std=0.125
    )
    assert advantages.tolist() == pytest.approx(expected, rel=1e-15)


def test_epsilon_is_added_to_a_std_and_to_nothing_else():
    rewards = torch.tensor([1.0, 0.0])
    found = {
        scale: group_advantages(rewards, scale=scale, epsilon=0.5, batch_std=0.75)[0].item()
        for scale in SCALES
    }
    # 1/2 over sqrt(1/2) + 1/2; over 3/4 + 1/2; and over 1, 1/2 and 1/2 without.
    assert found == pytest.approx(
        {
            "std": 0.5 / (math.sqrt(0.5) + 0.5),
            "none": 0.5,
            "leave_one_out": 1.0,
            "batch_std": 0.4,
            "maxrl": 1.0,
        }
    )


def test_the_batchs_std_by_hand():
    # 1, 0, 0, 0: mean 1/4, squares 9/16 + 3/16 = 3/4, over 3 is 1/4: std 1/2.
    groups = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0], dtype=torch.float64)]
    assert batch_standard_deviation(groups) == 0.5
    assert batch_standard_deviation([torch.tensor([1.0, 0.0, 0.0, 0.0])]) == 0.5
    assert isinstance(batch_standard_deviation(groups), float)


@pytest.mark.parametrize("groups", [[], [torch.tensor([3.0])], [torch.tensor([0.3] * 4)] * 3])
def test_the_std_of_nothing_of_one_and_of_equals_is_zero(groups):
    assert batch_standard_deviation(groups) == pytest.approx(0.0, abs=1e-15)


@few
@given(st.lists(rewards_of_a_group, min_size=1, max_size=4))
def test_the_batchs_std_agrees_with_the_standard_library(groups):
    found = batch_standard_deviation([torch.tensor(group, dtype=torch.float64) for group in groups])
    expected = statistics.stdev(itertools.chain.from_iterable(groups))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_missing_batch_std_and_an_unknown_scale_are_refused():
    rewards = torch.tensor([1.0, 0.0])
    with pytest.raises(ValueError, match="give batch_standard_deviation of all groups"):
        group_advantages(rewards, scale="batch_std")
    with pytest.raises(ValueError, match="unknown scale 'mean': choose std, none"):
        group_advantages(rewards, scale="mean")


@pytest.mark.parametrize(("rewards", "got"), [([-1.0, 1.0], "-1"), ([0.5, 1.5, 0.0], "1.5"),
                                              ([-1.0, -1.0], "-1"), ([0.0, -1e-6], "-1e-06")])  # fmt: skip
def test_maxrl_refuses_rewards_that_are_no_success_rates(rewards, got):
    with pytest.raises(ValueError, match=f"from 0 to 1, got {got}: score right as 1"):
        group_advantages(torch.tensor(rewards), scale="maxrl")


def test_maxrl_takes_part_credit_and_rounding():
    # Mean 1/2; (1 - 1/2) / (1/2), (1/2 - 1/2) / (1/2), (0 - 1/2) / (1/2).
    rewards = torch.tensor([1.0 + 4e-16, 0.5, -1e-17], dtype=torch.float64)
    assert group_advantages(rewards, scale="maxrl").tolist() == pytest.approx([1.0, 0.0, -1.0])
    # Their mean is 0, their difference above the tolerance: nobody is right all the same.
    rewards = torch.tensor([-9e-10, 9e-10], dtype=torch.float64)
    assert group_advantages(rewards, scale="maxrl").tolist() == [0.0, 0.0]


def mean_slope(scale, size, p):
    """What a group's policy gradient is on average, by p, where each answer is right with p.

    The slope of log p(right) is 1 / p, that of log p(wrong) is -1 / (1 - p).
    """
    total = 0.0
    for rewards in itertools.product([0.0, 1.0], repeat=size):
        advantages = group_advantages(torch.tensor(rewards), scale=scale).tolist()
        chance = math.prod(p if reward else 1 - p for reward in rewards)
        slopes = [1 / p if reward else -1 / (1 - p) for reward in rewards]
        total += chance * sum(a * s for a, s in zip(advantages, slopes, strict=True)) / size
    return total


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_on_average_each_scale_climbs_what_its_paper_says(size, p):
    # RLOO: the slope of the success rate p is 1. Without the factor, (G - 1) / G of it.
    assert mean_slope("leave_one_out", size, p) == pytest.approx(1.0, rel=1e-12)
    assert mean_slope("none", size, p) == pytest.approx((size - 1) / size, rel=1e-12)
    # MaxRL: log p = -sum_k (1 - p)^k / k, whose slope, up to order G - 1, is this.
    series = sum((1 - p) ** (order - 1) for order in range(1, size))
    assert mean_slope("maxrl", size, p) == pytest.approx(series, rel=1e-12)


@few
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


@few
@given(rewards_of_a_group, st.floats(0.01, 5))
def test_other_scales_agree_with_plain_python(rewards, batch_std):
    rates = [(reward + 10) / 20 for reward in rewards]
    mean, rate = statistics.fmean(rewards), statistics.fmean(rates)
    others = [(sum(rewards) - reward) / (len(rewards) - 1) for reward in rewards]
    expected = {
        "none": [reward - mean for reward in rewards],
        "leave_one_out": [r - other for r, other in zip(rewards, others, strict=True)],
        "batch_std": [(reward - mean) / (batch_std + 1e-6) for reward in rewards],
    }
    if max(rewards) == min(rewards):
        expected = dict.fromkeys(expected, [0.0] * len(rewards))
    for scale, numbers in expected.items():
        found = group_advantages(
            torch.tensor(rewards, dtype=torch.float64), scale=scale, batch_std=batch_std
        )
        assert found.tolist() == pytest.approx(numbers, rel=1e-9, abs=1e-9)
    found = group_advantages(torch.tensor(rates, dtype=torch.float64), scale="maxrl").tolist()
    if max(rates) > min(rates):
        assert found == pytest.approx([r / rate - 1 for r in rates], rel=1e-9, abs=1e-9)
    else:
        assert found == [0.0] * len(rates)


@few
@given(rewards_of_a_group, st.sampled_from(SCALES))
def test_sums_to_zero_and_keeps_the_order_of_rewards(rewards, scale):
    if scale == "maxrl":
        rewards = [(reward + 10) / 20 for reward in rewards]
    advantages = group_advantages(
        torch.tensor(rewards, dtype=torch.float64), scale=scale, batch_std=0.1
    ).tolist()
    assert sum(advantages) == pytest.approx(0, abs=1e-9)
    ranked = sorted(zip(rewards, advantages, strict=True))
    assert all(low[1] <= high[1] for low, high in itertools.pairwise(ranked))
