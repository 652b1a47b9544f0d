"""Pipelines by size: the paper's numbers, what each stage differs in, and the hardware they state."""

import json
from dataclasses import replace

import pytest

from recipes import papers, sizes
from recipes.plan import planned
from recipes.preflight import check_config
from recipes.preset_table import page
from recipes.r1 import start
from recipes.r1_config import R1Config
from recipes.r1_facts import R1_FACTS
from recipes.r1_presets import R1_PRESETS
from recipes.r1_sizes import R1_SIZES
from recipes.sections import read_sections, write_sections
from rewards.problem import Problem
from rollouts.tasks.dataset import Dataset

PROBLEM = Problem(id="p", prompt="?", answer="1", source="s")


@pytest.fixture(params=R1_SIZES)
def config(request: pytest.FixtureRequest) -> R1Config:
    return R1_SIZES[request.param]()


def test_every_pipeline_has_facts_and_a_place_in_the_page():
    assert set(R1_FACTS) == set(R1_PRESETS)
    assert all(f"## Pipeline {name}\n" in page() for name in R1_PRESETS)


def test_a_pipeline_reads_back_as_itself(config: R1Config):
    assert read_sections(write_sections(config), "r1.yaml", R1Config) == config


def test_every_rl_stage_may_start(config: R1Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Dataset, "problems", lambda *_: [PROBLEM])  # these are on the hub
    for run in (config.r1_zero, config.dev2, config.r1):
        check_config(run)
        assert run.policy.micro_batch_tokens >= (
            run.prompts.max_prompt_tokens + run.train.max_tokens[-1][1]
        )


def test_the_papers_numbers():
    paper = R1_SIZES["paper"]()
    assert paper.model == "deepseek-ai/DeepSeek-V3-Base"
    assert replace(paper.r1_zero, task=papers.r1_zero().task) == replace(
        papers.r1_zero(), measured=False, best_prompt=False
    )
    sft = paper.dev1
    assert (sft.optimizer.learning_rate, sft.optimizer.schedule) == (5e-5, "cosine")
    assert sft.optimizer.final_learning_rate_frac == 0.1
    assert (sft.training.epochs, sft.training.batch_size, sft.training.max_tokens) == (
        2,
        128,
        32_768,
    )
    assert paper.dev3 == sft
    assert paper.distill.training.batch_size == 64
    assert (paper.dev2.optimizer.learning_rate, paper.dev2.loss.kl_coefficient) == (3e-6, 0.001)
    assert (paper.dev2.loss.clip_high, paper.dev2.reward) == (10.0, "r1")
    assert paper.dev2.train.max_tokens == ((0, 32_768),)
    assert paper.cold_start.sampling.temperature == 1.0
    last = paper.r1.train
    assert last.temperature == 0.7
    # 106 rounds of 16 updates are 1,696 of the paper's 1,700; general prompts from 81 x 16 on: 400.
    assert last.num_rounds * last.updates_per_round == 1_696
    assert paper.r1.task.starts == (0, 1_296)


def test_the_stages_forms(config: R1Config):
    assert (config.r1_zero.prompts.template, config.r1_zero.reward) == ("r1_zero", "r1_zero")
    assert config.cold_start.prompts == config.r1_zero.prompts
    assert (config.cold_start.filters.format, config.cold_start.form) == ("r1_zero", "r1")
    for run in (config.dev2, config.r1):
        assert (run.prompts.template, run.prompts.prefill, run.reward) == ("chat", "", "r1")
    assert config.dev1.prompts == config.dev2.prompts == config.rejection.prompts
    assert config.dev2.task.instruction == papers.BOXED  # R1's answer is in a box
    assert config.r1_zero.task.instruction == ""
    rate = config.r1.train
    share = 1 - config.r1.task.starts[1] / (rate.num_rounds * rate.updates_per_round)
    assert share == pytest.approx(400 / 1_700, abs=0.015)


@pytest.mark.parametrize("name", ["qwen2.5-32b", "qwen2.5-7b", "qwen2.5-1.5b", "qwen2.5-0.5b"])
def test_a_size_starts_as_r1_zero_of_that_size(name: str):
    zero = R1_SIZES[name]().r1_zero
    assert zero == replace(sizes.SIZES[name](), measured=False, best_prompt=False)


@pytest.mark.parametrize("name", R1_FACTS)
def test_the_planner_accepts_a_pipeline_or_says_what_is_missing(name: str):
    facts = R1_FACTS[name]
    memory = ["--device", "12GiB"] if facts.device == "cpu" else []
    plan = planned(["--recipe", "r1", name, *memory])
    if not facts.missing:
        assert (plan.verdict, plan.line) == ("fits", "")
        assert plan.hours > plan.other_hours > 0
        return
    assert name in ("paper", "qwen2.5-32b")
    assert plan.verdict == "too large"
    assert "engine.tensor_parallel" in plan.line or "starts the processes of one" in plan.line
    assert "recipes.r1 starts the processes of one" in facts.missing


def test_a_plan_of_a_pipeline_takes_a_preset_and_a_device(capsys: pytest.CaptureFixture[str]):
    from recipes import doctor

    assert (
        doctor.main(["--plan", "--recipe", "r1", "qwen2.5-0.5b", "--device", "l4", "--json"]) == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told["stage"] in ("r1_zero", "dev2", "r1")
    assert doctor.main(["--plan", "--recipe", "r1", "qwen2.5-0.5b", "--model", "x"]) == 2
    assert "of a pipeline a preset can be planned" in capsys.readouterr().err


def test_help_tells_of_the_preset(capsys: pytest.CaptureFixture[str]):
    start(["qwen2.5-7b", "--help"])
    told = capsys.readouterr().out
    assert "Presets: paper, qwen2.5-32b, qwen2.5-7b" in told
    assert "hardware: 8 GPUs with 80 GB" in told
    assert "hours: python -m recipes.doctor --plan --recipe r1" in told
