"""Shuffled rewards: each group keeps its rewards, and no sample keeps its own."""

from dataclasses import dataclass

from recipes.control import ShuffledCollector, shuffled
from rewards.problem import Problem, Response, Score, Verdict
from rollouts.rollout import Group, Rollout

PROBLEM = Problem(id="p", prompt="?", answer="1", source="s")


def group_of(values: list[float]) -> Group:
    rollouts = [
        Rollout(
            token_ids=(1, 10 + i),
            sampled=(False, True),
            logprobs=(0.0, -0.5),
            response=Response(text=f"sample {i}"),
            score=Score(value=value, verdict=Verdict.CORRECT if value else Verdict.WRONG),
            versions=((0, 1, 2),),
        )
        for i, value in enumerate(values)
    ]
    return Group(problem=PROBLEM, rollouts=tuple(rollouts))


@dataclass
class Fixed:
    """A collector that always has the same groups."""

    groups: list[Group]
    seed: int = 0

    def collect(self, problems, sampling, *, round_index: int, version: int, first_row: int):
        assert (problems, sampling, version) == ([PROBLEM], "sampling", 7)
        return self.groups


def collected(round_index: int, seed: int = 0) -> list[Group]:
    groups = [group_of([1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]) for _ in range(4)]
    collector = ShuffledCollector(Fixed(groups, seed))
    return collector.collect([PROBLEM], "sampling", round_index=round_index, version=7)


def test_a_group_keeps_its_rewards_and_its_samples():
    groups = collected(0)
    for group in groups:
        assert sorted(group.rewards) == [0.0] * 6 + [1.0] * 2
        assert [r.response.text for r in group.rollouts] == [f"sample {i}" for i in range(8)]
        assert [r.token_ids for r in group.rollouts] == [(1, 10 + i) for i in range(8)]
        # A verdict goes with its value.
        assert all((r.score.verdict is Verdict.CORRECT) == r.score.value for r in group.rollouts)
    # The chance that four groups all come out as they were is (2! 6! / 8!)^4 = 1.6e-6.
    assert [g.rewards for g in groups] != [group_of([1.0, 1.0] + [0.0] * 6).rewards] * 4


def test_the_same_round_is_shuffled_the_same_and_others_are_not():
    assert collected(3) == collected(3)
    assert collected(3) != collected(4)
    assert collected(3) != collected(3, seed=1)


def test_over_many_draws_no_place_is_more_likely():
    from random import Random

    random, hits = Random(0), [0, 0, 0, 0]
    for _ in range(4000):
        rewards = shuffled(group_of([1.0, 0.0, 0.0, 0.0]), random).rewards
        hits[rewards.index(1.0)] += 1
    # Binomial, 4000 draws at 1/4: mean 1000, standard deviation sqrt(4000 * 3/16) = 27.
    assert all(abs(count - 1000) < 5 * 27 for count in hits)
