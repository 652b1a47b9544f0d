"""What goes wrong from outside, end to end: one clear line, exit code 2, and nothing lost.

Runs happen in this process, on the tiny model; the command line in a process of its own stands
in test_recipes_cli.py, and a run that is killed in test_recipes_resume.py.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.kill import differences
from recipes import launch
from recipes.cli import guarded, start
from recipes.progress import Progress
from rl.run_folder import RunFolder
from rollouts.records import encode_groups, read_groups

ROOT = Path(__file__).resolve().parent.parent
KEPT: list[Any] = []  # vLLM's engines: freeing one would tear down the state of the others
FIELDS = {
    "--train.num-rounds": "4",
    "--train.problems-per-round": "2",
    "--train.group-size": "4",
    "--train.max-tokens": "0 8",
    "--train.save-every": "1",
    "--train.keep-last": "1",
    "--loss.kl-coefficient": "0.001",  # so that groups without signal are trained as well
    "--test.num-problems": "2",
    "--test.num-samples": "2",
    "--test.max-tokens": "8",
    "--validation.max-tokens": "8",
}


def fields(model: Path | str, **changed: str) -> list[str]:
    """The arguments of a small run; `train_group_size="1"` changes --train.group-size."""
    given = FIELDS | {
        f"--{n.replace('_', '.', 1).replace('_', '-')}": v for n, v in changed.items()
    }
    words = [word for name, value in given.items() for word in (name, *value.split())]
    return ["--model", str(model), "--no-best-prompt", *words]


@pytest.fixture
def run(capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs the recipe in an empty folder: gives the exit code and what it wrote to stderr."""
    build = launch.build

    def kept(*args: Any) -> Any:
        KEPT.append(build(*args))
        return KEPT[-1]

    def action(*words: str) -> tuple[int, str]:
        capfd.readouterr()
        # As in a process of its own: pytest's is no descriptor 2, which `quiet` redirects.
        with open(2, "w", buffering=1, closefd=False) as errors, redirect_stderr(errors):
            code = guarded(lambda: start("r1_zero", "quickstart", words))
        return code, capfd.readouterr().err

    monkeypatch.setattr(launch, "build", kept)
    monkeypatch.chdir(tmp_path)
    return action


def refused(run: Callable[..., tuple[int, str]], *words: str) -> str:
    """The one line that refuses a new run; nothing was written."""
    before = sorted(Path.cwd().rglob("*"))
    code, errors = run(*words)
    assert code == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert sorted(Path.cwd().rglob("*")) == before
    return errors.removeprefix("error: ").strip()


def write_rows(name: str, *rows: dict) -> list[str]:
    """A file with these rows, each time another one: tasks are read once a process."""
    Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["task:dataset", "--task.path", f"{name}.jsonl"]


def test_settings_and_data_are_refused_before_a_model_is_looked_for(run):
    """The model is one that could not be had, so that another line would show it."""
    absent = fields("no-one/no-model")
    assert refused(run, *fields("no-one/no-model", train_group_size="1")) == (
        "train.group_size is 1: advantages compare a group's completions; use 2 or more"
    )
    nothing = ["task:arithmetic", "--task.add-max", "0"]
    assert "add_max is 0, which leaves no problems" in refused(run, *absent, *nothing)
    few = ["task:arithmetic", "--task.operations", "add", "--task.add-max", "1"]
    assert "no problems in the test split of arithmetic" in refused(run, *absent, *few)
    assert "no problems in the train split of empty (train 0," in refused(
        run, *absent, *write_rows("empty")
    )
    row = {"prompt": "1 and 1?", "result": "2"}
    assert refused(run, *absent, *write_rows("rows", row)).startswith(
        "rows.jsonl, line 1: no field 'answer'; the fields are 'prompt', 'result'"
    )
    assert "'absent.jsonl' is not a file" in refused(
        run, *absent, "task:dataset", "--task.path", "absent.jsonl"
    )
    assert "stop_after is '5': write it as hours" in refused(run, *absent, "--stop-after", "5")
    Path("there").mkdir()
    assert "the run folder there exists: continue it with --resume there" in refused(
        run, *absent, "--run-folder", "there"
    )


def test_an_engine_that_these_processes_cannot_share_is_refused(
    run, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    def line(size: str, *words: str) -> str:
        return refused(run, *fields(tiny_model, engine_tensor_parallel=size), *words)

    assert line("0") == "engine.tensor_parallel is 0: use 1 or more"
    assert line("2") == (
        "engine.tensor_parallel is 2, but one process runs: start torchrun --nproc-per-node 2 -m "
        "recipes.NAME, or name rollouts:ray"
    )
    assert line("2", "rollouts:ray", "--rollouts.gpus", "2") == (
        "Error parsing rollouts: rollouts.gpus is 2, but it is of a GPU for each process: set "
        "engine.tensor_parallel for an engine over several; see python -m recipes.r1_zero --help"
    )
    with monkeypatch.context() as cuda:
        cuda.setattr("recipes.engines.uses_gpu", lambda environ: True)  # there is none here
        assert line("2", "rollouts:ray", "--rollouts.gpus", "0.5") == (
            "engine.tensor_parallel is 2 and rollouts.gpus 0.5: each process of such an engine needs "
            "a whole GPU, leave rollouts.gpus at 1"
        )
    assert line("2", "--policy.lora.rank", "4") == (
        "engine.tensor_parallel is 2 and policy.lora.rank 4: adapters cannot be published to an "
        "engine that several processes share; leave one of them out"
    )
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert line("3") == (
        "engine.tensor_parallel is 3, but 4 processes run on this machine: use a number that "
        "divides theirs"
    )
    assert line("4") == (
        f"model {str(tiny_model)!r}: its num_attention_heads is 2, which engine.tensor_parallel 4 "
        "does not divide"
    )


def test_a_model_that_cannot_be_had_is_one_line(run, monkeypatch: pytest.MonkeyPatch):
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    line = refused(run, *fields("Qwen/Qwen2.5-0.5"))
    assert line.startswith(
        "model 'Qwen/Qwen2.5-0.5': no such folder, and the Hugging Face hub does"
    )
    assert "Nearest known: 'Qwen/Qwen2.5-0.5B'" in line
    assert "model './absent': no such folder." in refused(run, *fields("./absent"))
    # The paper's recipe without any field, as one types it first.
    line = refused(run, "r1_zero")
    assert line.startswith("model 'deepseek-ai/DeepSeek-V3-Base': no such folder, and the Hugging")


def test_a_prompt_longer_than_the_context_is_refused_before_a_folder_is_made(run, tiny_model):
    rows = [{"prompt": f"{i} and 1? {'x' * 600}", "answer": str(i + 1)} for i in range(40)]
    words = write_rows("long", *rows)
    line = refused(run, *fields(tiny_model), *words)
    assert line.startswith("the longest prompt has 6")
    assert "more than the model's context of 512: lower prompts.max_prompt_tokens" in line
    # Left out by their length, none is left.
    line = refused(run, *fields(tiny_model, prompts_max_prompt_tokens="100"), *words)
    assert line.startswith("no problems in the train split of long (train 0, validation 0, test 0)")


class EngineDeath:
    """Lets vLLM's engine raise in its first step of a round."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, round_index: int):
        from vllm.v1.engine.llm_engine import LLMEngine

        self._phase, self._step, self._left = Progress.phase, LLMEngine.step, round_index + 1
        monkeypatch.setattr(Progress, "phase", lambda progress, name: self.phase(progress, name))
        monkeypatch.setattr(LLMEngine, "step", lambda core: self.step(core))

    def phase(self, progress: Progress, name: str) -> None:
        self._left -= name == "sample"
        self._phase(progress, name)

    def step(self, core: Any) -> list[Any]:
        if self._left == 0:
            raise RuntimeError("a kernel\nfailed")
        return self._step(core)


def test_a_reference_that_is_no_relative_is_refused_before_anything_is_loaded(
    run, tiny_model, tmp_path
):
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    values = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(values | {"vocab_size": 300}))
    given = fields(tiny_model, loss_reference_model=str(other))
    assert refused(run, *given) == (
        f"loss.reference_model {str(other)!r} has vocab_size 300, the model 259: choose a checkpoint "
        "of the same model, such as the one that this training started from"
    )
    given = fields(tiny_model, loss_reference_model=str(tiny_model), loss_kl_coefficient="0")
    assert "without a KL term nothing is held to it" in refused(run, *given)
    given = [*fields(tiny_model, loss_reference_model=str(tiny_model)), "--policy.lora.rank", "2"]
    assert "adapters are held to their own base" in refused(run, *given)
    given = fields(tiny_model, loss_reference_model=str(tmp_path / "nothing"))
    assert "nothing" in refused(run, *given)


def test_a_model_that_cannot_be_a_policy_is_one_line(run, tiny_model: Path, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    values = json.loads((other / "config.json").read_text())
    fp8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    (other / "config.json").write_text(json.dumps(values | fp8))
    assert refused(run, *fields(other)) == (
        f"model {str(other)!r}: its weights are quantised (fp8), which cannot be trained: convert "
        "the checkpoint to bfloat16 first, and its config.json must then hold no quantization_config"
    )
    experts = {"model_type": "qwen3_moe", "num_experts": 8}
    (other / "config.json").write_text(json.dumps(values | experts))
    if not torch.cuda.is_available():
        line = refused(run, *fields(other), "--policy.lora.rank", "2")
        assert "cannot be used with experts on a CPU" in line


@pytest.fixture(scope="module")
def runs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of two runs: one never disturbed, and one whose engine died in round 2."""
    base = tmp_path_factory.mktemp("runs")
    build = launch.build
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "build", lambda *args: KEPT.append(build(*args)) or KEPT[-1])
        words = [*fields(tiny_model), "--run-folder"]
        assert guarded(lambda: start("r1_zero", "quickstart", [*words, f"{base}/never"])) == 0
        EngineDeath(patch, 2)
        assert guarded(lambda: start("r1_zero", "quickstart", [*words, f"{base}/died"])) == 2
    return {"never": base / "never", "died": base / "died"}


@pytest.fixture
def died(runs: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the run whose engine died in round 2."""
    return Path(shutil.copytree(runs["died"], tmp_path / "died"))


def names(folder: Path, part: str) -> list[str]:
    """What is there, leftovers too, but for what the trainer writes beside its rounds."""
    found = (path.name for path in (folder / part).iterdir())
    return sorted(name for name in found if not name.startswith("trainer-"))


def test_an_engine_that_dies_costs_its_round_only(run, runs, died, tiny_model, monkeypatch):
    assert names(died, "checkpoints") == ["round-000002"]
    assert len(names(died, "rollouts")) == 2
    with monkeypatch.context() as patch:
        EngineDeath(patch, 0)
        code, errors = run("--resume", str(died))
    assert (code, errors) == (2, "error: the engine died: RuntimeError: a kernel failed\n")
    assert names(died, "checkpoints") == ["round-000002"]
    assert run("--resume", str(died))[0] == 0
    assert differences(runs["never"], died) == []


def test_a_run_that_is_over_can_be_resumed_and_stays_as_it_is(run, runs, tmp_path: Path):
    copy = Path(shutil.copytree(runs["never"], tmp_path / "copy"))
    assert run("--resume", str(copy))[0] == 0
    assert differences(runs["never"], copy) == []


def test_a_loss_that_is_not_a_number_stops_and_names_the_batch(run, runs, died):
    rollouts = died / "rollouts"
    groups = read_groups(rollouts / "round-000001.jsonl.zst")
    spoilt = replace(groups[0].rollouts[0], logprobs=(float("nan"),) * 512)
    spoilt = replace(spoilt, logprobs=spoilt.logprobs[: len(spoilt.token_ids)])
    groups[0] = replace(groups[0], rollouts=(spoilt, *groups[0].rollouts[1:]))
    batch = rollouts / "round-000002.jsonl.zst"
    batch.write_bytes(encode_groups(groups))
    before = (died / "checkpoints" / "round-000002" / "master.safetensors").read_bytes()
    code, errors = run("--resume", str(died))
    assert code == 2
    assert errors.startswith("error: the loss is nan in update 0 of round 2 (")
    assert str(batch) in errors
    assert errors.count("\n") == 1
    assert names(died, "checkpoints") == ["round-000002"]
    assert (died / "checkpoints" / "round-000002" / "master.safetensors").read_bytes() == before
    # Without that batch the run goes on to what it would have been.
    batch.unlink()
    assert run("--resume", str(died))[0] == 0
    assert differences(runs["never"], died) == []


FULL = "free some space, then --resume; the last checkpoint is whole"


def test_a_disk_that_fills_during_a_checkpoint_loses_nothing(run, runs, died, monkeypatch):
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if ".tmp-round-000003/" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, errors = run("--resume", str(died))
    assert (code, errors) == (2, f"error: the disk is full: {FULL}\n")
    assert names(died, "checkpoints") == ["round-000002"]
    assert len(names(died, "rollouts")) == 3  # the round that was sampled is kept
    assert run("--resume", str(died))[0] == 0
    assert differences(runs["never"], died) == []


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 32 MB; skips where this user may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield place
    # Lazily: a reference that was loaded from here is still mapped.
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize(("phase", "kept_rounds"), [("save", 3), ("sample", 2)])
def test_a_disk_that_is_really_full(run, runs, small_disk, monkeypatch, phase, kept_rounds):
    """A real one: safetensors, written in Rust, says it in another way than Python does."""
    folder = Path(shutil.copytree(runs["died"], small_disk / "died"))
    filler = small_disk / "filler"
    shown = Progress.phase

    def fill(progress: Progress, name: str) -> None:
        shown(progress, name)
        if name == phase and not filler.exists():
            with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
                while True:
                    file.write(bytes(4096))

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "phase", fill)
        code, errors = run("--resume", str(folder))
    assert code == 2
    assert errors.startswith("error: the disk is full")
    assert errors.endswith(f"{FULL}\n")
    assert errors.count("\n") == 1
    assert names(folder, "checkpoints") == ["round-000002"]
    assert len(names(folder, "rollouts")) == kept_rounds
    filler.unlink()
    assert run("--resume", str(folder))[0] == 0
    assert differences(runs["never"], folder) == []


def test_a_run_folder_in_use_is_refused_and_left_alone(run, runs, died):
    holder = f"""
from pathlib import Path
from rl.run_folder import RunFolder
held = RunFolder(Path({str(died)!r}))
print("held", flush=True)
input()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", holder],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        code, errors = run("--resume", str(died))
    finally:
        process.communicate("\n")
    assert (code, errors) == (2, f"error: the run folder {died} is in use by another process\n")
    RunFolder(died).close()  # free again


def test_a_resume_that_asks_for_another_config_or_no_run_is_refused(run, died):
    line = refused(run, "--resume", str(died), "--train.group-size", "8")
    assert "these fields differ (run, asked): train.group_size: 4, 8. Leave them out" in line
    line = refused(run, "--resume", str(died / "rollouts"))
    assert line.startswith(
        f"{died / 'rollouts' / 'config.yaml'} does not exist: name a config.yaml"
    )
