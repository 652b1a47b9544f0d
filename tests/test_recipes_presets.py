"""Every preset fits the hardware that it states, says what it is, and is in docs/presets.md."""

from pathlib import Path

import pytest

from recipes.demand import longest_sequence
from recipes.plan import Plan, planned
from recipes.preset_table import page
from recipes.presets import (
    FACTS,
    PRESETS,
    QUICKSTART_PRESETS,
    R1_ZERO_PRESETS,
    RECIPES,
    facts_of,
)
from rl.memory import peak
from rollouts.model_config import read_model_config
from rollouts.placement import Ray

ROOT = Path(__file__).resolve().parent.parent


def plan(name: str) -> Plan:
    """On a CPU with the memory that the facts name, whatever this machine has free."""
    return planned([name, *(["--device", "8GiB"] if FACTS[name].device == "cpu" else [])])


SHARED = ("--engine.tensor-parallel", "2")


def test_every_run_of_its_own_has_facts():
    assert set(FACTS) == set(R1_ZERO_PRESETS)


@pytest.mark.parametrize("name", FACTS)
def test_the_planner_accepts_a_preset_on_its_hardware_or_says_what_is_missing(name: str):
    facts, found = FACTS[name], plan(name)
    if not facts.missing:
        assert (found.verdict, found.line) == ("fits", "")
        return
    assert name == "r1_zero"  # the only one
    assert found.verdict == "too large"
    assert "the engine needs 1,250 GiB of weights on each GPU" in found.line
    assert "spans several" in facts.missing
    gathered = found.memory["update"]["gathered"] / 2**30
    assert f"a whole layer, {gathered:.0f} GiB with" in facts.missing


@pytest.mark.parametrize("name", FACTS)
def test_a_sequence_fits_the_model_and_a_micro_batch(name: str):
    config = PRESETS[name]()
    longest = longest_sequence(config, config.prompts.max_prompt_tokens)
    assert longest <= read_model_config(config.model)["max_position_embeddings"]
    if FACTS[name].device != "cpu":
        limit = config.train.max_tokens[-1][1]
        assert config.prompts.max_prompt_tokens + limit <= config.policy.micro_batch_tokens
        # Evaluations on the way are cut off no earlier than training.
        assert config.validation.max_tokens == config.test.max_tokens >= min(limit, 32_768)


def test_gpus_that_share_an_engine_each_hold_a_part_of_it():
    """7,615,616,512 weights of 2 bytes in two parts, and what vLLM needs beside them."""
    alone, found = (planned(["qwen2.5-7b", *more]) for more in ((), SHARED))
    assert alone.memory["publish"]["engine weights"] == 2 * 7_615_616_512 + 1_500_000_000
    assert found.memory["publish"]["engine weights"] == 7_615_616_512 + 1_500_000_000
    assert found.memory["gate"] == alone.memory["gate"]
    assert (found.demand.requests, alone.demand.requests) == (512, 256)  # 128 x 16, by 4 and by 8
    with pytest.raises(
        ValueError, match=r"engine\.tensor_parallel 3 does not divide 8, the number"
    ):
        planned(["qwen2.5-7b", "--engine.tensor-parallel", "3"])
    with pytest.raises(ValueError, match=r"num_attention_heads is 28, which engine\.tensor_par"):
        planned(["qwen2.5-7b", "--engine.tensor-parallel", "8"])


def test_eight_gpus_share_states_but_each_has_an_engine():
    found = planned(["qwen2.5-7b"])
    assert found.device.count == 8
    update, count = found.memory["update"], 7_615_616_512
    assert (update["masters"], update["moments"]) == (4 * count // 8, 8 * count // 8)
    assert update["reference"] == 2 * count // 8
    assert found.memory["publish"]["engine weights"] > 2 * count
    # A shard in float32, embedding and head and two layers whole; three of embedding, head, layer.
    roots, layer = 2 * 152_064 * 3_584, 233_057_792
    copies = 4 * (count // 8 + roots + 2 * layer) + 12 * (roots + layer)
    logits = 2 * 2 * 4 * 64 * 152_064 * 4
    assert found.memory["gate"]["float32 copies"] == copies + logits
    assert found.work.groups == 128 // 8


def test_by_hand_what_is_gathered_of_a_sharded_model():
    found = planned(["qwen2.5-7b"])
    # Embedding and head 2 x 152,064 x 3,584, a layer 233,057,792 (norms, biases, matrices): in
    # bfloat16 these and the next layer, and gradients of these in float32.
    roots, layer = 2 * 152_064 * 3_584, 233_057_792
    assert found.memory["update"]["gathered"] == 2 * (roots + 2 * layer) + 4 * (roots + layer)


def test_of_eight_gpus_four_train_and_four_sample_ahead():
    config, found, beside = (
        PRESETS["qwen2.5-7b-ray"](),
        planned(["qwen2.5-7b-ray"]),
        plan("qwen2.5-7b"),
    )
    assert (config.rollouts, config.train.max_staleness) == (Ray(num_workers=4), 1)
    assert config.loss.anchor == "sampler"  # so that the ratio knows what drew a token
    assert (found.device.count, found.trainers, beside.trainers) == (8, 4, 8)
    update, count = found.memory["update"], 7_615_616_512
    assert update["moments"] == 8 * count // 4
    assert not {"engine", "engine asleep", "engine weights"} & {
        n for p in found.memory.values() for n in p
    }
    assert found.round_s < beside.round_s  # by the planner's arithmetic
    assert "torchrun --nproc-per-node 4" in FACTS["qwen2.5-7b-ray"].hardware


def test_more_gpus_take_less_of_each_and_less_time():
    few, many = (planned(["qwen2.5-7b", "--device", name]) for name in ("8xh100", "2x8xh100"))
    assert peak(many.memory)[1] < peak(few.memory)[1]
    assert many.hours < 0.9 * few.hours  # steps of decoding take their time on any number
    alone = planned(["qwen2.5-7b", "--device", "h100"])
    assert alone.verdict == "too large"


def test_a_name_means_the_papers_run_where_there_is_one():
    assert PRESETS["dapo"] is R1_ZERO_PRESETS["dapo"]
    assert PRESETS["sapo"] is QUICKSTART_PRESETS["sapo"]
    assert facts_of(RECIPES["r1_zero"], "dapo").about.startswith("DAPO (arXiv")
    assert facts_of(RECIPES["quickstart"], "dapo") is None
    assert facts_of(RECIPES["quickstart"], "quickstart") is FACTS["quickstart"]


def test_the_page_is_what_the_presets_say():
    assert (ROOT / "docs" / "presets.md").read_text() == page(), (
        "docs/presets.md is old: python -m recipes.preset_table > docs/presets.md"
    )
