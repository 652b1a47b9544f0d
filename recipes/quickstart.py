"""GRPO on arithmetic with an instruct model of 135M: the whole loop in minutes on two cores.

`python -m recipes.quickstart` samples with vLLM, scores, trains, and shows before and after.
"""

from recipes.cli import main

if __name__ == "__main__":
    main(
        "quickstart",
        "Groupwise quickstart: GRPO on arithmetic with an instruct model of 135M",
        "quickstart",
    )
