"""R1's pipeline: its stages, its command line, and short forms of it on the tiny model and real engine."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from recipes.r1 import start
from recipes.r1_config import R1Config
from recipes.r1_presets import R1_PRESETS
from recipes.r1_stages import EMPTY_CHAIN, r1_pipeline
from recipes.sections import read_sections, write_sections
from tests.tiny_pipeline import tiny_pipeline

ROOT = Path(__file__).resolve().parent.parent


def pipeline(tmp_path, **changed):
    config = replace(R1_PRESETS["smollm2-cpu"](), model=str(tmp_path))
    return r1_pipeline(config, tmp_path / "run", **changed)


@pytest.fixture
def model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def settings(found, name):
    import yaml

    stage = next(stage for stage in found.listed if stage.name == name)
    return stage, yaml.safe_load(stage.settings)


def test_stages_meet_as_in_the_paper(model):
    found = pipeline(model)
    stages = found.stages.folder
    final = {
        name: str(stages(name) / "final") for name in ("r1_zero", "dev1", "dev2", "dev3", "r1")
    }
    for name, start_from in {
        "r1_zero": str(model),
        "cold_start": final["r1_zero"],
        "dev1": str(model),
        "dev2": final["dev1"],
        "rejection": final["dev2"],
        "dev3": str(model),  # from the base again
        "r1": final["dev3"],
        "distill_data": final["r1"],
        "distill": str(model),
    }.items():
        assert settings(found, name)[1]["model"] == start_from, name
    _, dev3 = settings(found, "dev3")
    assert dev3["data"] == [str(stages(name) / "kept.jsonl") for name in ("rejection", "general")]
    _, last = settings(found, "r1")
    assert last["train"]["temperature"] == 0.7
    assert [task["kind"] for task in last["task"]["tasks"]] == ["steps", "instructions"]
    assert last["task"]["starts"][1] > 0
    assert settings(found, "r1_zero")[1]["reward"] == "r1_zero"
    assert settings(found, "dev2")[1]["reward"] == "r1"


def test_every_model_is_asked_alike_but_for_its_template(model):
    found = pipeline(model)
    _, dev2 = settings(found, "measure_dev2")
    for name, changed in {
        "measure_r1_zero": {"template": "r1_zero"},
        "measure_dev2_cut_off": {"prefill": EMPTY_CHAIN},
        "measure_dev2_at_once": {"prefill": "<think>\n</think>\nThe answer is \\boxed{"},
        "measure_base": {"every_best_template": True},
        "measure_dev1": {},
    }.items():
        _, asked = settings(found, name)
        assert {k: v for k, v in asked.items() if v != dev2[k] and k != "models"} == changed


def test_a_seed_repeats_the_first_stages_only(model):
    found = pipeline(model, num_seeds=2)
    names = [stage.name for stage in found.listed if stage.name.endswith("_seed1")]
    made = [name for name in names if not name.startswith("measure")]
    assert made == [
        f"{name}_seed1" for name in ("r1_zero", "cold_start", "dev1", "dev2", "r1_zero_from_dev1")
    ]
    assert settings(found, "dev2_seed1")[1]["train"]["seed"] == 1
    assert settings(found, "dev1_seed1")[1]["training"]["seed"] == 1
    asked = [settings(found, f"measure_dev2{end}")[1] for end in ("", "_seed1")]
    assert asked[0] | {"models": []} == asked[1] | {"models": []}


def test_a_given_dev1_stands_in_for_the_cold_start(model):
    found = pipeline(model, dev1=model)
    assert not {"cold_start", "dev1"} & {stage.name for stage in found.listed}
    assert settings(found, "dev2")[1]["model"] == str(model)
    assert settings(found, "measure_dev1")[1]["models"] == [str(model)]


@pytest.mark.parametrize("name", R1_PRESETS)
def test_a_preset_is_a_file_and_back(name):
    config = R1_PRESETS[name]()
    assert read_sections(write_sections(config), "f.yaml", R1Config) == config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["smollm2-cp"], "unknown preset 'smollm2-cp'; did you mean 'smollm2-cpu'?"),
        (["--stages", "devv2"], "unknown stage 'devv2'; did you mean 'dev2'?"),
        (["--stages"], "--stages needs a name"),
        (["--seeds", "0"], "--seeds is '0': use 1 or more"),
        (["--from", "nowhere"], "--from nowhere holds no model"),
        (["--seed", "3"], "unknown argument '--seed'; did you mean --seeds?"),
        (["--config", "f.yaml"], "f.yaml does not exist"),
        (["smollm2-cpu", "--config", "f.yaml"], "give the preset smollm2-cpu or --config"),
        (["--model", "nowhere/at/all"], "no such folder"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        start(words)
    assert message in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dev9": {}}, "f.yaml: unknown section 'dev9'; did you mean"),
        ({"dev1": {"data": [], "epochs": 2}}, "f.yaml: dev1: unknown field 'epochs'"),
        ({"control": "yes"}, "f.yaml: control is 'yes'; bool is needed"),
        ({"dev2": None}, "f.yaml: section 'dev2' is empty"),
    ],
)
def test_mistakes_in_a_file_have_their_place(change, message):
    import yaml

    values = yaml.safe_load(write_sections(R1_PRESETS["smollm2-cpu"]())) | change
    with pytest.raises(ValueError) as caught:
        read_sections(yaml.safe_dump(values), "f.yaml", R1Config)
    assert message in str(caught.value)


def command(config, folder, *stages):
    words = ["--config", str(config), "--run-folder", str(folder)]
    return [sys.executable, "-m", "recipes.r1", *words, *(["--stages", *stages] if stages else [])]


def run(words):
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_a_killed_pipeline_goes_on_and_repeats_nothing(tiny_model, tmp_path):
    """R1-Zero, worked solutions, Dev1 and its measurement, killed while Dev1 is trained."""
    config = tiny_pipeline(tiny_model)
    file, folder = tmp_path / "tiny.yaml", tmp_path / "run"
    file.write_text(write_sections(replace(config, control=False)))
    stages = ("r1_zero", "cold_start", "dev1", "measure_dev1")
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = command(file, folder, *stages)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environ) as first:
        for line in first.stdout:
            if line.startswith("  update     3"):
                os.kill(first.pid, signal.SIGKILL)
    told = run(words)
    assert "[2/4] cold_start is done" in told
    assert "[3/4] dev1 starts" in told
    cold = json.loads((folder / "stages/cold_start/manifest.json").read_text())
    assert cold["numbers"]["kept"]["by_origin"] == {"worked": 16}
    dev1 = json.loads((folder / "stages/dev1/manifest.json").read_text())
    assert dev1["inputs"]["cold start"] == cold["outputs"]["kept.jsonl"]
    assert dev1["numbers"]["examples"] == 16
    table = json.loads((folder / "table.json").read_text())
    assert [row["name"] for row in table["rows"]] == ["Dev1"]
    assert "Dev1" in (folder / "report.md").read_text()


@pytest.mark.slow
def test_every_stage(tiny_model, tmp_path):
    """Then everything once more, which takes no time; then with another setting, which is refused."""
    config = tiny_pipeline(tiny_model)
    file, folder = tmp_path / "tiny.yaml", tmp_path / "run"
    file.write_text(write_sections(config))
    run(command(file, folder))
    told = run(command(file, folder))
    assert told.count("is done") == 23
    table = json.loads((folder / "table.json").read_text())
    names = [row["name"] for row in table["rows"]]
    assert names == [
        "base", "R1-Zero", "R1-Zero from Dev1", "Dev1", "Dev2", "Dev2, no thinking",
        "Dev2, answer only", "Dev3", "R1", "Distill",
    ]  # fmt: skip
    thinking = {row["name"]: row["thinking_tokens"] for row in table["rows"]}
    assert thinking["base"] == 0
    assert thinking["Dev1"] > 20
    assert thinking["Dev2, no thinking"] == thinking["Dev2, answer only"] == 0
    training = replace(config.dev3.training, epochs=3)
    file.write_text(write_sections(replace(config, dev3=replace(config.dev3, training=training))))
    done = subprocess.run(
        command(file, folder),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 2
    assert "training.epochs (40, now 3): choose another --run-folder" in done.stderr
