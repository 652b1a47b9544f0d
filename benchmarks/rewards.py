"""How often the rewards are right, how fast they are beside their peers, and what hostile text costs.

`python -m benchmarks.rewards [--data FOLDER]`; the last line is JSON. FOLDER (or the variable
GROUPWISE_DATA) holds `gsm8k/test.jsonl`, `math500/test.jsonl`, `humaneval/`, `mbpp_sanitized/` and
the sources of the labelled answers; without it, what needs them is left out.

Parts: math (benchmarks/reward_math.py), programs (reward_programs.py), the pool (reward_pool.py),
fuzzed responses (reward_fuzz.py). `--only math` runs one; `--labels FILE` grades another file of
labelled answers, JSON lines with `answer`, `response`, `correct` and, if there is one, `problem`.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from benchmarks import reward_fuzz, reward_math, reward_pool, reward_programs

PARTS = ("math", "programs", "pool", "fuzz")


def main() -> None:
    """Measure all parts and print their figures as one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("GROUPWISE_DATA"))
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--items", type=int, default=20_000, help="fuzzed responses")
    arguments = parser.parse_args()
    data = None if arguments.data is None else Path(arguments.data)
    figures: dict[str, Any] = {}
    for part in PARTS if arguments.only is None else (arguments.only,):
        if part == "math":
            figures |= reward_math.measure(data, arguments.labels)
        elif part == "programs" and data is not None:
            figures |= reward_programs.measure(data, arguments.workers)
        elif part == "pool":
            figures |= reward_pool.pool_overhead()
        elif part == "fuzz":
            figures |= reward_fuzz.measure(arguments.items, arguments.workers)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
