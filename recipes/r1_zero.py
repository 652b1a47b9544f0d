"""R1-Zero: reinforcement learning straight from a base model, rewards that rules can check.

`python -m recipes.r1_zero` is the paper's recipe; `python -m recipes.r1_zero r1_zero_tiny`
runs the same on two CPU cores. Any field can be given: `--model Qwen/Qwen2.5-0.5B`.
"""

from recipes.cli import main

if __name__ == "__main__":
    main("r1_zero", "Groupwise: R1-Zero, GRPO from a base model with rule-based rewards", "r1_zero")
