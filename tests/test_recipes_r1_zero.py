"""The recipe with the paper's template, a few rounds for real; what it leaves behind loads elsewhere."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recipes.papers import r1_zero
from recipes.presets import PRESETS
from tests.one_core import ONE_CORE

ROOT = Path(__file__).resolve().parent.parent
TENSORBOARD = importlib.util.find_spec("tensorboard") is not None


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory):
    """Two rounds of R1-Zero with two updates each, a reference, a growing token limit."""
    folder = tmp_path_factory.mktemp("runs") / "r1_zero"
    words = [sys.executable, "-m", "recipes.r1_zero", "r1_zero_tiny", "--run-folder", str(folder)]
    words += ["--model", str(tiny_model), "--train.num-rounds", "2", "--policy.dtype", "float32"]
    words += ["--engine.dtype", "float32", "--train.max-tokens", "0", "16", "2", "24"]
    words += ["--policy.micro-batch-tokens", "2048", "--train.problems-per-round", "4"]
    words += [
        "--test.num-problems",
        "4",
        "--test.max-tokens",
        "16",
        "--validation.max-tokens",
        "16",
    ]
    words += ["--train.evaluate-every", "1", "--train.final", "best"]
    words += ["--validation.num-problems", "4", "--validation.num-samples", "2"]
    words += ["--track.to", "tensorboard"] if TENSORBOARD else []
    settings = {**ONE_CORE, "COLUMNS": "100"}
    done = subprocess.run(
        words, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


def test_it_says_what_it_does_from_the_first_line_to_the_table(finished):
    _, printed = finished
    lines = printed.splitlines()
    assert lines[0] == "Groupwise: R1-Zero, GRPO from a base model with rule-based rewards"
    assert any(line.startswith("gate: |logprob - float32| over ") for line in lines)
    assert [line[:10] for line in lines if line.startswith("round ")] == [
        "round    1",
        "round    2",
    ]
    assert "Before and after" in printed


def test_rounds_use_the_papers_template_and_the_growing_limit(finished):
    from rollouts.records import read_groups

    folder, _ = finished
    rounds = [read_groups(path) for path in sorted((folder / "rollouts").glob("round-*"))]
    limits = [{r.response.max_tokens for g in groups for r in g.rollouts} for groups in rounds]
    assert limits == [{16}, {24}]  # two updates a round; the limit grows at update 2
    versions = [{r.versions[0][0] for g in groups for r in g.rollouts} for groups in rounds]
    assert versions == [{0}, {2}]
    scores = [r.score for groups in rounds for g in groups for r in g.rollouts]
    assert all(set(score.parts) == {"accuracy", "format"} for score in scores)


def test_the_final_folder_loads_in_transformers_and_in_vllm(finished, make_engine):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rollouts.rollout import Request, Sampling

    folder, _ = finished
    model = AutoModelForCausalLM.from_pretrained(folder / "final")
    tokenizer = AutoTokenizer.from_pretrained(folder / "final")
    ids = tokenizer("What is 3 + 5?")["input_ids"]
    drawn = model.generate(
        input_ids=__import__("torch").tensor([ids]), max_new_tokens=8, do_sample=False
    )[0, len(ids) :].tolist()
    engine = make_engine(folder / "final")
    engine.publish(model.state_dict().items(), 0)
    request = Request(
        id="a", token_ids=tuple(ids), sampling=Sampling(temperature=0.0, max_tokens=8), seed=0
    )
    assert list(next(iter(engine.sample([request]))).token_ids) == drawn


@pytest.mark.skipif(not TENSORBOARD, reason="needs tensorboard")
def test_tensorboard_was_told_what_metrics_jsonl_holds(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _ = finished
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(folder / "track" / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {name for row in rows for name in row}
    for name in events.Tags()["scalars"]:
        told = [(event.step, event.value) for event in events.Scalars(name)]
        held = [(row["round"], pytest.approx(row[name], rel=1e-6)) for row in rows if name in row]
        assert told == held, name


def test_the_result_is_the_earliest_of_the_best_rounds(finished):
    from safetensors.torch import load_file

    folder, printed = finished
    scores = [
        json.loads((folder / "eval" / f"round-00000{i}.json").read_text())["pass_at_1"]
        for i in (1, 2)
    ]
    best = 1 + scores.index(max(scores))
    assert f"the result is round-00000{best}, the best on the validation split" in printed
    masters = load_file(folder / "checkpoints" / f"round-00000{best}" / "master.safetensors")
    final = load_file(folder / "final" / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert final[name].equal(masters[name])


def test_eval_json_holds_both_rows_and_their_difference(finished):
    folder, _ = finished
    values = json.loads((folder / "eval.json").read_text())
    assert list(values["results"]) == ["base", "trained"]
    assert values["difference"] is not None


def test_the_preset_holds_the_papers_values():
    config = r1_zero()
    train, loss = config.train, config.loss
    assert (train.problems_per_round, train.group_size, train.updates_per_round) == (512, 16, 16)
    assert (config.optimizer.learning_rate, loss.kl_coefficient) == (3e-6, 0.001)
    assert (loss.reference_every, train.temperature) == (400, 1.0)
    assert train.max_tokens == ((0, 32_768), (8_200, 65_536))
    assert train.num_rounds * train.updates_per_round == 10_400
    assert (loss.clip_low, loss.clip_high, config.reward) == (10.0, 10.0, "r1_zero")
    assert config.prompts.template == "r1_zero"


def test_every_preset_builds():
    assert {name for name, preset in PRESETS.items() if preset()} == set(PRESETS)
