"""R1-Distill: its stages, its mistakes, and on the tiny model the whole of it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from transformers import PreTrainedTokenizerFast

from recipes.distill import start
from recipes.distill_config import DistillConfig, check_student, distill_pipeline
from recipes.distill_presets import DISTILL_PRESETS, STUDENTS
from recipes.sections import read_sections, write_sections
from tests.tiny_pipeline import tiny_pipeline

ROOT = Path(__file__).resolve().parent.parent


def tiny_distillation(model):
    parts = tiny_pipeline(model)
    preset = DISTILL_PRESETS["smollm2-cpu"]()
    data = replace(parts.distill_data, num_samples=0, num_rows=16, fill_up=True)
    rl = replace(parts.dev2, train=replace(parts.dev2.train, num_rounds=500))
    return replace(
        preset,
        teacher=str(model),
        student=str(model),
        data=data,
        distill=parts.distill,
        rl=rl,
        measure=parts.measure,
    )


def test_rl_takes_as_long_as_sampling_and_fine_tuning(tiny_model, tmp_path):
    found = distill_pipeline(tiny_distillation(tiny_model), tmp_path)
    rl = next(stage for stage in found.listed if stage.name == "rl")
    with pytest.raises(ValueError, match="takes as long as stage data, which is not done"):
        _ = rl.settings
    for name, seconds in (("data", 70.2), ("distill", 30.0)):
        found.stages.folder(name).mkdir(parents=True)
        manifest = found.stages.folder(name) / "manifest.json"
        manifest.write_text(json.dumps({"seconds": seconds}))
    settings = yaml.safe_load(rl.settings)
    assert settings["end_after"] == "101s"  # 70.2 + 30.0, rounded up
    assert settings["model"] == str(tiny_model)


def test_a_server_as_teacher_is_not_measured(tiny_model, tmp_path):
    config = tiny_distillation(tiny_model)
    endpoint = replace(config.data.endpoint, url="http://127.0.0.1:9/v1", model="big")
    config = replace(config, teacher="", data=replace(config.data, endpoint=endpoint), rl=None)
    found = distill_pipeline(config, tmp_path)
    assert [s.name for s in found.listed] == [
        "data",
        "distill",
        "measure_student",
        "measure_distill",
    ]
    assert found.listed[0].inputs == {}


def test_stages_are_listed_without_a_teacher(capsys):
    start(["--list"])
    found = capsys.readouterr().out.split()
    assert found[:2] == ["data", "distill"] and found[-1] == "measure_rl"


def test_presets_have_the_papers_students():
    for name, (base, rate) in STUDENTS.items():
        config = DISTILL_PRESETS[name]()
        assert (config.student, config.distill.optimizer.learning_rate) == (base, rate)
        assert config.rl is None
        assert read_sections(write_sections(config), "f.yaml", DistillConfig) == config


def test_a_student_must_give_the_form_back(tiny_model, tmp_path):
    check_student(str(tiny_model))
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    lower = Tokenizer(models.BPE())
    lower.normalizer = normalizers.Replace("<think>", "")
    lower.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    lower.decoder = decoders.ByteLevel()
    lower.add_tokens(sorted(pre_tokenizers.ByteLevel.alphabet()))
    PreTrainedTokenizerFast(tokenizer_object=lower).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
    (tmp_path / "model.safetensors").symlink_to(tiny_model / "model.safetensors")
    with pytest.raises(ValueError, match="cannot be taught R1's form: its tokenizer makes"):
        check_student(str(tmp_path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no teacher is named: give --teacher"),
        (["qwen-1b"], "unknown preset 'qwen-1b'; did you mean 'qwen-14b'?"),
        (["--teacher", "nowhere/at/all"], "no such folder"),
        (["--teachers", "x"], "unknown argument '--teachers'; did you mean --teacher?"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        start(words)
    assert message in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_both_ways_in_the_same_time(tiny_model, tmp_path):
    file, folder = tmp_path / "tiny.yaml", tmp_path / "run"
    file.write_text(write_sections(tiny_distillation(tiny_model)))
    done = subprocess.run(
        [sys.executable, "-m", "recipes.distill", "--config", file, "--run-folder", folder],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    manifests = {
        name: json.loads((folder / f"stages/{name}/manifest.json").read_text())
        for name in ("data", "distill", "rl")
    }
    budget = manifests["data"]["seconds"] + manifests["distill"]["seconds"]
    rl = manifests["rl"]["numbers"]
    assert 1 <= rl["rounds"] < 500
    assert rl["round_s"] >= budget
    rows = [row["name"] for row in json.loads((folder / "table.json").read_text())["rows"]]
    assert rows == ["teacher", "student", "distilled", "RL, same time"]
