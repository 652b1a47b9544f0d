"""The model card: what the hub reads of it, what people read, and what must not get into it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from recipes import card as program
from recipes.card import card, without_folders
from recipes.config import to_yaml
from recipes.finished import find_finished
from recipes.presets import quickstart

VERSIONS = {
    "python": "3.11.7",
    "packages": {"torch": "2.13.0+cpu"},
    "commit": "abc123",
    "machine": {"cpu": "A CPU"},
    "command": ["python", "-m", "recipes.quickstart", "--run-folder", "/home/me/secret"],
}


def row(value: float, low: float, high: float) -> dict[str, Any]:
    return {
        "split": "test", "num_problems": 256, "num_samples": 8, "k": None,
        "sampling": {"temperature": 1.0, "max_tokens": 24},
        "pass_at_1": value, "pass_at_1_interval": [low, high], "pass_at_k": 0.5, "maj_at_k": None,
        "truncated_frac": 0.25, "mean_tokens": 12.4, "is_single_draw": True,
    }  # fmt: skip


SUMMARY = {
    "results": {"base": row(0.048, 0.037, 0.061), "trained": row(0.634, 0.582, 0.685)},
    "difference": {
        "before": "base", "after": "trained", "mean": 0.586, "interval": [0.534, 0.638],
    },
}  # fmt: skip


def standing(subject: str, value: float) -> dict[str, Any]:
    return {
        "trial": f"{subject}/gsm8k", "label": f"{subject} (chat)", "benchmark": "gsm8k",
        "num_problems": 64, "num_samples": 4,
        "pass_at_1": value, "pass_at_1_interval": [0.1, 0.3],
        "rates": {"truncated_frac": 0.0, "mean_tokens": 99.6},
    }  # fmt: skip


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def make_run(folder: Path, config: str = "", summary: Any = SUMMARY) -> Path:
    """A finished run's folder, without rollouts."""
    write(folder / "config.yaml", config or to_yaml(quickstart()))
    write(folder / "versions.json", VERSIONS)
    write(folder / "final" / "config.json", {})
    write(folder / "final" / "model.safetensors", "weights")
    if summary:
        write(folder / "eval.json", summary)
    return folder


def make_evaluation(folder: Path, model: Path) -> Path:
    results = {
        "config": {"protocol": "greedy"},
        "models": {"model": {"name": str(model)}, "against": {"name": "/home/me/other"}},
        "standings": [standing("model", 0.2), standing("against", 0.1)],
        "comparisons": [
            {
                "benchmark": "gsm8k", "before": "against (chat)", "after": "model (chat)",
                "mean": 0.1, "interval": [-0.01, 0.2],
            }
        ],
    }  # fmt: skip
    write(folder / "results.json", results)
    return folder


def read(text: str) -> dict[str, Any]:
    """The YAML at its head, as the hub reads it."""
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_the_hub_reads_base_licence_and_results(tmp_path: Path):
    run = make_run(tmp_path / "run")
    evaluation = make_evaluation(tmp_path / "e", run)
    head = read(card(find_finished(run, evaluations=[evaluation]), "first"))
    assert head["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert (head["license"], head["library_name"]) == ("apache-2.0", "transformers")
    (model,) = head["model-index"]
    found = {r["dataset"]["name"]: r["metrics"][0] for r in model["results"]}
    assert found["arithmetic (test split)"]["value"] == 63.4
    assert found["arithmetic (test split)"]["name"] == "pass@1, 95% [58.2, 68.5]"
    assert found["gsm8k"]["value"] == 20.0  # this model's, not that of the one beside it
    assert len(model["results"]) == 2


def test_people_read_tables_recipe_versions_and_limits(tmp_path: Path):
    run = make_run(tmp_path / "run")
    evaluation = make_evaluation(tmp_path / "e", run)
    text = card(find_finished(run, evaluations=[evaluation]), "first")
    assert "| trained | 63.4% [58.2, 68.5] | 50.0% | - | 25.0% | 12 |" in text
    assert "pass@1, base to trained: +58.6 points [+53.4, +63.8], paired by problem." in text
    assert "| against (chat) | gsm8k | 64 x 4 | 10.0% [10.0, 30.0] | 0.0% | 100 |" in text
    assert "gsm8k, against (chat) to model (chat): +10.0 points [-1.0, +20.0]" in text
    assert "  learning_rate: 4.0e-05" in text
    assert "torch 2.13.0+cpu, Python 3.11.7, Groupwise commit abc123, on A CPU." in text
    assert "No assistant" in text
    assert "a single draw" in text


def test_no_folder_of_this_machine_is_told(tmp_path: Path):
    data = tmp_path / "my-data.jsonl"
    data.write_text("{}")
    config = f"model: /home/me/bases/llama\ntask: {{kind: dataset, path: {data}}}\n"
    text = card(find_finished(make_run(tmp_path / "run", config, None)), "x")
    assert "/home/me" not in text
    assert str(tmp_path) not in text
    assert "path: FOLDER/my-data.jsonl" in text
    head = read(text)
    assert "base_model" not in head and "license" not in head and "datasets" not in head
    assert "not on the Hugging Face hub" in text
    assert "look it up before sharing" in text
    assert "It was not evaluated." in text
    assert without_folders({"a": ["../x/y", "Qwen/Qwen2.5-7B", 3]}) == {
        "a": ["FOLDER/y", "Qwen/Qwen2.5-7B", 3]
    }


def test_data_of_the_hub_are_named(tmp_path: Path):
    config = "model: Qwen/Qwen2.5-0.5B\ntask: {kind: gsm8k, path: openai/gsm8k}\n"
    head = read(card(find_finished(make_run(tmp_path / "run", config)), "x"))
    assert (head["datasets"], head["base_model"]) == (["openai/gsm8k"], "Qwen/Qwen2.5-0.5B")


HOSTILE = "x\n---\nlicense: mit\n---\n# Owned <script>alert(1)</script> [a](http://b) | `c`\x1b[31m"


def test_hostile_names_do_nothing(tmp_path: Path):
    summary = json.loads(json.dumps(SUMMARY))
    summary["results"][HOSTILE] = summary["results"].pop("trained")
    summary["difference"]["after"] = HOSTILE
    config = to_yaml(quickstart())
    config += f"extra: {json.dumps('```' + chr(10) + HOSTILE)}\n"
    run = make_run(tmp_path / "run", config, summary)
    text = card(find_finished(run), HOSTILE)
    assert read(text)["license"] == "apache-2.0"
    body = text.split("---\n", 2)[2]
    assert "\x1b" not in text
    assert "<script" not in body.split("```")[0]
    assert [line for line in body.splitlines() if line.startswith("# ")][1:] == []
    fences = [line for line in body.splitlines() if line.startswith("```")]
    assert len(fences) == 2 and fences[0].removesuffix("yaml") == fences[1]
    assert len(fences[1]) == 4  # longer than the run of three inside


def test_the_base_is_found_behind_other_runs(tmp_path: Path):
    first = make_run(tmp_path / "a", "model: Qwen/Qwen2.5-7B\n")
    second = make_run(tmp_path / "b", f"model: {first / 'final'}\ntraining: {{}}\n", None)
    third = make_run(tmp_path / "c", f"model: {second}\n")
    assert find_finished(third).base == "Qwen/Qwen2.5-7B"
    assert "supervised fine-tuning" in card(find_finished(second), "b")


def make_pipeline(root: Path) -> Path:
    for name, value in (("dev1", 0.1), ("r1", 0.2), ("r1_cut_off", 0.05)):
        if name != "r1_cut_off":
            make_run(root / "stages" / name, "model: Qwen/Qwen2.5-7B\n", None)
            write(root / "stages" / name / "manifest.json", {})
        results = {
            "config": {"protocol": "r1"},
            "models": {"model": {"name": "/elsewhere/stages/r1/final"}},
            "standings": [standing("model", value)],
            "comparisons": [],
        }
        write(root / "stages" / f"measure_{name}" / "results.json", results)
    difference = {"before": "dev1", "after": "r1", "mean": 0.1, "interval": [0.05, 0.15]}
    write(root / "table.json", {"rows": [], "comparisons": [difference]})
    return root


def test_a_stage_of_a_pipeline_has_its_card_outside_of_what_manifests_hold(tmp_path: Path):
    root = make_pipeline(tmp_path / "pipe")
    found = find_finished(root)
    assert found.folder.name == "r1"
    assert found.card == root / "card-r1.md"
    text = card(found, "x")
    assert "Stage r1 of DeepSeek-R1's pipeline on this base: its own part was reinf" in text
    # Its own number is neither another stage's nor its own with the thinking cut off.
    (result,) = read(text)["model-index"][0]["results"]
    assert (result["dataset"]["name"], result["metrics"][0]["value"]) == ("gsm8k", 20.0)
    assert "| dev1 (chat) | gsm8k | 64 x 4 | 10.0% [10.0, 30.0] |" in text
    assert "| r1_cut_off (chat) | gsm8k |" in text
    assert "- dev1 to r1: +10.0 points [+5.0, +15.0], paired by problem" in text
    (other,) = read(card(find_finished(root, "dev1"), "x"))["model-index"][0]["results"]
    assert other["metrics"][0]["value"] == 10.0


def test_the_program_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = make_run(tmp_path / "run")
    assert program.main([str(run)]) == 0
    assert capsys.readouterr().out == f"wrote {run / 'final' / 'README.md'}\n"
    assert read((run / "final" / "README.md").read_text())["tags"][0] == "groupwise"


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = make_run(tmp_path / "run")
    unfinished = make_run(tmp_path / "half")
    (unfinished / "final" / "config.json").unlink()
    broken = make_run(tmp_path / "broken", summary="{")
    pipe = make_pipeline(tmp_path / "pipe")
    for words, told in (
        ([tmp_path], "is not a run folder"),
        ([unfinished], "holds no final/: run it to its end with --resume first"),
        ([run, "--stage", "r1"], "has no stages: leave --stage out"),
        ([run, "--evaluation", run], "is no finished evaluation"),
        ([broken], "eval.json is no JSON"),
        ([pipe, "--stage", "dev9"], "no finished stage 'dev9' in"),
    ):
        assert program.main([str(word) for word in words]) == 2, words
        err = capsys.readouterr().err
        assert told in err and len(err.splitlines()) == 1
