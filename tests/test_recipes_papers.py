"""Each paper's run as the paper prints it, and nothing else changed against R1-Zero's."""

from dataclasses import asdict

import pytest

from recipes.config import RunConfig
from recipes.papers import PAPERS, r1_zero
from recipes.presets import QUICKSTART_PRESETS
from recipes.sizes import SIZES

VALUES = {
    # model, problems a round, G, updates a round, limit, learning rate
    "r1_zero": ("deepseek-ai/DeepSeek-V3-Base", 512, 16, 16, 65_536, 3e-6),
    "dapo": ("Qwen/Qwen2.5-32B", 512, 16, 16, 20_480, 1e-6),
    "dr_grpo": ("Qwen/Qwen2.5-Math-7B", 128, 8, 8, 3_000, 1e-6),
    "gspo": ("Qwen/Qwen3-30B-A3B-Base", 512, 16, 4, 30_720, 3e-6),
    "cispo": ("Qwen/Qwen2.5-32B", 512, 16, 16, 20_480, 1e-6),
    "qwen2.5-32b": ("Qwen/Qwen2.5-32B", 512, 16, 16, 32_768, 2e-6),
}
RUNS = {**PAPERS, **SIZES}


def changed(left: RunConfig, right: RunConfig) -> set[str]:
    """Sections in which two runs differ, as section.field."""
    a, b = asdict(left), asdict(right)
    return {
        f"{name}.{key}" if isinstance(a[name], dict) and name != "task" else name
        for name in a
        for key in (a[name] if isinstance(a[name], dict) and name != "task" else ("",))
        if (a[name] if name == "task" or not key else a[name][key])
        != (b[name] if name == "task" or not key else b[name][key])
    }


@pytest.mark.parametrize("name", VALUES)
def test_sizes_are_the_papers(name: str):
    run = RUNS[name]()
    train = run.train
    assert VALUES[name] == (
        run.model,
        train.problems_per_round,
        train.group_size,
        train.updates_per_round,
        train.max_tokens[-1][1],
        run.optimizer.learning_rate,
    )


@pytest.mark.parametrize("name", ["dapo", "dr_grpo", "gspo", "cispo"])
def test_the_loss_is_the_algorithms(name: str):
    paper, small = PAPERS[name](), QUICKSTART_PRESETS[name]()
    assert (paper.loss, paper.packing.normalise) == (small.loss, small.packing.normalise)
    assert paper.packing.advantage_scale == small.packing.advantage_scale
    assert paper.loss.kl_coefficient == 0  # none of the four holds to a reference


def test_what_else_the_papers_print():
    dapo = PAPERS["dapo"]()
    assert (dapo.reward, dapo.optimizer.weight_decay, dapo.train.refills) == ("dapo", 0.1, 9)
    assert dapo.optimizer.warmup_updates == 20 * 16  # 20 rounds of 16 updates
    assert (dapo.test.num_samples, dapo.test.temperature, dapo.test.top_p) == (32, 1.0, 0.7)
    grpo = PAPERS["dr_grpo"]()
    assert (grpo.optimizer.betas, grpo.optimizer.weight_decay) == ((0.9, 0.95), 0.0)
    assert (grpo.test.temperature, grpo.test.max_tokens) == (0.0, 3_000)
    assert grpo.prompts.system.endswith("\\boxed{}.")
    assert PAPERS["cispo"]().optimizer.epsilon == 1e-15


def test_cispo_is_dapos_run_but_for_its_loss():
    assert changed(PAPERS["dapo"](), PAPERS["cispo"]()) == {
        "policy.float32_head", "optimizer.epsilon",
        "loss.objective", "loss.clip_high", "loss.dual_clip",
    }  # fmt: skip


def test_what_papers_leave_open_is_r1_zeros():
    base = r1_zero()
    for name in PAPERS:
        run = PAPERS[name]()
        assert run.train.temperature == base.train.temperature == 1.0
        assert run.optimizer.max_grad_norm == base.optimizer.max_grad_norm
        assert run.optimizer.betas == base.optimizer.betas
        assert (run.packing.truncated, run.train.seed) == ("score", 0)


@pytest.mark.parametrize("name", SIZES)
def test_a_size_is_r1_zeros_recipe(name: str):
    base, run = r1_zero(), SIZES[name]()
    same = ("reward", "prompts", "loss", "packing", "best_prompt")
    assert [getattr(run, field) for field in same] == [getattr(base, field) for field in same]
    assert run.train.group_size == (8 if name == "t4" else 16)


def test_the_t4s_run_is_in_float16_with_adapters():
    run = SIZES["t4"]()
    assert (run.policy.dtype, run.engine.dtype, run.policy.lora.rank) == ("float16", "float16", 16)
