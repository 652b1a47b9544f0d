"""Which reward a config means, what is refused before anything starts, and docs/rewards.md."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from recipes.config import RunConfig, differences, from_yaml, to_yaml
from recipes.preflight import check_config
from recipes.scoring import pooled, reward_of
from rewards.pool import RewardPool, ScoringConfig
from rewards.problem import Problem, Response
from rewards.purity import purity_of
from rewards.scorer import Inline
from rollouts.tasks.arithmetic import Arithmetic
from rollouts.tasks.programs import Programs
from tests.one_core import ONE_CORE

ROOT = Path(__file__).resolve().parent.parent
DOCS = (ROOT / "docs" / "rewards.md").read_text()
CONFIG = RunConfig(task=Arithmetic(add_max=9), scoring=ScoringConfig(workers=1, memory_gib=1.0))
PROBLEM = Problem(id="p", prompt="3 + 5?", answer="8", source="s")
RESPONSE = Response(text="we add</think><answer>8</answer>", prefill="<think>")
SMALL = (
    "--no-best-prompt --train.problems-per-round 2 --train.group-size 4 --train.max-tokens 0 8 "
    "--test.num-problems 2 --test.num-samples 2 --test.max-tokens 8 --validation.max-tokens 8 "
    "--scoring.workers 2"
)
SETTINGS = {**ONE_CORE, "HF_HUB_OFFLINE": "1"}


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        ("accuracy", 1.0, ["accuracy"]),
        ("r1_zero", 2.0, ["accuracy", "format"]),
        ("r1", 3.0, ["accuracy", "format", "language"]),
    ],
)
def test_named_rewards(name, value, parts):
    reward = reward_of(replace(CONFIG, reward=name))
    (score,) = reward.score(PROBLEM, [RESPONSE])
    assert (score.value, list(score.parts)) == (value, parts)
    with pooled(replace(CONFIG, reward=name), Inline(reward), [PROBLEM]) as pool:
        assert isinstance(pool, RewardPool)
        assert pool(PROBLEM, RESPONSE) == score


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "r1_zro",
            "reward is 'r1_zro'; did you mean 'r1_zero'? It is one of accuracy, r1_zero, dapo, r1,",
        ),
        ("absent:f", "the reward 'absent:f': absent cannot be imported (ModuleNotFoundError"),
        ("math:floor", "the reward floor takes (x); a reward is a function (problem, response)"),
        ("math:pi", "the reward 'math:pi' is 3.14159"),
    ],
)
def test_what_is_no_reward_is_refused_before_a_model_is_looked_for(name, message):
    with pytest.raises(ValueError) as caught:
        check_config(replace(CONFIG, reward=name))
    assert message in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_reward_that_does_not_work_is_refused_before_the_first_round(
    tmp_path, monkeypatch, workers
):
    (tmp_path / "broken.py").write_text("def none(problem, text): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = replace(CONFIG, reward="broken:none", scoring=replace(CONFIG.scoring, workers=workers))
    message = "raised TypeError: the reward gave NoneType None; a number or a Score is expected"
    with (
        pytest.raises(ValueError, match=message) as caught,
        pooled(config, Inline(reward_of(config)), [PROBLEM]),
    ):
        raise AssertionError("it was let through")
    assert "on problem p, tried with the text of its own answer '8'" in str(caught.value)
    sys.modules.pop("broken", None)


def test_without_workers_the_trainer_scores_itself():
    inline = Inline(reward_of(CONFIG))
    with pooled(replace(CONFIG, scoring=ScoringConfig(workers=0)), inline, [PROBLEM]) as score:
        assert score is inline


@pytest.mark.parametrize("name", ["accuracy", "r1_zero", "r1"])
def test_an_answer_given_again_is_not_scored_again(name):
    purity = purity_of(reward_of(replace(CONFIG, reward=name)).reward)
    assert purity is not None and {"answer", "text", "prefill"} <= set(purity.reads)


def test_a_program_given_again_is_run_again(tmp_path):
    task = Programs(path=str(tmp_path / "rows.jsonl"))
    assert purity_of(reward_of(replace(CONFIG, task=task)).reward) is None


def test_scoring_is_part_of_a_config():
    assert from_yaml(to_yaml(CONFIG), "f") == CONFIG
    more = replace(CONFIG, scoring=replace(CONFIG.scoring, workers=7))
    assert differences(CONFIG, more) == []  # no score depends on it
    longer = replace(CONFIG, scoring=replace(CONFIG.scoring, deadline_s=99.0))
    assert differences(CONFIG, longer) == ["scoring.deadline_s: 30.0, 99.0"]


def block(language: str) -> str:
    """The first block of the page in a language."""
    return re.search(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)[1]


def run_in(folder: Path, words: list[str], **options) -> subprocess.Popen:
    variables = os.environ | SETTINGS | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.slow
def test_the_page_goes_from_nothing_to_training_in_under_twenty_lines(tiny_model, tmp_path):
    code, commands = block("python"), block("sh").splitlines()
    assert len(code.splitlines()) + len(commands) < 20
    (tmp_path / "brevity.py").write_text(code)
    train, again = (shlex.split(command)[1:] for command in commands)
    small = ["--model", str(tiny_model), "--train.num-rounds", "1", *SMALL.split()]
    started = run_in(tmp_path, [*train, *small])
    printed, errors = started.communicate(timeout=300)
    assert started.returncode == 0, errors[-3000:]
    assert "round    1/1" in printed
    tried = run_in(tmp_path, again)
    printed, errors = tried.communicate(timeout=60)
    assert tried.returncode == 0, errors[-3000:]
    assert "recorded  8 values, 0 of them differ" in printed


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    found = psutil.Process(process.pid).children(recursive=True)
    return [child for child in found if "from rewards.worker" in " ".join(child.cmdline())]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_no_scoring_process_outlives_a_run(tiny_model, tmp_path, number):
    words = ["-m", "recipes.quickstart", "--run-folder", "run", "--model", str(tiny_model)]
    started = run_in(tmp_path, [*words, "--train.num-rounds", "1000", *SMALL.split()])
    while not (line := started.stdout.readline()).startswith("round    1"):
        assert line, started.stderr.read()[-3000:]
    workers = workers_of(started)
    assert len(workers) == 2
    started.send_signal(number)
    printed, errors = started.communicate(timeout=120)
    if number == signal.SIGTERM:
        assert started.returncode == 0, errors[-3000:]
        assert "stopped after round" in printed
    began = time.monotonic()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE] == []
    assert time.monotonic() - began < 10
