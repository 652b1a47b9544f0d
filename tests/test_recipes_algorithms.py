"""Each algorithm's values, as its paper prints them."""

import pytest

from recipes.algorithms import ALGORITHMS
from recipes.config import from_yaml, to_yaml
from recipes.preflight import check_config
from recipes.presets import QUICKSTART_PRESETS as PRESETS
from recipes.presets import quickstart
from rewards.compose import dapo_reward
from rewards.length import soft_overlong_reward
from rewards.problem import Problem, Response, Score, Verdict


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_starts_and_survives_its_yaml(name):
    run = PRESETS[name]()
    check_config(run)
    assert from_yaml(to_yaml(run), "x") == run
    assert (run.model, run.task) == (quickstart().model, quickstart().task)


VALUES = {
    # packing.advantage_scale, packing.normalise, loss.objective, clip_low, clip_high, anchor, kl
    "grpo": ("std", "sequence", "clip", 0.2, 0.2, "trainer", 0.04),
    "dr_grpo": ("none", "constant", "clip", 0.2, 0.2, "trainer", 0.0),
    "dapo": ("std", "token", "clip", 0.2, 0.28, "trainer", 0.0),
    "gspo": ("std", "sequence", "gspo", 3e-4, 4e-4, "trainer", 0.0),
    "cispo": ("std", "token", "cispo", 0.2, 4.0, "trainer", 0.0),
    "sapo": ("std", "sequence", "sapo", 0.2, 0.2, "trainer", 0.0),
    "dppo": ("std", "token", "dppo", 0.2, 0.2, "sampler", 0.0),
    "maxrl": ("maxrl", "token", "clip", 0.2, 0.28, "trainer", 0.0),
    "rloo": ("leave_one_out", "constant", "clip", 0.2, 0.2, "trainer", 0.0),
    "lite_ppo": ("batch_std", "token", "clip", 0.2, 0.2, "trainer", 0.0),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_values_are_the_papers(name):
    run = PRESETS[name]()
    loss = run.loss
    assert VALUES[name] == (
        run.packing.advantage_scale,
        run.packing.normalise,
        loss.objective,
        loss.clip_low,
        loss.clip_high,
        loss.anchor,
        loss.kl_coefficient,
    )


def test_what_else_the_papers_say():
    assert PRESETS["dapo"]().train.refills == 9
    assert PRESETS["dapo"]().loss.dual_clip == 10.0
    assert PRESETS["gspo"]().train.updates_per_round == 4
    assert PRESETS["gspo"]().loss.importance_level == "sequence"
    assert PRESETS["cispo"]().policy.float32_head
    assert PRESETS["sapo"]().loss.sapo_temperatures == (1.0, 1.05)
    dppo = PRESETS["dppo"]().loss
    assert (dppo.dppo_delta, dppo.importance_cap) == (0.15, 5.0)


def right(problem, response):
    return Score(value=1.0, verdict=Verdict.CORRECT)


@pytest.mark.parametrize(("tokens", "value"), [(80, 1.0), (90, 0.75), (100, 0.5)])
def test_dapos_reward_falls_over_the_last_fifth(tokens, value):
    # L_max 100, L_cache 20: at 90 tokens (100 - 20 - 90) / 20 = -1/2, and half of it.
    problem = Problem(id="p", prompt="", answer="", source="s")
    response = Response(text="", num_tokens=tokens, max_tokens=100)
    score = dapo_reward(right)(problem, response)
    assert score.value == value and score.verdict is Verdict.CORRECT


def test_a_cache_must_be_positive():
    with pytest.raises(ValueError, match="cache_tokens is 0"):
        soft_overlong_reward(0)
