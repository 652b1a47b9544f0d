"""Checkpoints of sharded parameters, written and read by one, two and three processes (gloo)."""

import importlib.util
import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rl.checkpoint import RunState, load_checkpoint, save_checkpoint
from rl.ranks import ALONE
from rl.run_folder import RunFolder
from tests import packed_models
from tests.ranks_program import ROOT, torchrun
from tests.sharded_program import made, trained, whole

PROGRAM = ROOT / "tests" / "sharded_program.py"
KINDS = ["exp_avg", "exp_avg_sq", "master", "reference"]


def by(count, folder, *steps):
    done = torchrun(PROGRAM, folder, *steps, count=count)
    assert done.returncode == 0, done.stderr[-3000:]


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype, key
        assert torch.equal(found[key], tensor), key


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A policy that one process trained, its whole checkpoint, and the folder of all."""
    path = tmp_path_factory.mktemp("sharded")
    packed_models.llama().save_pretrained(path / "llama")
    model = trained(made(path, ALONE), 1)
    return model, save_checkpoint(path / "whole", model, RunState(round=7)), path


@pytest.fixture(scope="module")
def folder(alone):
    """Where two processes have done all of the program's steps that end well."""
    _, _, path = alone
    by(2, path, "loads:whole", "saves", "fails")
    return path


@pytest.fixture(scope="module")
def saved(folder):
    """What two processes wrote."""
    return [json.loads((folder / f"found-{index}.json").read_text()) for index in range(2)]


def test_each_process_writes_its_own_shards_and_none_the_whole(folder, saved):
    files = {
        p.relative_to(folder / "sharded").as_posix() for p in (folder / "sharded").rglob("*.*")
    }
    shards = {f"{k}/shard-0000{i}-model-00001-of-00001.safetensors" for k in KINDS for i in (1, 2)}
    assert files == shards | {"step.safetensors", "state.json"}
    sizes = {f: (folder / "sharded" / f).stat().st_size for f in shards}
    for kind in KINDS:  # every tensor's rows are even: two halves and two heads of equal length
        left, right = sorted(size for file, size in sizes.items() if file.startswith(f"{kind}/"))
        assert right - left <= 64, kind


def test_as_many_processes_go_on_bit_for_bit(saved):
    assert saved[0] == saved[1]
    assert saved[0]["equal"]


def test_the_digest_is_that_of_all_masters(folder, saved):
    found = saved[0]
    assert len(found["saved"]) == 64 and found["saved"] == found["loaded"]
    assert found["after"][0] == found["after"][1] != found["saved"]
    assert found["changed"] != found["after"][1]
    stored = json.loads((folder / "sharded" / "state.json").read_text())
    assert stored["masters_sha256"] == found["saved"]


def test_one_process_reads_what_two_wrote(folder, saved):
    model = made(folder, ALONE)
    state = load_checkpoint(folder / "sharded", model)
    assert state == RunState(round=1, drawn={"a": 3}, masters_sha256=saved[0]["saved"])
    assert_equal(whole(model), torch.load(folder / "expected-0.pt"))
    name = "model.layers.0.mlp.up_proj.weight"
    assert model.optimizer.state()[f"step/{name}"] == 2
    assert model.published()[name].equal(model.optimizer.masters[name].bfloat16())


def test_three_processes_read_what_two_wrote(folder, saved):
    by(3, folder, "loads:sharded")
    for index in range(3):  # 32, 24 and 16 rows: cut unequally
        _, found = torch.load(folder / f"sharded-by-3-{index}.pt", weights_only=False)
        assert_equal(found, torch.load(folder / "expected-0.pt"))


def test_two_sharded_processes_read_what_one_wrote_whole(alone, folder):
    model, state, _ = alone
    assert (folder / "whole" / "master.safetensors").is_file()
    for index in range(2):
        read, found = torch.load(folder / f"whole-by-2-{index}.pt", weights_only=False)
        assert read == state
        assert_equal(found, whole(model))


def test_before_the_first_update_there_are_masters_alone(folder, saved):
    assert [p.name for p in (folder / "fresh").iterdir() if p.is_dir()] == ["master"]
    model = trained(made(folder, ALONE), 1)
    model.reference = None
    load_checkpoint(folder / "fresh", model)
    assert model.reference is None
    fresh = made(folder, ALONE).optimizer.state()
    assert {key.partition("/")[0] for key in fresh} == {"master"}
    assert_equal(model.optimizer.state(), fresh)


def test_a_folder_that_one_does_not_see_and_a_full_disk_are_told_to_all(folder):
    told = [json.loads((folder / f"told-{index}.json").read_text()) for index in range(2)]
    for line, kind in told:
        assert "not all of them see this folder: give a --run-folder on a file system" in line
        assert kind == "OSError"
    assert not list(folder.glob("*full*"))


def test_a_kill_in_the_middle_of_writing_leaves_the_checkpoint_before_as_the_last(folder):
    done = torchrun(PROGRAM, folder, "dies")
    assert done.returncode != 0
    path = folder / "run" / "checkpoints"
    assert [p.name for p in sorted(path.iterdir())] == [".tmp-round-000002", "round-000001"]
    shards = {p.parent.name for p in (path / ".tmp-round-000002").glob("*/shard-00001-*")}
    assert shards == {"master"}  # of the one that was killed
    run = RunFolder(folder / "run")
    assert [p.name for p in run.checkpoints()] == ["round-000001"]
    assert [p.name for p in path.iterdir()] == ["round-000001"]
    assert load_checkpoint(path / "round-000001", made(folder, ALONE)).round == 1
    run.close()


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
def test_moments_in_eight_bits_go_on_bit_for_bit_and_others_read_their_values(tmp_path):
    sizes = {**packed_models.SIZES, "hidden_size": 128, "intermediate_size": 160}
    config = LlamaConfig(**sizes, **packed_models.HEADS)
    packed_models.seeded(LlamaForCausalLM, config).save_pretrained(tmp_path / "llama")
    by(2, tmp_path, "eight_bits")
    for index in range(2):
        found = json.loads((tmp_path / f"eight-{index}.json").read_text())
        assert found["equal"] and found["coded"] > 0
    model = made(tmp_path, ALONE, "8bit")
    load_checkpoint(tmp_path / "eight", model)
    parts = [torch.load(tmp_path / f"eight-{index}.pt") for index in range(2)]
    for moment, *halves in zip(model.optimizer.moments().values(), *parts, strict=True):
        values = moment.dequantize() if hasattr(moment, "codes") else moment
        joined = torch.cat(halves)
        # Coded twice in blocks that begin elsewhere: within a few of 256 steps of the largest.
        assert (values - joined).abs().max() <= 0.02 * joined.abs().max()
