"""The command of a supervised stage, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recipes.sft import start
from recipes.supervised import SftConfig, read_examples, read_rows
from recipes.training_overlap import training_overlap
from rl.sft import Example
from rollouts.prompts import PromptConfig

ROOT = Path(__file__).resolve().parent.parent


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_stage_leaves_a_checkpoint_that_knows_its_data(tiny_model, tmp_path):
    rows = [
        {"prompt": f"What is {i} + 1?", "completion": f"<think>{i}</think>\\boxed{{{i + 1}}}"}
        for i in range(12)
    ]
    data = write(tmp_path / "rows.jsonl", *rows)
    words = [
        *("--data", data, "--run-folder", str(tmp_path / "run")),
        *("--policy.dtype", "float32", "--policy.no-compile", "--training.max-tokens", "256"),
        *("--training.batch-size", "2", "--training.epochs", "12"),
        *("--optimizer.learning-rate", "3e-3"),
    ]
    command = [sys.executable, "-m", "recipes.sft", str(tiny_model), *words]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environ, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "trained on 12 examples" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["sft/loss"] < lines[0]["sft/loss"] / 2
    numbers = json.loads((tmp_path / "run/numbers.json").read_text())
    assert numbers["updates"] == len(lines)
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(tmp_path / "run/final")
    # What the rows asked is what training asked; nothing of it is in a benchmark of no problems.
    assert training_overlap(tmp_path / "run", []) == {}
    with pytest.raises(ValueError, match="exists: go on with --resume"):
        start([str(tiny_model), *words])


def test_a_prompt_is_rendered_as_in_rl_and_the_end_is_learnt(tiny_model, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    data = write(
        tmp_path / "rows.jsonl",
        {"prompt": "a", "completion": "<think>b"},
        {"prompt": [{"role": "user", "content": "a"}], "completion": "<think>b"},
    )
    config = SftConfig(data=(data,), prompts=PromptConfig(prefill="<think>"))
    chat = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n<think>"
    prompt = tuple(tokenizer(chat, add_special_tokens=False)["input_ids"])
    ids = tuple(tokenizer("b", add_special_tokens=False)["input_ids"])
    wanted = Example(prompt_ids=prompt, completion_ids=(*ids, tokenizer.eos_token_id))
    assert list(read_examples(config, tokenizer)) == [wanted, wanted]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompt": "a"}\n', "line 1: a row is .* it has prompt"),
        (
            '{"prompt": "a", "completion": "b"}\n{"prompt": "", "completion": "b"}\n',
            "line 2: a row",
        ),
        ('{"prompt": "a", "completion": 8}\n', "line 1: a row is"),
        ("{}\n", "line 1: .* it has nothing"),
        ("nothing\n", "line 1: no JSON"),
        ("[1]\n", "line 1: a row is a JSON object, this is a list"),
    ],
)
def test_rows_that_cannot_be_learnt_are_named(text, message, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        list(read_rows([str(path)]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no data is named: --data rows.jsonl"),
        (["--data", "nowhere.jsonl"], "the data file nowhere.jsonl does not exist"),
        (["--data", "x", "--training.epoch", "2"], "did you mean --training.epochs?"),
        (["--config", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["--data", "x", "--training.num-processes", "2"], "num_processes is 2, but 1 run"),
    ],
)
def test_mistakes_are_one_line(words, message, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        start([*words, "--model", str(tiny_model)] if words else [str(tiny_model)])
    assert not (tmp_path / "runs").exists()
