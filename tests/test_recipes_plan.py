"""`python -m recipes.doctor --plan`: what it says, what it refuses and proposes, before anything loads."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from recipes import doctor
from recipes.cli import guarded, start
from recipes.demand import engine_tokens
from recipes.devices import GPUS, find_device
from recipes.fitting import verdict
from recipes.plan import plan_of, planned
from recipes.presets import PRESETS
from rl.lora import LoraSettings, adapter_size
from rl.memory import peak
from rollouts.model_config import DEFAULT_CONFIG, read_model_config
from rollouts.models import DEFAULT_KEY, DEFAULT_MODEL, cache_folder
from rollouts.placement import Inline

QWEN = {
    "model_type": "qwen2",
    "vocab_size": 151_936,
    "hidden_size": 1_536,
    "intermediate_size": 8_960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "max_position_embeddings": 131_072,
    "tie_word_embeddings": True,
}
"""Qwen2.5-1.5B: 1,543,714,304 parameters."""


@pytest.fixture
def qwen(tmp_path: Path) -> str:
    """A folder with nothing but a config.json."""
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    return str(tmp_path)


def told(capsys: pytest.CaptureFixture[str], line: str) -> tuple[int, str, str]:
    code = doctor.main(shlex.split(line))
    return code, *capsys.readouterr()


def numbers(capsys: pytest.CaptureFixture[str], line: str) -> dict[str, Any]:
    code, out, _ = told(capsys, f"{line} --json")
    assert code in (0, 2)
    return json.loads(out)


def test_a_run_that_fits(capsys: pytest.CaptureFixture[str]):
    code, out, err = told(capsys, "--plan quickstart --device 24GiB")
    assert (code, err) == (0, "")
    assert "134,515,008 parameters (llama, bfloat16)" in out
    assert "cpu 24gib has 24.0 GiB: fits" in out
    assert "a round, estimated:" in out


def test_states_by_hand(capsys: pytest.CaptureFixture[str], qwen: str):
    count = 1_543_714_304
    update = numbers(capsys, f"--plan --device h200 --model {qwen}")["memory_bytes"]["update"]
    assert [update[name] for name in ("model", "masters", "gradients", "moments")] == [
        2 * count, 4 * count, 4 * count, 8 * count,
    ]  # fmt: skip
    narrow = numbers(capsys, f"--plan --device h200 --model {qwen} --optimizer.states bfloat16")
    update = narrow["memory_bytes"]["update"]
    assert [update[name] for name in ("masters", "gradients", "moments")] == [
        0, 2 * count, 4 * count,
    ]  # fmt: skip


def test_adapters_have_states_and_the_base_none(capsys: pytest.CaptureFixture[str], qwen: str):
    found = numbers(capsys, f"--plan --device 64GiB --model {qwen} --policy.lora.rank 12")
    count = found["adapter_parameters"]
    assert count == adapter_size(Path(qwen), LoraSettings(rank=12))
    update = found["memory_bytes"]["update"]
    assert update["model"] == 2 * (1_543_714_304 + count)
    assert [update[name] for name in ("masters", "gradients", "moments")] == [
        4 * count, 4 * count, 8 * count,
    ]  # fmt: skip
    assert update["engine adapters"] == 2 * 2 * count * 16 // 12  # a slot of rank 16, and a copy
    states = numbers(
        capsys,
        f"--plan --device 64GiB --model {qwen} --policy.lora.rank 12 --optimizer.states bfloat16",
    )
    assert states["memory_bytes"]["update"]["moments"] == 8 * count  # adapters keep float32
    whole = numbers(capsys, f"--plan --device 64GiB --model {qwen}")
    assert found["peak_bytes"] < 0.5 * whole["peak_bytes"]
    assert found["seconds_estimated"]["update"] < 0.85 * whole["seconds_estimated"]["update"]


@pytest.mark.parametrize("device", ["12GiB", "rtx4090"])
def test_what_is_proposed_would_fit(capsys: pytest.CaptureFixture[str], qwen: str, device: str):
    line = f"--plan --model {qwen} --train.max-tokens 0 1024 --policy.micro-batch-tokens 16384"
    code, _, err = told(capsys, f"{line} --device {device}")
    assert code == 2
    assert err.startswith("error: needs about ")
    assert len(err.splitlines()) == 1
    ways = [way.split(" (")[0] for way in err.partition("it fits ")[2].split(", or ")]
    assert ways
    for way in ways:
        if way.startswith("with "):
            code, _, err = told(capsys, f"{line} --device {device} {way[5:].strip()}")
        else:
            code, _, err = told(capsys, f"{line} --device {way.rpartition(' ')[2].strip()}")
        assert (code, err) == (0, ""), way


def test_more_of_anything_takes_more(capsys: pytest.CaptureFixture[str]):
    def need(fields: str = "") -> int:
        return numbers(capsys, f"--plan quickstart --device 64GiB {fields}")["peak_bytes"]

    usual = need()
    assert need("--policy.micro-batch-tokens 1024") < 0.8 * usual
    assert need("--policy.gradient-checkpointing") < 0.85 * usual
    assert need("--optimizer.states bfloat16") < 0.85 * usual
    assert need("--loss.kl-coefficient 0.01") == pytest.approx(usual + 2 * 134_515_008, rel=0.01)
    assert need("--engine.dtype float32 --policy.dtype float32") > 1.3 * usual
    assert need("--train.max-tokens 0 2048 --policy.micro-batch-tokens 8192") > 1.5 * usual
    assert need("--policy.no-compile") > 1.05 * usual


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--plan --device rtx1", "unknown device 'rtx1': give cpu, t4, l4, rtx4090,"),
        ("--plan --device 8xrtx1", "unknown device '8xrtx1'"),
        ("--plan --device 0xh100", "unknown device '0xh100'"),
        ("--plan --device t4", "policy.dtype is bfloat16, which t4 does not compute in: use"),
        ("--plan --recipe r9", "--recipe: invalid choice: 'r9'"),
        ("--plan --mean-tokens 0", "--mean-tokens: '0' is no number of tokens, 1 or more"),
        ("--plan --device", "--device: expected one argument"),
        ("--plan quickstrt", "unknown preset 'quickstrt'; did you mean 'quickstart'?"),
        ("--plan --model no/model-here", "model 'no/model-here': no such folder, and not in the"),
        ("--plan --model x.gguf", "model 'x.gguf': only a config.json can be planned with"),
        (
            "--plan --policy.lora.rank 4 --policy.lora.target-modules w",
            "policy.lora.target_modules",
        ),
    ],
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], line: str, words: str):
    code, out, err = told(capsys, line)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert words in err


def test_an_unknown_architecture_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    code, _, err = told(capsys, f"--plan --model {tmp_path}")
    assert code == 2
    assert "its architecture (mamba) cannot be planned" in err


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_a_plan(preset: str, qwen: str):
    device = "h200" if isinstance(PRESETS[preset]().rollouts, Inline) else "8xh200"
    plan = planned([preset, "--model", qwen, "--device", device])
    assert set(plan.memory) == {"load", "gate", "sample", "update", "publish"}
    assert all(seconds > 0 for seconds in plan.seconds.values())


def test_a_faster_gpu_takes_less_time(qwen: str):
    config = PRESETS["quickstart"]()
    pair = (GPUS["a100-80"], GPUS["h100"])
    slow, fast = (plan_of(config, device, prompt=64, mean=24).seconds for device in pair)
    assert all(slow[name] > fast[name] for name in slow)


def test_the_smallest_gpu_is_the_first_that_fits(qwen: str):
    plan = planned(["quickstart", "--model", qwen, "--device", "1GiB"])
    name = plan.line.rpartition("as it is on ")[2].split()[0]
    fits = [
        device.name
        for device in GPUS.values()
        if device.has_bfloat16
        and planned(["--model", qwen, "--device", device.name]).verdict == "fits"
    ]
    assert fits[0] == name


def test_this_machine_is_a_device():
    device = find_device("cpu")
    assert 0 < device.memory < 2**50
    assert find_device("1.5GiB").memory == 3 * 2**29
    assert find_device("2 GB").memory == 2 * 10**9


def test_the_default_model_is_known_before_it_is_fetched():
    file = cache_folder() / DEFAULT_KEY / "config.json"
    if not file.is_file():
        assert read_model_config(DEFAULT_MODEL) == DEFAULT_CONFIG
        pytest.skip("the default model is not in the cache")
    fetched = json.loads(file.read_text())
    assert {name: fetched[name] for name in DEFAULT_CONFIG} == DEFAULT_CONFIG


def test_the_engine_has_room_for_other_prompts_within_the_context():
    config = PRESETS["quickstart"]()  # 24 tokens at most, and `best_prompt` asks for 160 more
    assert [engine_tokens(config, 50, context) for context in (None, 512, 100)] == [234, 234, 100]


def test_a_run_that_cannot_fit_is_refused_before_anything_is_loaded(
    tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    folder = tmp_path / "huge"
    folder.mkdir()
    for file in tiny_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    fields = json.loads((folder / "config.json").read_text())
    sizes = {"hidden_size": 16_384, "num_hidden_layers": 400, "intermediate_size": 65_536}
    (folder / "config.json").write_text(json.dumps(fields | sizes))
    words = f"--model {folder} --run-folder {tmp_path / 'run'} --no-best-prompt".split()
    assert guarded(lambda: start("quickstart", "quickstart", words)) == 2
    (line,) = [row for row in capfd.readouterr().err.splitlines() if row.startswith("error")]
    assert line.startswith("error: the run needs about ")
    assert "GiB free: no setting makes it fit" in line
    assert not (tmp_path / "run").exists()


def test_the_verdict_has_margins(qwen: str):
    plan = planned(["--model", qwen, "--device", "64GiB"])
    need = peak(plan.memory)[1]
    shares = {1.2: "fits", 1.05: "tight", 0.95: "tight", 0.9: "too large"}
    assert {s: verdict(plan.demand, int(need * s)) for s in shares} == shares


def test_several_gpus_are_a_device():
    node, cluster = find_device("8xH100"), find_device("64x8xh800")
    assert (node.count, node.memory) == (8, GPUS["h100"].memory)
    assert cluster.count == 512
    assert node.told == "8xh100 has 79.6 GiB each"


def test_sharded_states_are_offered_no_other_precision(capsys: pytest.CaptureFixture[str]):
    code, _, err = told(capsys, "--plan qwen2.5-7b --device 2xh100")
    assert code == 2
    assert "--optimizer" not in err  # what `policy.fsdp` refuses


def test_dapo_is_tight_on_the_papers_own_gpus(capsys: pytest.CaptureFixture[str]):
    code, out, err = told(capsys, "--plan dapo --device 16x8xh20")
    assert code == 0
    assert "16x8xh20 has 95.6 GiB each: tight" in out
    assert "as it is on h200 128 times" in err


def test_what_a_preset_states_is_shown_and_assumed(capsys: pytest.CaptureFixture[str]):
    code, out, _ = told(capsys, "--plan dr_grpo")
    assert code == 0
    assert "8 A100 with 80 GB, as the paper" in out
    assert "hours: 27 (paper)" in out
    assert "8xa100-80 has 80.0 GiB each: fits" in out
    assert "completions of 800 on average" in out
    assert "memory of the host of each process: about 29" in out
    _, out, _ = told(capsys, "--plan dr_grpo --train.group-size 4")
    assert "completions of 1500 on average" in out  # another run: a guess again


def test_what_a_gpus_process_holds_in_the_hosts_memory(
    capsys: pytest.CaptureFixture[str], qwen: str
):
    count, line = 1_543_714_304, f"--plan --model {qwen} --device h200"
    libraries = 800 * 10**6
    assert numbers(capsys, line)["host_bytes"] == libraries + 4 * count  # as it is read
    away = numbers(capsys, f"{line} --optimizer.offload")
    assert away["host_bytes"] == libraries + 2 * count + 16 * count  # the engine asleep, and states
    assert numbers(capsys, f"--plan --model {qwen} --device 64GiB")["host_bytes"] == 0


def test_what_comes_to_a_gpu_in_float32_and_does_not_stay(
    capsys: pytest.CaptureFixture[str], qwen: str
):
    line = f"--plan --model {qwen} --device h200"
    found = [
        numbers(capsys, f"{line} {fields}")["memory_bytes"]["load"]["weights as read"]
        for fields in ("", "--optimizer.offload", "--policy.lora.rank 8")
    ]
    # Masters stay; put away, the model's 2 of 4 bytes stay; a frozen base comes cast.
    assert found == [0, 2 * 1_543_714_304, 0]


def test_a_small_share_for_the_cache_samples_fewer_at_once(
    capsys: pytest.CaptureFixture[str], qwen: str
):
    line = f"--plan --model {qwen} --device l4 --train.max-tokens 0 4096 --policy.gradient-checkpointing"
    wide, narrow = (
        numbers(capsys, f"{line} --engine.gpu-memory-frac {share}")["seconds_estimated"]["sample"]
        for share in (0.9, 0.25)
    )
    assert narrow > 1.5 * wide
