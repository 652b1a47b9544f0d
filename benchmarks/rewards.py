"""How often the rewards are right, and how fast, beside their peers.

`python -m benchmarks.rewards [--data FOLDER]`; the last line is JSON. FOLDER (or the variable
GROUPWISE_DATA) holds `gsm8k/test.jsonl` and `math500/test.jsonl`; without it the speeds are null.
"""

import argparse
import json
import os
from pathlib import Path

from benchmarks import reward_math


def main() -> None:
    """Measure all parts and print their figures as one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("GROUPWISE_DATA"))
    arguments = parser.parse_args()
    figures = reward_math.measure(arguments.data)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
