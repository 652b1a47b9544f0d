"""Which round a run results in."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from recipes.data import _mixing
from recipes.launch import result_of
from recipes.presets import PRESETS
from rl.checkpoint import RunState, save_checkpoint
from rl.optimizer import OptimizerConfig
from rl.policy import Policy, PolicyConfig
from rl.run_folder import RunFolder
from rollouts.tasks.arithmetic import Arithmetic
from rollouts.tasks.instructions import Instructions
from rollouts.tasks.mixture import Mixture


def test_the_result_holds_the_best_rounds_weights(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    policy = Policy(tiny_model, PolicyConfig(), OptimizerConfig(learning_rate=1e-3))
    folder = RunFolder.create(tmp_path / "run", "model: tiny\n", {})
    run = SimpleNamespace(policy=policy, folder=folder)
    kept = {}
    for index, score in ((1, 0.2), (2, 0.5), (3, 0.4)):
        for master in policy.optimizer.masters.values():
            master.data.add_(0.125)
        kept[index] = {n: t.clone() for n, t in policy.optimizer.masters.items()}
        name = f"round-{index:06d}"
        state = RunState(round=index, updates=4 * index)
        last = save_checkpoint(folder.path / "checkpoints" / name, policy, state)
        folder.write_eval(name, {"pass_at_1": score, "maj_at_k": None})
    preset = PRESETS["r1_zero_tiny"]()

    def config(**values):
        return replace(preset, train=replace(preset.train, **values))

    assert result_of(config(final="last"), run, last) == last
    assert result_of(config(final="best", best_by="maj_at_k"), run, last) == last
    assert "no round has maj_at_k on the validation split" in capsys.readouterr().out
    assert result_of(config(final="best"), run, last).updates == 8
    assert "the result is round-000002" in capsys.readouterr().out
    for name, master in policy.optimizer.masters.items():
        assert torch.equal(master, kept[2][name])
        assert not torch.equal(master, kept[3][name])


def test_the_ledger_is_told_weights_and_starts_by_task():
    tasks = (Arithmetic(), Instructions())
    mixture = Mixture(tasks=tasks, weights=(3.0, 1.0), starts=(0, 1300))
    weights = {"arithmetic": 3.0, "instructions": 1.0}
    assert _mixing(mixture) == {
        "weights": weights,
        "starts": {"arithmetic": 0, "instructions": 1300},
    }
    at_once = {"arithmetic": 0, "instructions": 0}
    assert _mixing(Mixture(tasks=tasks, weights=(3.0, 1.0)))["starts"] == at_once
    assert _mixing(Arithmetic()) == {}
