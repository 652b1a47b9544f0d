"""R1-Zero on Qwen2.5, from a cluster's node to a free T4: `python -m recipes.r1_zero qwen2.5-7b`.

The recipe is `papers.r1_zero`: template, rewards, KL term, clip. Model, data, sizes and lengths are
cut to the hardware. `qwen2.5-32b` is the paper's own smaller run; what the others changed is ours.
"""

from dataclasses import replace

from recipes.config import RunConfig
from recipes.papers import dapo_math, limited, r1_zero
from recipes.preset_facts import PresetFacts
from rl.lora import LoraSettings
from rollouts.placement import Ray
from rollouts.tasks.dataset import Competition, Gsm8k


def qwen25_32b() -> RunConfig:
    """R1-Zero-Qwen-32B (DeepSeek-R1, Nature, supplement): learning rate 2e-6, else R1-Zero's."""
    base = limited(r1_zero(), (0, 32_768))
    return replace(
        base,
        model="Qwen/Qwen2.5-32B",
        task=dapo_math(wrapped=False),
        optimizer=replace(base.optimizer, learning_rate=2e-6),
        policy=replace(base.policy, micro_batch_tokens=34_816),
        engine=replace(base.engine, max_concurrent=128, gpu_memory_frac=0.75),
    )


def qwen25_7b() -> RunConfig:
    """Eight GPUs of 80 GB: R1-Zero's updates of 32 questions x 16, four a round, 8,192 tokens."""
    base = limited(qwen25_32b(), (0, 4_096), (500, 8_192))
    return replace(
        base,
        model="Qwen/Qwen2.5-7B",
        train=replace(
            base.train,
            num_rounds=250,
            problems_per_round=128,
            updates_per_round=4,
            save_every=5,
        ),
        optimizer=replace(base.optimizer, learning_rate=1e-6),
        policy=replace(base.policy, micro_batch_tokens=16_384),
        engine=replace(base.engine, max_concurrent=256, gpu_memory_frac=0.6),
        test=replace(base.test, num_samples=8),
    )


def qwen25_7b_ray() -> RunConfig:
    """Of eight GPUs of 80 GB four train and four sample, a round ahead (docs/scale.md)."""
    base = qwen25_7b()
    return replace(
        base,
        rollouts=Ray(num_workers=4),
        train=replace(base.train, max_staleness=1),
        engine=replace(base.engine, max_concurrent=512, gpu_memory_frac=0.9),
    )


def qwen25_15b() -> RunConfig:
    """One GPU of 80 GB: MATH, updates of 32 questions x 16, two a round, 3,072 tokens."""
    base = limited(qwen25_7b(), (0, 3_072))
    return replace(
        base,
        model="Qwen/Qwen2.5-1.5B",
        task=Competition(),
        train=replace(
            base.train,
            num_rounds=200,
            problems_per_round=64,
            updates_per_round=2,
        ),
        engine=replace(base.engine, gpu_memory_frac=0.5),
        policy=replace(base.policy, fsdp=False),
    )


def qwen25_05b() -> RunConfig:
    """One GPU of 24 GB: as 1.5B, 2,048 tokens."""
    base = limited(qwen25_15b(), (0, 2_048))
    return replace(
        base,
        model="Qwen/Qwen2.5-0.5B",
        engine=replace(base.engine, max_concurrent=128, gpu_memory_frac=0.4),
        policy=replace(base.policy, micro_batch_tokens=8_192),
    )


def t4() -> RunConfig:
    """A free GPU of 16 GB that knows no bfloat16: adapters on 0.5B in float16, GSM8K, 512 tokens."""
    base = limited(qwen25_05b(), (0, 512))
    return replace(
        base,
        task=Gsm8k(),
        train=replace(
            base.train,
            num_rounds=150,
            problems_per_round=16,
            group_size=8,
            updates_per_round=1,
        ),
        optimizer=replace(base.optimizer, learning_rate=2e-5),
        policy=replace(
            base.policy, dtype="float16", lora=LoraSettings(rank=16), micro_batch_tokens=4_096
        ),
        engine=replace(
            base.engine, dtype="float16", max_concurrent=64, gpu_memory_frac=0.4, compile=False
        ),
        test=replace(base.test, num_samples=4),
    )


SIZES = {
    "qwen2.5-32b": qwen25_32b,
    "qwen2.5-7b": qwen25_7b,
    "qwen2.5-7b-ray": qwen25_7b_ray,
    "qwen2.5-1.5b": qwen25_15b,
    "qwen2.5-0.5b": qwen25_05b,
    "t4": t4,
}

_MATH = "MATH's 7,500 training problems"
_MATH_LICENCE = "MATH: MIT, disputed by AoPS since January 2025"

SIZE_FACTS = {
    "qwen2.5-32b": PresetFacts(
        about="R1-Zero-Qwen-32B (DeepSeek-R1, arXiv v2, supplement): R1-Zero on Qwen2.5-32B",
        device="8x8xb200",
        hardware="8 nodes of 8 B200 with 192 GB (the paper prints none), and 2 TB of memory on each",
        data="DAPO-Math-17k's English questions for the paper's, which are not public",
        licence="Qwen2.5-32B and DAPO-Math-17k: Apache-2.0",
        mean_tokens=5_000,
        prompt_tokens=500,
        expected="AIME 2024 pass@1 47.0, MATH-500 91.6, GPQA Diamond 55.0 (paper, after more than "
        "10,000 updates on its own data)",
        ours="data, and what R1-Zero leaves open",
    ),
    "qwen2.5-7b": PresetFacts(
        about="R1-Zero on Qwen2.5-7B",
        device="8xh100",
        hardware="8 GPUs with 80 GB, and 512 GB of memory",
        data="DAPO-Math-17k's English questions; a fifth is held out by a hash",
        licence="Qwen2.5-7B and DAPO-Math-17k: Apache-2.0",
        mean_tokens=1_500,
        prompt_tokens=500,
        expected="no run has these settings; near ones: Open-Reasoner-Zero 7B (PPO) AIME 2024 17.9, "
        "MATH-500 81.4, SimpleRL-Zoo 7B an average of 40.3 to 55.2. DeepSeek saw no meaningful "
        "gain on AIME at 7B",
        ours="learning rate, rounds, four updates a round, lengths, data",
    ),
    "qwen2.5-7b-ray": PresetFacts(
        about="R1-Zero on Qwen2.5-7B with engines of their own, a round ahead of training",
        device="8xh100",
        hardware="8 GPUs with 80 GB, of which 4 train (torchrun --nproc-per-node 4) and 4 sample, and "
        "512 GB of memory",
        data="DAPO-Math-17k's English questions; a fifth is held out by a hash",
        licence="Qwen2.5-7B and DAPO-Math-17k: Apache-2.0",
        mean_tokens=1_500,
        prompt_tokens=500,
        expected="as qwen2.5-7b; what a round of staleness costs was not measured at this size",
        ours="as qwen2.5-7b, and 4 workers, a round ahead: the ratio is still that to the weights that "
        "drew each token",
    ),
    "qwen2.5-1.5b": PresetFacts(
        about="R1-Zero on Qwen2.5-1.5B",
        device="h100",
        hardware="one GPU with 80 GB, and 64 GB of memory",
        data=_MATH,
        licence=f"Qwen2.5-1.5B: Apache-2.0; {_MATH_LICENCE}",
        mean_tokens=700,
        prompt_tokens=400,
        expected="no run has these settings; near it: SimpleRL-Zoo 1.5B (GRPO, 8,000 problems) GSM8K "
        "55.7 to 74.4, MATH-500 29.6 to 59.0. Its authors find that a format reward hurts weak "
        "bases, and R1-Zero has one",
        ours="learning rate, rounds, two updates a round, length, data",
    ),
    "qwen2.5-0.5b": PresetFacts(
        about="R1-Zero on Qwen2.5-0.5B",
        device="rtx4090",
        hardware="one GPU with 24 GB, and 32 GB of memory",
        data=_MATH,
        licence=f"Qwen2.5-0.5B: Apache-2.0; {_MATH_LICENCE}",
        mean_tokens=500,
        prompt_tokens=400,
        expected="no run has these settings; near it: SimpleRL-Zoo 0.5B (GRPO, 8,000 problems, 80 "
        "GB) GSM8K 36.7 to 49.5, MATH-500 15.8 to 34.4. Its authors find that a format reward "
        "hurts weak bases, and R1-Zero has one",
        ours="learning rate, rounds, two updates a round, length, data",
    ),
    "t4": PresetFacts(
        about="R1-Zero by adapters (LoRA) on Qwen2.5-0.5B in float16, for a free T4",
        device="t4",
        hardware="one T4 with 16 GB, as free notebooks have, and 12 GB of memory",
        data="GSM8K's 7,473 training problems",
        licence="Qwen2.5-0.5B: Apache-2.0; GSM8K: MIT",
        mean_tokens=250,
        prompt_tokens=300,
        expected="no run has these settings; near it: verl's GRPO with adapters on Qwen2.5-0.5B-"
        "Instruct, GSM8K 49.6 to 54.3",
        ours="all but the recipe. Whether vLLM and PyTorch's attention kernels run on a T4 is not "
        "known: their makers test newer GPUs",
    ),
}
"""By name, beside the presets."""
