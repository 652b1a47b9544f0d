"""The second file of a round, against logprobs computed apart, and over its way to the disk."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rewards.problem import Score, Verdict
from rl.objective import LossConfig
from rl.packing import PackingConfig, pack
from rl.ranks import ALONE
from rl.recording import Recording, Seen, sequences_seen
from rl.run_folder import RunFolder
from rl.trained import Trained, encode_trained, read_trained
from rl.update import prepare, update
from tests.test_rl_update import DEAD, LIVE, OTHER, TEMPERATURE, make_policy, write_model


@pytest.fixture
def policy(tmp_path):
    return make_policy(write_model(tmp_path / "model", tied=False), micro_batch_tokens=20)


def step(policy, groups, keep, *, updates=1):
    """Updates on groups, each on an equal share; gives the rows and the logprobs before and after."""
    recording = Recording(groups, keep)
    shares = [groups[n::updates] for n in range(updates)]
    batches = [pack(share, PackingConfig(), keep_no_signal=False) for share in shares]
    before = [policy.frozen_logprobs(batch, TEMPERATURE) for batch in batches]
    config = LossConfig()
    for share, batch in zip(shares, prepare(policy, batches, config, TEMPERATURE), strict=True):
        seen = recording.begin(share, batch)
        update(policy, batch, config, temperature=TEMPERATURE, rate=0.05, seen=seen)
    rows = recording.rows(policy, TEMPERATURE)
    after = [policy.frozen_logprobs(batch, TEMPERATURE) for batch in batches]
    return rows, batches, before, after


def of_row(row, share, batch, logprobs):
    """A row's logprobs looked up in its batch."""
    mine = (batch.segments == torch.tensor([share, row.sample])).all(1) & batch.sampled
    return logprobs[mine].numpy(), batch.advantages[mine]


def test_rows_hold_what_the_update_computed_before_its_step(policy):
    rows, (batch,), (before,), (after,) = step(policy, [DEAD, LIVE, OTHER], "update")
    # The dead group is in no row; places are those of the round.
    assert [(r.group, r.sample) for r in rows] == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    for row in rows:
        expected, advantages = of_row(row, row.group, batch, before)
        np.testing.assert_allclose(row.logprobs, expected, atol=1e-6)
        assert set(advantages.tolist()) == {row.advantage}
        assert row.update == 0
    assert (before - after).abs().max() > 1e-3  # or the test could not tell before from after


def test_after_means_after_the_rounds_last_update(policy):
    rows, batches, before, after = step(policy, [LIVE, OTHER], "after", updates=2)
    assert [(r.group, r.sample, r.update) for r in rows] == [
        (0, 0, 0), (0, 1, 0), (0, 2, 0), (1, 0, 1), (1, 1, 1)
    ]  # fmt: skip
    for row in rows:
        expected, _ = of_row(row, 0, batches[row.update], after[row.update])
        np.testing.assert_allclose(row.logprobs, expected, atol=1e-6)
        old, _ = of_row(row, 0, batches[row.update], before[row.update])
        assert np.abs(row.logprobs - old).max() > 1e-4


def test_a_step_with_a_record_is_bit_equal_to_one_without(tmp_path):
    ends = []
    for keep in ("none", "update", "after"):
        policy = make_policy(write_model(tmp_path / keep, tied=False), micro_batch_tokens=20)
        step(policy, [LIVE, OTHER], keep)
        ends.append(torch.cat([p.flatten() for p in policy.model.parameters()]))
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])


def test_places_survive_what_groups_go_through():
    # The first member's grader failed and leaves; the others' rewards change, as under k1_reward.
    failed = LIVE.rollouts[0].rescored(Score(value=0.0, verdict=Verdict.GRADER_ERROR))
    whole = replace(LIVE, rollouts=(failed, *LIVE.rollouts[1:]))
    kept = [r.rescored(Score(value=0.5, verdict=Verdict.WRONG)) for r in whole.rollouts[1:]]
    recording = Recording([OTHER, whole], "update")
    seen = recording.begin([replace(whole, rollouts=tuple(kept))], batch=None)
    seen.append(Seen(0, 1, -0.5, np.zeros(2, dtype=np.float32)))
    (row,) = recording.rows(SimpleNamespace(ranks=ALONE), TEMPERATURE)
    assert (row.group, row.sample) == (1, 2)


def test_filling_that_weighs_nothing_is_not_recorded():
    batch = pack([LIVE], PackingConfig(), keep_no_signal=False)
    filling = replace(batch, token_weights=torch.zeros(len(batch)))
    assert len(sequences_seen(batch, torch.zeros(len(batch)))) == 3
    assert sequences_seen(filling, torch.zeros(len(batch))) == []


def test_the_file_gives_back_every_bit(tmp_path):
    run = RunFolder.create(tmp_path / "run", "model: tiny\n", {})
    logprobs = np.array([-0.1, -1e-7, -23.456789], dtype=np.float32)
    row = Trained(group=3, sample=1, update=0, advantage=-0.70710678, logprobs=logprobs)
    run.write_trained(7, [row])
    (back,) = read_trained(run.path / "rollouts" / "trainer-000007.jsonl.zst")
    assert back.logprobs.tobytes() == logprobs.tobytes()
    assert (back.group, back.sample, back.update, back.advantage) == (3, 1, 0, -0.70710678)
    assert encode_trained([row]) == encode_trained([back])
