from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

import rl.train
from rewards.problem import Problem, Response, Score, Verdict
from rl.clock import Clock
from rl.objective import LossConfig
from rl.optimizer import OptimizerConfig
from rl.packing import PackingConfig
from rl.recording import Recording
from rl.rounds import sample_round, sampling_at
from rl.run_folder import RunFolder
from rl.train import (
    is_due,
    is_reference_due,
    minibatches,
    rate_at,
    settle,
    train_on,
    trained_groups,
)
from rl.trainer import TrainConfig
from rollouts.ledger import Fate, Ledger
from rollouts.rollout import Group, Rollout


@dataclass(frozen=True)
class Numbered:
    """Stands for a group where only its identity matters."""

    index: int


class Silent:
    def phase(self, name):
        pass


@dataclass(kw_only=True)
class Hopeless:
    """A collector that finds signal in every third problem, and remembers what it was asked."""

    asked: list = field(default_factory=list)

    def collect(self, problems, sampling, *, round_index, version, first_row=0):
        self.asked.append((first_row, problems))
        return [one(number) for number in problems]


def one(number):
    values = [float(number % 3 == 0), 0.0]
    rollouts = tuple(
        Rollout(
            token_ids=(1, 2),
            sampled=(False, True),
            logprobs=(0.0, -1.0),
            response=Response(text=""),
            score=Score(value=value, verdict=Verdict.WRONG),
            versions=((0, 1, 2),),
        )
        for value in values
    )
    problem = Problem(id=f"{number}", prompt="", answer="", source="s")
    return Group(problem=problem, rollouts=rollouts)


def sampled(refills, size=4):
    """A round's groups when problems are 0, 1, 2, …; and what was asked for."""
    numbers = iter(range(1000))

    def draw(count, updates):
        assert updates == 7
        return [next(numbers) for _ in range(count)]

    config = TrainConfig(problems_per_round=size, refills=refills)
    run = SimpleNamespace(config=config, collector=Hopeless(), ledger=SimpleNamespace(draw=draw))
    groups = sample_round(run, draw(size, 7), index=0, updates=7, version=7)
    return config, groups, run.collector.asked


def test_without_refills_the_round_is_what_was_drawn():
    config, groups, asked = sampled(refills=0)
    assert asked == [(0, [0, 1, 2, 3])]
    assert trained_groups(config, groups) == groups


def test_refills_go_on_in_draw_order_until_the_round_is_full():
    # 0 and 3 of four: two are missing at a share of 1/2, so four more are drawn, of which 6 has
    # signal; one is missing at 3/8: three more, 8 to 10, with 9.
    config, groups, asked = sampled(refills=5)
    assert asked == [(0, [0, 1, 2, 3]), (4, [4, 5, 6, 7]), (8, [8, 9, 10])]
    assert [g.problem.id for g in groups] == [str(n) for n in range(11)]
    assert [g.problem.id for g in trained_groups(config, groups)] == ["0", "3", "6", "9"]


def test_refills_end_at_their_bound_with_what_there_is():
    config, groups, asked = sampled(refills=1)
    assert len(asked) == 2
    assert [g.problem.id for g in trained_groups(config, groups)] == ["0", "3", "6"]


def test_a_refill_draws_a_rounds_worth_at_most():
    # 0 of 0 to 1 has signal: one is missing at a share of 1/2, which would be two draws.
    _, _, asked = sampled(refills=1, size=2)
    assert [problems for _, problems in asked] == [[0, 1], [2, 3]]


def test_what_became_of_a_rounds_problems():
    """0, 3 and 6 of 0 to 6 have signal; a round of two has no place for 6."""
    config = TrainConfig(problems_per_round=2, refills=2)
    groups = [one(number) for number in range(7)]
    told = []
    run = SimpleNamespace(
        loss=LossConfig(),
        ledger=Ledger(problems={"t": [group.problem for group in groups]}),
        folder=SimpleNamespace(log_fates=lambda index, fates: told.append((index, fates))),
    )
    settle(run, 5, groups, trained_groups(config, groups))
    assert told == [
        (5, {"trained": ["0", "3"], "spent": ["1", "2", "4", "5"], "sampled": ["6"]}),
    ]
    assert run.ledger.counts()["ledger/spent"] == 4
    assert run.ledger.fates["6"] == Fate.SAMPLED


@pytest.mark.parametrize(("updates", "limit"), [(0, 64), (8_199, 64), (8_200, 128), (9_000, 128)])
def test_the_token_limit_follows_its_schedule(updates, limit):
    config = TrainConfig(max_tokens=((0, 64), (8_200, 128)), temperature=0.9)
    sampling = sampling_at(config, updates)
    assert (sampling.max_tokens, sampling.temperature) == (limit, 0.9)
    assert (sampling.top_p, sampling.top_k) == (1.0, -1)


def test_minibatches_are_whole_groups_each_once_in_nearly_equal_shares():
    groups = [Numbered(i) for i in range(10)]
    config = TrainConfig(updates_per_round=4, seed=3)
    shares = minibatches(groups, config, index=5)
    assert [len(share) for share in shares] == [2, 3, 2, 3]
    assert sorted(g.index for share in shares for g in share) == list(range(10))
    assert shares == minibatches(groups, config, index=5)
    assert shares != minibatches(groups, config, index=6)


def test_one_update_a_round_keeps_the_draw_order():
    groups = [Numbered(i) for i in range(5)]
    assert minibatches(groups, TrainConfig(updates_per_round=1), index=0) == [groups]


def test_fewer_groups_than_updates_make_fewer_updates():
    groups = [Numbered(0), Numbered(1)]
    assert [len(s) for s in minibatches(groups, TrainConfig(updates_per_round=16), 0)] == [1, 1]


def test_the_reference_is_due_at_the_first_round_after_each_multiple():
    # 16 updates a round, every 40 updates: 40 is met at 48, 80 at 80, 120 at 128.
    run = SimpleNamespace(
        loss=LossConfig(reference_every=40), config=SimpleNamespace(updates_per_round=16)
    )
    due = [updates for updates in range(0, 145, 16) if is_reference_due(run, updates)]
    assert due == [48, 80, 128]


def test_the_papers_reference_is_due_every_25_rounds():
    run = SimpleNamespace(
        loss=LossConfig(reference_every=400), config=SimpleNamespace(updates_per_round=16)
    )
    assert [u for u in range(0, 1300, 16) if is_reference_due(run, u)] == [400, 800, 1200]
    run.loss = LossConfig(reference_every=400, reference_model="other")
    assert [u for u in range(0, 1300, 16) if is_reference_due(run, u)] == []


def test_the_rate_is_that_of_the_runs_schedule():
    settings = SimpleNamespace(
        learning_rate=1.0, warmup_updates=4, schedule="constant", final_learning_rate_frac=0.1
    )
    run = SimpleNamespace(
        config=TrainConfig(num_rounds=10, updates_per_round=2),
        policy=SimpleNamespace(optimizer=SimpleNamespace(config=settings)),
    )
    assert [rate_at(run, u) for u in (0, 1, 3, 4, 19)] == [0.25, 0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("truncated", ["score", "mask"])
def test_the_kl_is_taken_from_every_completion_in_a_groups_mean(monkeypatch, truncated):
    # Rewards 1, 0 and 1, the last cut off; of single tokens log mu - log pi_ref is 1, 0 and 2.
    # At coefficient 0.25 they are 0.75, 0 and 0.5, and their mean 1.25 / 3.
    problem = Problem(id="p", prompt="?", answer="!", source="task")
    rollouts = [
        Rollout(
            token_ids=(5, token),
            sampled=(False, True),
            logprobs=(0.0, -1.0),
            response=Response(text="", finish=finish),
            score=Score(value=reward, verdict=Verdict.WRONG),
            versions=((0, 1, 2),),
        )
        for token, reward, finish in ((2, 1.0, "stop"), (1, 0.0, "stop"), (3, 1.0, "length"))
    ]

    def reference_logprobs(batch, temperature):
        assert temperature == 0.9
        return -batch.token_ids.float()  # -2, -1 and -3

    trained = []
    monkeypatch.setattr(
        rl.train, "update", lambda _policy, batch, *_, **__: trained.append(batch) or {}
    )
    optimizer = SimpleNamespace(config=OptimizerConfig())
    run = SimpleNamespace(
        config=TrainConfig(temperature=0.9),
        packing=PackingConfig(truncated=truncated, advantage_scale="none"),
        loss=LossConfig(kl="k1_reward", kl_coefficient=0.25),
        policy=SimpleNamespace(reference_logprobs=reference_logprobs, optimizer=optimizer),
    )
    groups = [Group(problem=problem, rollouts=tuple(rollouts))]
    train_on(run, groups, 0, 0, Clock(report=Silent()), Recording(groups, "none"))
    (batch,) = trained
    found = dict(
        zip(batch.token_ids[batch.sampled].tolist(), batch.advantages[batch.sampled], strict=True)
    )
    expected = {2: 0.75 - 1.25 / 3, 1: -1.25 / 3, 3: 0.5 - 1.25 / 3}
    if truncated == "mask":
        del expected[3]
    assert found == pytest.approx(expected)
    assert batch.reference_logprobs is None  # nothing of it is in the loss


def test_every_third_round_is_due():
    assert [done for done in range(1, 8) if is_due(3, done)] == [3, 6]
    assert not is_due(0, 5)


def test_the_best_checkpoint_is_the_earliest_of_the_highest(tmp_path):
    folder = RunFolder.create(tmp_path / "run", "model: tiny\n", {})
    assert folder.best_checkpoint("pass_at_1") is None
    for index, score, majority in ((2, 0.3, None), (4, 0.6, 0.2), (6, 0.6, 0.7)):
        (folder.path / "checkpoints" / f"round-{index:06d}").mkdir()
        result = {"pass_at_1": score, "maj_at_k": majority, "pass_at_k": None}
        folder.write_eval(f"round-{index:06d}", result)
    (folder.path / "checkpoints" / "round-000008").mkdir()
    assert folder.best_checkpoint("pass_at_1") == "round-000004"
    assert folder.best_checkpoint("maj_at_k") == "round-000006"
    assert folder.best_checkpoint("pass_at_k") is None
