"""What each preset of R1's pipeline asks for and what to expect of it (recipes/preset_facts.py)."""

from dataclasses import replace

from recipes import papers, sizes
from recipes.preset_facts import PresetFacts

ONE_MACHINE = "stages on several machines: recipes.r1 starts the processes of one"
STAND_INS = (
    "general prompts whose wishes rules check stand in for the paper's 66,000 and its preference "
    "models; no stronger model rewrites the cold start (cold_start.rewrite)"
)
_OURS = f"rounds of Dev2, rows, samples a problem, which the paper does not scale; {STAND_INS}"


def _facts(name: str, zero: PresetFacts, **other: str) -> PresetFacts:
    """Those of R1-Zero's preset of the same size, but for what the pipeline changes."""
    return replace(
        zero,
        about=f"{name}: R1-Zero, cold start, Dev1, Dev2, rejection sampling, Dev3, R1, a student",
        data=f"{zero.data}, for every reasoning stage",
        hours=other.pop("hours", ""),
        ours=_OURS,
        **other,
    )


_ZERO = {**papers.PAPER_FACTS, **sizes.SIZE_FACTS}
_UNKNOWN = "no such pipeline is published for this base"

R1_FACTS = {
    "paper": _facts(
        "DeepSeek-R1 (Nature 645, 633-638)",
        replace(_ZERO["r1_zero"], data="DAPO-Math-17k's English questions for the paper's 80,000"),
        hours="about 198 for R1-Zero and 80 for R1's two RL stages (paper)",
        licence="DeepSeek-V3-Base: DeepSeek's model licence; DAPO-Math-17k: Apache-2.0",
        expected="AIME 2024 pass@1: R1-Zero 77.9, Dev1 59.0, Dev2 74.0, Dev3 78.1, R1 79.8; "
        "MATH-500 95.9, 94.2, 95.9, 95.4, 97.3 (paper, on its own data)",
        missing=f"{papers.TOO_LARGE}; {ONE_MACHINE}",
    ),
    "qwen2.5-32b": _facts(
        "R1's pipeline on Qwen2.5-32B",
        _ZERO["qwen2.5-32b"],
        expected=f"{_UNKNOWN}; R1-Zero's stage alone AIME 2024 47.0, a student of R1's 800,000 "
        "samples 72.6 (paper)",
        missing=ONE_MACHINE,
    ),
    "qwen2.5-7b": _facts(
        "R1's pipeline on Qwen2.5-7B",
        _ZERO["qwen2.5-7b"],
        expected=f"{_UNKNOWN}; a student of R1's 800,000 samples on Qwen2.5-Math-7B has AIME 2024 "
        "55.5, MATH-500 92.8 (paper), from data that this pipeline does not have",
    ),
    "qwen2.5-1.5b": _facts(
        "R1's pipeline on Qwen2.5-1.5B",
        _ZERO["qwen2.5-1.5b"],
        expected=f"{_UNKNOWN}; a student of R1's 800,000 samples on Qwen2.5-Math-1.5B has MATH-500 "
        "83.9 (paper), from data that this pipeline does not have",
    ),
    "qwen2.5-0.5b": _facts(
        "R1's pipeline on Qwen2.5-0.5B",
        _ZERO["qwen2.5-0.5b"],
        expected=f"{_UNKNOWN}, and R1 has no student of this size",
    ),
    "smollm2-cpu": PresetFacts(
        about="R1's pipeline with a model of 135M: R1-Zero, cold start, Dev1, Dev2, rejection "
        "sampling, Dev3, R1, a student",
        device="cpu",
        hardware="two CPU cores, 12 GB of memory",
        data="sums, differences and word problems of two steps, generated, with worked solutions",
        licence="SmolLM2-135M-Instruct: Apache-2.0",
        hours="1.3 measured (78 minutes on two cores of an AMD EPYC)",
        mean_tokens=100,
        prompt_tokens=120,
        expected="pass@1 of 100 held-out problems: base 0.9, R1-Zero 22, Dev1 43, Dev2 68, Dev3 76, R1 "
        "76, student 53 (one seed, n = 8)",
        ours="all but the order of stages",
        ran="run here whole (LOG.md, 2026-11-23)",
    ),
}
"""By the names of `python -m recipes.r1`."""
