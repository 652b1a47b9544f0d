"""What is refused before anything heavy is loaded: settings, problems, lengths, room on the disk."""

import json
import logging
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rl.eight_bit
from recipes import preflight
from recipes.config import RunConfig
from recipes.preflight import (
    check_config,
    check_folder,
    check_lengths,
    check_room,
    check_splits,
    most_sampled_tokens,
    num_parameters,
)
from recipes.presets import PRESETS
from rewards.problem import Problem
from rl.lora import LoraSettings
from rl.optimizer import OptimizerConfig
from rollouts.tasks.arithmetic import Arithmetic
from rollouts.tasks.countdown import Countdown
from rollouts.tasks.dataset import Dataset
from rollouts.tasks.mixture import Mixture
from rollouts.tasks.programs import Programs

QUICKSTART = PRESETS["quickstart"]()
PROBLEM = Problem(id="p", prompt="?", answer="1", source="s")


def changed(config: RunConfig, section: str, **values: Any) -> RunConfig:
    return replace(config, **{section: replace(getattr(config, section), **values)})


@pytest.mark.parametrize("name", PRESETS)
def test_presets_pass_and_draw_no_countdown_problems(name: str, monkeypatch: pytest.MonkeyPatch):
    # 100,000 of them take most of a minute, and a wrong model name is to be said at once.
    monkeypatch.setattr(Countdown, "problems", lambda *_: pytest.fail("problems were drawn"))
    monkeypatch.setattr(Dataset, "problems", lambda *_: [PROBLEM])  # these are on the hub
    check_config(PRESETS[name]())


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("train", {"group_size": 1}, "train.group_size is 1: .* use 2 or more"),
        ("train", {"num_rounds": 0}, "train.num_rounds is 0: use 1 or more"),
        ("train", {"keep_last": 0}, "train.keep_last is 0: use 1 or more"),
        ("train", {"final": "best", "evaluate_every": 0}, "train.final is best, but nothing is"),
        ("train", {"updates_per_round": 99}, "train.updates_per_round is 99, but a round has only"),
        ("train", {"temperature": 0.0}, "train.temperature is 0.0: .* more than 0"),
        ("train", {"max_tokens": ()}, "train.max_tokens is"),
        ("train", {"max_tokens": ((1, 8),)}, "train.max_tokens is"),
        ("train", {"max_tokens": ((0, 8), (9, 8), (4, 8))}, "train.max_tokens is"),
        ("train", {"max_tokens": ((0, 8), (0, 9))}, "train.max_tokens is"),
        ("train", {"max_tokens": ((0, 0),)}, "train.max_tokens is"),
        ("engine", {"max_concurrent": 0}, "engine.max_concurrent is 0: use 1 or more"),
        ("test", {"num_problems": 0}, "test.num_problems is 0: use 1 or more"),
        ("test", {"num_samples": 4, "k": 5}, "test.k is 5: pass@k needs k from 1 to .*, 4"),
        ("validation", {"k": 0}, "validation.k is 0: pass@k needs k from 1"),
        ("policy", {"dtype": "float32"}, "engine.dtype is bfloat16 and policy.dtype float32"),
        ("engine", {"dtype": "float16"}, "set both to bfloat16 or both to float32"),
    ],
)
def test_settings_that_cannot_work_are_refused(section: str, values: dict, message: str):
    check_config(QUICKSTART)
    with pytest.raises(ValueError, match=message):
        check_config(changed(QUICKSTART, section, **values))


def test_what_sharding_cannot_do_is_refused():
    sharded = changed(QUICKSTART, "policy", fsdp=True)
    check_config(sharded)
    with pytest.raises(ValueError, match=r"^policy.fsdp with policy.lora.rank 4: adapters"):
        check_config(changed(sharded, "policy", lora=LoraSettings(rank=4)))
    with pytest.raises(
        ValueError, match=r"^policy.fsdp with optimizer.states bfloat16: .* float32"
    ):
        check_config(changed(sharded, "optimizer", states="bfloat16"))


def test_both_in_float32_pass():
    check_config(changed(changed(QUICKSTART, "policy", dtype="float32"), "engine", dtype="float32"))


def jsonl(tmp_path: Path, *rows: dict) -> Dataset:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Dataset(path=str(file))


def test_8_bit_states_without_torchao_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rl.eight_bit, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^optimizer.states is 8bit, which needs torchao: pip"):
        check_config(RunConfig(optimizer=OptimizerConfig(states="8bit")))
    check_config(RunConfig())


def test_a_task_without_problems_is_refused_before_a_model_is_fetched(tmp_path: Path):
    empty = jsonl(tmp_path)
    with pytest.raises(ValueError, match=r"no problems in the train split of rows \(train 0, val"):
        check_config(replace(QUICKSTART, task=empty))
    # 1 + 1 alone: one problem, in one of three splits.
    single = Arithmetic(operations=("add",), add_max=1)
    with pytest.raises(ValueError, match="no problems in the validation split of arithmetic"):
        check_config(replace(QUICKSTART, task=single))
    part = Mixture(tasks=(Arithmetic(), empty), weights=(1.0, 1.0))
    with pytest.raises(ValueError, match="split of rows"):
        check_config(replace(QUICKSTART, task=part))


def test_a_row_without_its_field_is_refused_before_a_model_is_fetched(tmp_path: Path):
    task = jsonl(tmp_path, {"prompt": "1 and 1?", "anwser": "2"})
    with pytest.raises(ValueError) as caught:
        check_config(replace(QUICKSTART, task=task))
    assert str(caught.value) == (
        f"{task.path}, line 1: no field 'answer'; the fields are 'prompt', 'anwser'; did you mean "
        "'anwser'?"
    )


def test_a_scoring_process_outlives_the_programs_it_runs(tmp_path: Path):
    task = Programs(path=str(tmp_path / "rows.jsonl"), timeout_s=20.0)
    config = replace(QUICKSTART, task=Mixture(tasks=(Arithmetic(), task), weights=(1.0, 1.0)))
    with pytest.raises(
        ValueError, match=r"deadline_s is 30, .* of rows may take 20 s: set it to 40"
    ):
        check_config(config)
    for values in ({"deadline_s": 40.0}, {"workers": 0}):
        with pytest.raises(ValueError, match="is not a file"):
            check_config(changed(config, "scoring", **values))


def test_only_splits_that_are_read_must_hold_problems():
    problems = {"train": [PROBLEM], "validation": [], "test": [PROBLEM]}
    lean = replace(QUICKSTART, best_prompt=False, train=replace(QUICKSTART.train, evaluate_every=0))
    check_splits(lean, problems, "t")
    for config in (changed(lean, "train", evaluate_every=5), replace(lean, best_prompt=True)):
        with pytest.raises(ValueError, match=r"validation split of t \(train 1, validation 0,"):
            check_splits(config, problems, "t")
    with pytest.raises(ValueError, match="test split"):
        check_splits(lean, {**problems, "test": []}, "t")
    with pytest.raises(ValueError, match="train split"):
        check_splits(lean, {**problems, "train": []}, "t")


def test_a_folder_is_new_or_a_run(tmp_path: Path):
    check_folder(tmp_path / "new", resume=False)
    with pytest.raises(ValueError, match=f"exists: continue it with --resume {tmp_path}, or"):
        check_folder(tmp_path, resume=False)
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match="is not a run folder: it holds no config"):
            check_folder(folder, resume=True)
    (tmp_path / "config.yaml").touch()
    check_folder(tmp_path, resume=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's folder with a context of 1,000 and 6 parameters in two files."""
    import numpy as np
    from safetensors.numpy import save_file

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"max_position_embeddings": 1000}')
    save_file({"a": np.zeros((2, 2), np.float32)}, folder / "model-1.safetensors")
    save_file({"b": np.zeros(2, np.float16)}, folder / "model-2.safetensors")
    return folder


def lengths(train: int, test: int, *, best_prompt: bool = False, micro: int = 4096) -> RunConfig:
    config = changed(QUICKSTART, "train", max_tokens=((0, 10), (5, train)))
    config = changed(changed(config, "test", max_tokens=test), "policy", micro_batch_tokens=micro)
    return replace(changed(config, "validation", max_tokens=10), best_prompt=best_prompt)


def test_the_longest_sequence_is_a_prompt_and_the_largest_limit(model: Path):
    assert check_lengths(lengths(300, 200), model, 100) == 400
    assert check_lengths(lengths(200, 300), model, 100) == 400
    # Other ways to ask have 160 tokens more, as far as the context of 1,000 goes.
    assert check_lengths(lengths(300, 200, best_prompt=True), model, 100) == 560
    assert check_lengths(lengths(850, 200, best_prompt=True), model, 100) == 1000
    assert check_lengths(lengths(900, 200), model, 100) == 1000


def test_a_sequence_longer_than_context_or_micro_batch_is_refused(model: Path):
    with pytest.raises(ValueError, match=r"prompt has 101 tokens .* 1001, more than .* of 1000: l"):
        check_lengths(lengths(900, 200), model, 101)
    with pytest.raises(ValueError, match="context of 1000"):
        check_lengths(lengths(10, 950), model, 100)
    with pytest.raises(ValueError, match=r"micro_batch_tokens is 399, .* 400 tokens: raise it to"):
        check_lengths(lengths(300, 200, micro=399), model, 100)
    assert check_lengths(lengths(300, 800, micro=400), model, 100) == 900


def test_a_model_that_names_no_context_is_not_refused(model: Path):
    (model / "config.json").write_text('{"text_config": {}}')
    assert check_lengths(lengths(3000, 200), model, 100) == 3100
    (model / "config.json").write_text('{"text_config": {"max_position_embeddings": 500}}')
    with pytest.raises(ValueError, match="context of 500"):
        check_lengths(lengths(3000, 200), model, 100)


def test_parameters_are_counted_whatever_their_type(model: Path, tiny_model: Path):
    assert num_parameters(model) == 4 + 2
    assert num_parameters(tiny_model) == 328_704  # conftest's tiny_model, tied


def test_sampled_tokens_at_most():
    config = changed(
        QUICKSTART,
        "train",
        num_rounds=5,
        problems_per_round=3,
        group_size=2,
        updates_per_round=2,
        max_tokens=((0, 10), (4, 100)),
    )
    # Rounds start at updates 0, 2, 4, 6, 8: two with 10 tokens, three with 100; 6 rollouts each.
    assert most_sampled_tokens(config) == 6 * (2 * 10 + 3 * 100)


Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch):
    def set_free(free: int) -> None:
        monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: Usage(10**15, 0, free))

    return set_free


def roomy(**values: Any) -> RunConfig:
    return changed(
        QUICKSTART, "train", num_rounds=1, problems_per_round=1, group_size=2, max_tokens=((0, 1),),
        keep_last=1, **values,
    )  # fmt: skip


def test_checkpoints_that_do_not_fit_are_refused(model: Path, tmp_path: Path, disk, caplog):
    path = tmp_path / "runs" / "x"
    # 6 parameters take 12 bytes each; at most three checkpoints: 216 bytes. Rollouts: 2 x 14.
    disk(216 + 28)
    check_room(roomy(), model, path)
    assert caplog.records == []
    disk(215)
    with pytest.raises(ValueError, match=f"3 checkpoints .* but {tmp_path} has .* GiB free: lower"):
        check_room(roomy(), model, path)
    # A reference in bfloat16 is 2 bytes more a parameter: 252.
    disk(251)
    with pytest.raises(ValueError, match="3 checkpoints"):
        check_room(changed(roomy(), "loss", kl_coefficient=0.1), model, path)
    # In float32 4: 288.
    disk(287)
    wide = changed(changed(roomy(), "loss", kl_coefficient=0.1), "policy", dtype="float32")
    with pytest.raises(ValueError, match="3 checkpoints"):
        check_room(wide, model, path)


def test_what_a_resumed_run_has_written_is_not_asked_for_again(model: Path, tmp_path: Path, disk):
    checkpoint = tmp_path / "run" / "checkpoints" / "round-000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "master.safetensors").write_bytes(bytes(100))
    disk(116)
    check_room(roomy(), model, tmp_path / "run")
    disk(115)
    with pytest.raises(ValueError, match="3 checkpoints"):
        check_room(roomy(), model, tmp_path / "run")


def test_rollouts_that_may_not_fit_are_only_warned_of(model: Path, tmp_path: Path, disk, caplog):
    disk(216 + 27)
    with caplog.at_level(logging.WARNING):
        check_room(roomy(), model, tmp_path / "run")
    assert "as long as its limit" in caplog.text
    # The paper's recipe on a small model: 3 TB if every completion were as long as its limit.
    caplog.clear()
    disk(10**11)
    check_room(PRESETS["r1_zero"](), model, tmp_path / "run")
    assert "the rollouts would take 27" in caplog.text


def test_a_run_in_float16_has_checkpoints_too(model: Path, tmp_path: Path, disk):
    config = changed(roomy(), "policy", dtype="float16")
    disk(216 + 28)
    check_room(config, model, tmp_path / "run")
    disk(215)
    with pytest.raises(ValueError, match="3 checkpoints"):
        check_room(config, model, tmp_path / "run")
