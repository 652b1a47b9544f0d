"""R1-Zero and the papers after it, each the paper's own run: `python -m recipes.r1_zero NAME`.

All start from `r1_zero` and replace what their paper prints; what it leaves open stays R1-Zero's.
The loss is that of `recipes/algorithms.py`. Facts stand beside each: where a number is ours, they
say so.
"""

from dataclasses import replace

from eval.evaluate import EvalConfig
from recipes import algorithms
from recipes.config import RunConfig
from recipes.preset_facts import PresetFacts
from rl.objective import LossConfig
from rl.optimizer import OptimizerConfig
from rl.packing import PackingConfig
from rl.policy import PolicyConfig
from rl.trainer import TrainConfig
from rollouts.prompts import PromptConfig
from rollouts.sampler import EngineConfig
from rollouts.tasks.countdown import Countdown
from rollouts.tasks.dataset import Competition, Dataset

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
"""The system message that Qwen2.5-Math was tuned with."""
TOO_LARGE = "an engine that spans several machines: it spans the GPUs of one here"

WHOLE_LAYERS = (
    "experts spread over GPUs: FSDP gathers a whole layer, 96 GiB with the next and the gradients"
)


def dapo_math(*, wrapped: bool) -> Dataset:
    """DAPO-Math-17k without its repetitions, integer answers.

    Args:
        wrapped: With the words around the question that DAPO asks with; else English ones alone.
    """
    return Dataset(
        path="open-r1/DAPO-Math-17k-Processed",
        subset="all" if wrapped else "en",
        prompt_column="source_prompt" if wrapped else "prompt",
        answer_column="solution",
        name="dapo-math",
    )


def limited(run: RunConfig, *limits: tuple[int, int]) -> RunConfig:
    """The run with these limits on sampled tokens; evaluations have the last one."""
    last = limits[-1][1]
    return replace(
        run,
        train=replace(run.train, max_tokens=limits),
        test=replace(run.test, max_tokens=last),
        validation=replace(run.validation, max_tokens=last),
    )


def r1_zero() -> RunConfig:
    """R1-Zero as the paper has it: RL straight from a base model (DeepSeek-R1, Nature, Methods).

    The paper leaves out optimizer, weight decay, warm-up, gradient clipping and R1-Zero's clip
    bound. AdamW with betas 0.9 and 0.95, no weight decay, clipping at 1.0 and no warm-up are
    ours; the clip of 10 is R1's first RL stage's. One round is 512 problems x 16, in 16 updates.
    """
    return RunConfig(
        model="deepseek-ai/DeepSeek-V3-Base",
        task=Countdown(num_problems=100_000),
        reward="r1_zero",
        prompts=PromptConfig(template="r1_zero"),
        train=TrainConfig(
            num_rounds=650,
            problems_per_round=512,
            group_size=16,
            updates_per_round=16,
            temperature=1.0,
            max_tokens=((0, 32_768), (8_200, 65_536)),
            evaluate_every=10,
            save_every=1,
        ),
        optimizer=OptimizerConfig(learning_rate=3e-6, betas=(0.9, 0.95)),
        packing=PackingConfig(normalise="sequence", truncated="score"),
        loss=LossConfig(
            anchor="sampler",
            clip_low=10.0,
            clip_high=10.0,
            kl_coefficient=0.001,
            reference_every=400,
        ),
        policy=PolicyConfig(micro_batch_tokens=66_560, gradient_checkpointing=True, fsdp=True),
        engine=EngineConfig(max_concurrent=512, compile=True),
        test=EvalConfig(
            split="test",
            num_problems=256,
            num_samples=16,
            temperature=0.6,
            top_p=0.95,
            max_tokens=32_768,
        ),
        validation=EvalConfig(num_problems=64, num_samples=4, max_tokens=32_768),
    )


def dapo() -> RunConfig:
    """DAPO's run (arXiv 2503.14476, section 4.1): Qwen2.5-32B on DAPO-Math-17k, 20,480 tokens."""
    base = r1_zero()
    run = replace(
        base,
        model="Qwen/Qwen2.5-32B",
        task=dapo_math(wrapped=True),
        prompts=PromptConfig(template="chat", max_prompt_tokens=2048),
        train=replace(base.train, num_rounds=325),
        optimizer=replace(base.optimizer, learning_rate=1e-6, weight_decay=0.1, warmup_updates=320),
        policy=replace(base.policy, micro_batch_tokens=22_528),
        engine=replace(base.engine, max_concurrent=128, gpu_memory_frac=0.75),
        test=replace(base.test, num_samples=32, temperature=1.0, top_p=0.7),
    )
    return algorithms.dapo(limited(run, (0, 20_480)))


def dr_grpo() -> RunConfig:
    """Oat-Zero 7B (Dr. GRPO, arXiv 2503.20783): Qwen2.5-Math-7B on MATH, 3,000 tokens."""
    base = r1_zero()
    run = replace(
        base,
        model="Qwen/Qwen2.5-Math-7B",
        task=Competition(),
        reward="accuracy",
        prompts=PromptConfig(template="chat", system=BOXED),
        train=replace(
            base.train,
            num_rounds=400,
            problems_per_round=128,
            group_size=8,
            updates_per_round=8,
        ),
        optimizer=replace(base.optimizer, learning_rate=1e-6),
        policy=replace(base.policy, micro_batch_tokens=16_384),
        engine=replace(base.engine, max_concurrent=256, gpu_memory_frac=0.5),
        test=replace(base.test, num_problems=500, num_samples=1, temperature=0.0, top_p=1.0),
    )
    return algorithms.dr_grpo(limited(run, (0, 3_000)))


def gspo() -> RunConfig:
    """GSPO's run (arXiv 2507.18071, section 5.1): Qwen3-30B-A3B-Base, four updates a round."""
    base = r1_zero()
    run = replace(
        base,
        model="Qwen/Qwen3-30B-A3B-Base",
        task=dapo_math(wrapped=True),
        reward="accuracy",
        prompts=PromptConfig(template="chat", max_prompt_tokens=2048),
        policy=replace(base.policy, micro_batch_tokens=32_768),
        engine=replace(base.engine, max_concurrent=128, gpu_memory_frac=0.75),
        test=replace(base.test, num_samples=32),
    )
    return algorithms.gspo(limited(run, (0, 30_720)))


def cispo() -> RunConfig:
    """CISPO beside DAPO (MiniMax-M1, arXiv 2506.13585, section 3.1): DAPO's run, CISPO's loss."""
    return algorithms.cispo(dapo())


PAPERS = {"r1_zero": r1_zero, "dapo": dapo, "dr_grpo": dr_grpo, "gspo": gspo, "cispo": cispo}

_DAPO_DATA = "DAPO-Math-17k in open-r1's form without repetitions; a fifth is held out by a hash"

PAPER_FACTS = {
    "r1_zero": PresetFacts(
        about="R1-Zero (DeepSeek-R1, Nature 645, 633-638, Methods): GRPO on DeepSeek-V3-Base",
        device="64x8xh800",
        hardware="64 nodes of 8 H800 with 80 GB, as the paper",
        data="the paper's 80,000 questions (mathematics, code, science, logic) are not public; "
        "generated Countdown problems stand in",
        licence="DeepSeek-V3-Base: DeepSeek's model licence; Countdown: generated",
        hours="about 198 (paper: 101,000 GPU hours)",
        mean_tokens=8_000,
        prompt_tokens=300,
        expected="AIME 2024 pass@1 15.6 to 77.9, MATH-500 95.9, GPQA Diamond 75.8 (paper, arXiv "
        "v2; v1 has 71.0 and 73.3), on the paper's data and not on Countdown",
        ours="optimizer, clipping of gradients, no warm-up, clip 10 (R1's first RL stage's), mean "
        "by completion, what happens to cut-off completions, data",
        missing=f"{TOO_LARGE}; {WHOLE_LAYERS}",
    ),
    "dapo": PresetFacts(
        about="DAPO (arXiv 2503.14476): Qwen2.5-32B on DAPO-Math-17k",
        device="4x8xb200",
        hardware="4 nodes of 8 B200 with 192 GB, and 2 TB of memory on each; on the paper's 128 H20 "
        "with 96 GB it is tight, by the planner, and takes 396 hours",
        data=_DAPO_DATA,
        licence="Qwen2.5-32B and DAPO-Math-17k: Apache-2.0",
        mean_tokens=5_000,
        prompt_tokens=600,
        expected="AIME 2024 avg@32 50 (paper); 52 in verl's rerun, 50 without dynamic sampling",
        ours="325 rounds (half of R1-Zero-Qwen-32B's more than 10,000 updates), betas 0.9 and 0.95",
    ),
    "dr_grpo": PresetFacts(
        about="Oat-Zero 7B (Dr. GRPO, arXiv 2503.20783): Qwen2.5-Math-7B on MATH",
        device="8xa100-80",
        hardware="8 A100 with 80 GB, as the paper, and 512 GB of memory",
        data="MATH's 7,500 training problems of all levels; the paper has 8,523 of levels 3 to 5",
        licence="Qwen2.5-Math-7B: Apache-2.0; MATH: MIT, disputed by AoPS since January 2025",
        hours="27 (paper)",
        mean_tokens=800,
        prompt_tokens=400,
        expected="greedy, 3,000 tokens: AIME 2024 43.3, AMC 62.7, MATH-500 80.0, Minerva 30.1, "
        "OlympiadBench 41.0 (paper); the base has 38.2 on average without a template, 26.5 with",
        ours="400 rounds, the data's levels",
    ),
    "gspo": PresetFacts(
        about="GSPO (arXiv 2507.18071): Qwen3-30B-A3B-Base, a mixture of experts",
        device="4x8xb200",
        hardware="4 nodes of 8 B200 with 192 GB (the paper prints none), and 2 TB of memory on each",
        data=f"the paper's mathematics and code are not public; {_DAPO_DATA}",
        licence="Qwen3-30B-A3B-Base and DAPO-Math-17k: Apache-2.0",
        mean_tokens=6_000,
        prompt_tokens=600,
        expected="curves only in the paper: steadier and better than GRPO with routing replay",
        ours="all but model, four updates a round and clip 3e-4 / 4e-4: the paper starts from a "
        "cold-started model that is not public, and prints no sizes, lengths or learning rate",
    ),
    "cispo": PresetFacts(
        about="CISPO (MiniMax-M1, arXiv 2506.13585): DAPO's run with CISPO's loss",
        device="4x8xb200",
        hardware="4 nodes of 8 B200 with 192 GB (the paper prints none), and 2 TB of memory on each",
        data=_DAPO_DATA,
        licence="Qwen2.5-32B and DAPO-Math-17k: Apache-2.0",
        mean_tokens=5_000,
        prompt_tokens=600,
        expected="DAPO's AIME 2024 in half of its updates (paper)",
        ours="the cap of 5 (ScaleRL's); float32 head, betas and epsilon are those of M1 itself, "
        "which the paper does not say of this comparison",
    ),
}
"""By name, beside the presets."""
