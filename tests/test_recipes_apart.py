"""What a run with engines on Ray takes: memory beside the trainer's on CPUs, whole GPUs elsewhere."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recipes import apart, doctor, fitting
from recipes.fitting import check_memory
from recipes.plan import as_json, planned
from recipes.preflight import check_config
from recipes.presets import PRESETS
from rollouts.placement import Ray

MB = 10**6
RAY = "rollouts:ray --rollouts.num-workers"
LLAMA = {
    "model_type": "llama",
    "vocab_size": 1_000,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2_048,
    "tie_word_embeddings": True,
}
"""138,048 parameters: 64,000 of the embedding, two layers of 36,992 and a norm of 64."""
COUNT = 64_000 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64) + 64


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with nothing but a config.json."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    return tmp_path


def numbers(line: str, model: Path) -> dict[str, Any]:
    return as_json(planned([*line.split(), "--model", str(model)]))


def test_workers_by_hand(model: Path):
    found = numbers(f"quickstart --device 24GiB {RAY} 3 --rollouts.cores 1", model)
    assert found["parameters"] == COUNT == 138_048
    update, publish = found["memory_bytes"]["update"], found["memory_bytes"]["publish"]
    # Thrice the engine's weights in bfloat16, its tied head as a copy; thrice 800 MB of libraries.
    assert update["workers: weights"] == 3 * 2 * (COUNT + 64_000)
    assert update["workers: libraries"] == 3 * 800 * MB
    # 16 x 16 and 256 x 8 requests: a third of 2,048 is more than 128 at once, of 4 + 1 blocks of 32
    # tokens or more each; 2 layers, 2 heads of 16, keys and values, 2 bytes: 256 bytes a token.
    assert update["workers: KV pool"] % (3 * 256 * 32) == 0
    assert update["Ray"] == 400 * MB
    # One copy of what was published, two while the next is.
    assert (update["weights in Ray"], publish["weights in Ray"]) == (2 * COUNT, 4 * COUNT)
    assert not {"engine weights", "engine KV pool", "proof"} & set(publish)
    assert found["placement"] == "placement: 1 trainer without an engine, 3 workers on this machine"


def test_all_that_an_engine_takes_in_the_trainer_is_counted_for_each_worker(model: Path):
    inline, one, two = (
        numbers(f"quickstart --device 24GiB {fields}", model)["memory_bytes"]["sample"]
        for fields in ("", f"{RAY} 1", f"{RAY} 2")
    )
    assert one["workers: weights"] == inline["engine weights"]
    assert one["workers: KV pool"] == inline["engine KV pool"]
    assert 2 * one["workers: libraries"] == two["workers: libraries"]
    assert sum(two.values()) - sum(one.values()) > 800 * MB


def test_workers_of_a_cluster_are_not_this_machines(model: Path):
    found = numbers(f"quickstart --device 24GiB {RAY} 8 --rollouts.address 10.0.0.1:6379", model)
    update = found["memory_bytes"]["update"]
    assert not [name for name in update if name.startswith("workers")]
    assert update["weights in Ray"] == 2 * COUNT
    assert found["placement"].endswith("8 workers of the cluster, whose memory is not counted")


def test_fewer_workers_are_proposed_where_they_fit(capsys: pytest.CaptureFixture[str], model: Path):
    line = f"--plan quickstart --model {model} --device 6GiB {RAY}"
    assert doctor.main([*line.split(), "8"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: needs about ") and error.count("\n") == 1
    count = error.partition("--rollouts.num-workers ")[2][0]
    assert int(count) in range(1, 8)
    assert doctor.main([*line.split(), count]) == 0
    assert capsys.readouterr().err == ""
    doctor.main([*line.split(), str(int(count) + 1)])
    assert "GiB: it fits with --rollouts.num-workers" in capsys.readouterr().err


def test_a_gpu_of_a_trainer_holds_no_engine_and_a_workers_no_trainer(model: Path):
    found = numbers(f"quickstart --device 3xh100 {RAY} 2", model)
    for parts in found["memory_bytes"].values():
        assert not {"engine", "engine asleep", "engine weights", "proof"} & set(parts)
    update = found["memory_bytes"]["update"]
    assert update["masters"] == 4 * COUNT
    held = sum(size for name, size in update.items() if name not in ("libraries", "allocator"))
    assert update["allocator"] == int(0.05 * held)
    assert "2 workers with 1 GPUs each: 3 GPUs" in found["placement"]
    # Whole in each process; Ray has the last publish and the next.
    weights = 2 * COUNT
    assert found["host_parts"] == {
        "trainer": 800 * MB + 4 * COUNT,
        "worker": 800 * MB + weights,
        "Ray": 400 * MB + 2 * weights,
    }


def test_a_worker_of_several_processes_by_hand(model: Path):
    one, two = (
        numbers(f"quickstart --device 24GiB {RAY} 2 --rollouts.cores 1 {more}", model)
        for more in ("", "--engine.tensor-parallel 2")
    )
    few, many = (each["memory_bytes"]["sample"] for each in (one, two))
    # Four processes of half the weights and of one of two key heads each, and four times vLLM.
    for name in ("weights", "KV pool"):
        assert many[f"workers: {name}"] == few[f"workers: {name}"]
    assert many["workers: libraries"] == 2 * few["workers: libraries"] == 4 * 800 * MB

    found = numbers(f"quickstart --device 5xh100 {RAY} 2 --engine.tensor-parallel 2", model)
    assert found["placement"].startswith(
        "placement: 1 trainer without an engine, 2 workers with 2 "
    )
    assert found["placement"].partition(" each: ")[2].startswith("5 GPUs")
    weights = 2 * COUNT
    assert found["host_parts"]["worker"] == 2 * (800 * MB + weights // 2)


def test_gpus_that_no_worker_has_train(model: Path):
    few, many = (
        planned([*f"quickstart --device 8xh100 {RAY} {count}".split(), "--model", str(model)])
        for count in (6, 2)
    )
    assert (few.trainers, many.trainers) == (2, 6)
    assert few.seconds["sample"] < many.seconds["sample"]
    assert few.seconds["update"] > many.seconds["update"]
    assert few.hours == pytest.approx(24 * sum(few.seconds.values()) / 3600)


def test_a_round_ahead_takes_the_longer_of_both(model: Path):
    line = f"quickstart --device 4xh100 {RAY} 2 --train.max-staleness 1 --model {model}"
    plan = planned(line.split())
    longer = max(plan.seconds["sample"], plan.seconds["update"])
    assert plan.round_s == longer + plan.seconds["publish"]


@pytest.mark.parametrize(
    ("device", "workers", "words"),
    [
        ("8xh100", 8, "that is 9, and there are 8: lower rollouts.num_workers to 7"),
        ("h100", 1, "that is 2, and there are 1: leave rollouts:ray out"),
    ],
)
def test_more_gpus_than_there_are_is_one_line(
    capsys: pytest.CaptureFixture[str], model: Path, device: str, workers: int, words: str
):
    line = f"--plan quickstart --model {model} --device {device} {RAY} {workers}"
    assert doctor.main(line.split()) == 2
    assert capsys.readouterr().err == (
        f"error: rollouts.num_workers is {workers} with 1 GPUs each: with one for each of 1 trainers "
        f"{words}\n"
    )


def test_a_start_counts_this_machines_gpus(monkeypatch: pytest.MonkeyPatch):
    config = replace(PRESETS["quickstart"](), rollouts=Ray(num_workers=4))
    monkeypatch.setattr(apart, "uses_gpu", lambda environ: True)  # there is none here
    seen = {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    assert apart.gpus_fault(config, seen).endswith("there are 4: lower rollouts.num_workers to 3")
    assert apart.gpus_fault(config, {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4"}) is None
    both = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4", "LOCAL_WORLD_SIZE": "2"}
    assert "of 2 trainers that is 6, and there are 5" in apart.gpus_fault(config, both)
    shared = replace(config, engine=replace(config.engine, tensor_parallel=2))
    assert apart.gpus_fault(shared, seen) == (
        "rollouts.num_workers is 4 with 2 GPUs each: with one for each of 1 trainers that is 9, and "
        "there are 4: lower rollouts.num_workers to 1"
    )
    wide = replace(config, engine=replace(config.engine, tensor_parallel=4))
    told = apart.gpus_fault(wide, seen)
    assert told.endswith("are 4: lower engine.tensor_parallel, or leave rollouts:ray out")
    elsewhere = replace(config, rollouts=Ray(num_workers=4, address="10.0.0.1:6379"))
    assert apart.gpus_fault(elsewhere, seen) is None
    assert apart.gpus_fault(PRESETS["quickstart"](), seen) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    with pytest.raises(ValueError, match="there are 4: lower rollouts"):
        check_config(config)


def test_a_start_counts_the_workers_memory(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    """The tiny model fits many times into 6 GiB, 64 processes with vLLM in them do not."""
    config = replace(PRESETS["quickstart"](), rollouts=Ray(num_workers=64, cores=1))
    monkeypatch.setattr(fitting, "free_memory", lambda: 6 * 2**30)
    with pytest.raises(ValueError, match=r"the run needs about .* it fits with --rollouts.num-wor"):
        check_memory(config, tiny_model, longest_prompt=50)
    check_memory(replace(config, rollouts=Ray(num_workers=1)), tiny_model, longest_prompt=50)
