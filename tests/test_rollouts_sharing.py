"""An engine that processes share under torchrun (gloo) against one that a process has alone.

Sums are rounded in another order: logprobs are near, and the tokens of short completions equal.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rollouts.device_memory import kv_pool_bytes
from rollouts.model_config import sharing_fault
from rollouts.proof import Proof
from rollouts.tensor_slices import own_slices
from tests.ranks_program import ROOT, torchrun
from tests.sharing_program import MODELS, write_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sharing")
    write_models(path)
    return path


def results(folder: Path, count: int, *models: str) -> list[dict]:
    """What each of so many processes found."""
    done = torchrun(ROOT / "tests" / "sharing_program.py", folder, *models, count=count)
    assert done.returncode == 0, done.stderr[-3000:]
    names = [folder / f"result-{index}-of-{count}.pt" for index in range(count)]
    return [torch.load(name, weights_only=False) for name in names]


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict:
    return results(folder, 1, *MODELS)[0]


@pytest.fixture(scope="module")
def left_over() -> Iterator[list[Path]]:
    """Shared memory under the names that vLLM itself gives, as a killed run or another one has it."""
    names = [Path(f"/dev/shm/-tp:0-[0-1]-cpushm_{rank}") for rank in (0, 1)]
    ours = [name for name in names if not name.exists()]
    for name in ours:
        name.touch()
    yield names
    for name in ours:
        name.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def together(folder: Path, left_over: list[Path]) -> list[dict]:
    """Fails without the cure of that (rollouts/cures.py)."""
    return results(folder, 2, *MODELS)


def assert_same_samples(found: list[dict], expected: dict) -> None:
    first = found[0]["completions"]
    assert all(other["completions"] == first for other in found)
    assert sum(len(completion.token_ids) for completion in first) > 60
    for mine, theirs in zip(first, expected["completions"], strict=True):
        assert mine.token_ids == theirs.token_ids
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=2e-4)
        assert mine.versions == theirs.versions == ((1, 0, len(mine.token_ids)),)


@pytest.mark.parametrize("model", MODELS)
def test_two_processes_sample_as_one(model: str, alone: dict, together: list[dict]):
    assert_same_samples([found[model] for found in together], alone[model])


@pytest.mark.parametrize("model", MODELS)
def test_each_process_proves_its_part_of_every_tensor(model: str, together: list[dict]):
    count = MODELS[model].count
    expected = Proof(num_checked=count, num_total=count, version=1)
    assert [found[model]["proof"] for found in together] == [expected, expected]


@pytest.mark.parametrize("model", MODELS)
def test_a_wrong_element_is_caught_by_the_process_that_holds_it(model: str, together: list[dict]):
    first, second = (found[model]["caught"] for found in together)
    for name in MODELS[model].cut:
        assert (first[name, "first"], second[name, "first"]) == (True, False), name
        assert (first[name, "last"], second[name, "last"]) == (False, True), name
    for name in MODELS[model].whole:
        for fault in ("first", "last"):
            assert first[name, fault] and second[name, fault], name


def test_each_process_holds_its_share_of_the_keys_and_values(alone: dict, together: list[dict]):
    """Two heads of keys are divided; one head, and what latent attention keeps, both hold."""
    bytes_of = {name: alone[name]["kv_pool_bytes"] for name in MODELS}
    for found in together:
        assert found["qwen3_moe"]["kv_pool_bytes"] == bytes_of["qwen3_moe"] // 2
        assert found["phi3"]["kv_pool_bytes"] == bytes_of["phi3"] // 2
        assert found["llama"]["kv_pool_bytes"] == bytes_of["llama"]
        assert found["deepseek_v3"]["kv_pool_bytes"] == bytes_of["deepseek_v3"]


def test_processes_that_were_given_other_tokens_are_told(together: list[dict]):
    for found in together:
        assert found["apart"].startswith("process 1 was given other tokens than the process that")


@pytest.mark.slow
def test_without_the_cure_another_engine_is_in_the_way(folder: Path, left_over: list[Path]):
    program = f"""
import contextlib, runpy, sys
from rollouts.cures import Cures
Cures.launching = lambda self, executor: contextlib.nullcontext()
sys.argv = ["", {str(folder)!r}, "llama"]
runpy.run_path({str(ROOT / "tests" / "sharing_program.py")!r}, run_name="__main__")
"""
    file = folder / "uncured.py"
    file.write_text(program)
    done = torchrun(file)
    assert done.returncode != 0
    assert "create shm in SHMManager failed" in done.stderr


@pytest.mark.slow
def test_four_processes_share_two_heads_of_keys(folder: Path, alone: dict):
    found = results(folder, 4, "phi3")
    assert_same_samples([each["phi3"] for each in found], alone["phi3"])
    qkv, down = MODELS["phi3"].cut[0], MODELS["phi3"].cut[-1]
    caught = [each["phi3"]["caught"] for each in found]
    assert [each[qkv, "last"] for each in caught] == [
        False,
        False,
        True,
        True,
    ]  # the last value head
    assert [each[qkv, "first"] for each in caught] == [True, False, False, False]
    assert [each[down, "last"] for each in caught] == [False, False, False, True]


def layer(rank: int, size: int, **fields) -> SimpleNamespace:
    return SimpleNamespace(tp_rank=rank, tp_size=size, **fields)


def test_a_cut_that_leaves_something_out_is_no_cut():
    """Of six rows two processes with two each would hold four: the proof then compares all six."""
    (held,) = own_slices(
        layer(1, 2, output_partition_sizes=[2], input_size=3), "weight", [torch.ones(6, 3)]
    )
    assert held.shape == (6, 3)
    (held,) = own_slices(
        layer(1, 2, output_partition_sizes=[3], input_size=3),
        "weight",
        [torch.arange(18).view(6, 3)],
    )
    assert held.tolist() == [[9, 10, 11], [12, 13, 14], [15, 16, 17]]


def test_the_vocabulary_is_padded_before_it_is_cut():
    """259 ids in two parts of 160: the second has 99, and rows of padding that nobody published."""
    rows = torch.arange(259)[:, None]
    first, second = (
        own_slices(layer(rank, 2, num_embeddings_per_partition=160), "weight", [rows])[0]
        for rank in (0, 1)
    )
    assert (first[0].item(), first[-1].item(), len(first)) == (0, 159, 160)
    assert (second[0].item(), second[-1].item(), len(second)) == (160, 258, 99)


def test_a_bias_behind_split_inputs_is_whole():
    row = layer(1, 2, output_partition_sizes=[4], input_size=8, input_size_per_partition=4)
    assert own_slices(row, "bias", [torch.arange(4)])[0].tolist() == [0, 1, 2, 3]
    assert own_slices(row, "weight", [torch.ones(4, 8)])[0].shape == (4, 4)


def test_kv_pool_bytes_of_a_share():
    """Qwen2.5-7B: 28 layers, 4 heads of 128 in 16 bits: 57,344 bytes a token, 14,336 of four."""
    qwen = SimpleNamespace(
        num_hidden_layers=28, num_key_value_heads=4, num_attention_heads=28, hidden_size=3584
    )
    sizes = [
        kv_pool_bytes(qwen, 2, max_tokens=32, concurrent=1, processes=count)
        for count in (1, 2, 4, 8)
    ]
    assert sizes == [2 * 32 * 57_344, 2 * 32 * 28_672, 2 * 32 * 14_336, 2 * 32 * 14_336]


def test_what_cannot_be_divided_is_told():
    qwen = {"num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18_944}
    assert [sharing_fault(qwen, size) for size in (1, 2, 4)] == [None, None, None]
    assert sharing_fault(qwen, 8) == (
        "its num_attention_heads is 28, which engine.tensor_parallel 8 does not divide"
    )
    odd = {"num_attention_heads": 12, "num_key_value_heads": 4, "intermediate_size": 24}
    assert sharing_fault(odd, 6) == (
        "its num_key_value_heads is 4, which engine.tensor_parallel 6 neither divides nor is a "
        "multiple of"
    )
    assert sharing_fault({**odd, "kv_lora_rank": 512}, 6) is None
    inner = {"text_config": {**odd, "intermediate_size": 25}}
    assert "intermediate_size is 25" in sharing_fault(inner, 2)
