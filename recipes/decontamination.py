"""Training problems that share ten words in a row with a benchmark: named, left out, recorded."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from eval.benchmarks import benchmark, data_folder
from eval.contamination import NGRAM_WORDS, overlaps, without_overlaps
from rewards.problem import Problem
from rl.run_folder import write_atomically

RECORD = "contamination.json"
"""In the run folder: what was compared and which training problems were left out."""

Contamination = dict[str, object]


def decontaminated(
    train: Sequence[Problem], benchmarks: Sequence[str]
) -> tuple[list[Problem], Contamination]:
    """The training problems without those that overlap a benchmark, and the record of it.

    The benchmarks are read as `eval.benchmarks.benchmark` does, from the folder of
    GROUPWISE_DATA or the hub. Prints one line that names what is left out.

    Raises:
        ValueError: An unknown benchmark, or one whose rows cannot be had.
    """
    data = data_folder(None)
    asked = [benchmark(name, data=data) for name in benchmarks]
    found = overlaps(train, [problem for each in asked for problem in each.problems])
    kept = without_overlaps(train, found)
    if len(kept) < len(train):
        dropped = dict.fromkeys(overlap.training for overlap in found)
        print(
            f"train: {len(dropped)} of {len(train)} problems left out, they share {NGRAM_WORDS} "
            f"words in a row with {', '.join(benchmarks)}: {', '.join(dropped)}"
        )
    return kept, {
        "benchmarks": {each.name: each.digest() for each in asked},
        "num_train": len(train),
        "num_dropped": len(train) - len(kept),
        "overlaps": [asdict(overlap) for overlap in found],
    }


def keep_record(folder: Path, record: Contamination) -> None:
    """Write the record, once; nothing if no benchmark was compared.

    Raises:
        ValueError: The folder holds another: the data changed since the run began.
    """
    if not record:
        return
    path = folder / RECORD
    text = json.dumps(record, indent=2) + "\n"
    if path.is_file() and path.read_text() != text:
        raise ValueError(
            f"{path} names other problems than are left out now: the training data or a "
            "benchmark changed since the run began; give it the data that it began with"
        )
    write_atomically(path, text.encode())
