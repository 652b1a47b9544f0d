"""Training problems that share ten words in a row with a benchmark: named, left out, recorded."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eval.benchmarks import benchmark, data_folder
from eval.contamination import NGRAM_WORDS, Overlap, overlaps, without_overlaps
from rewards.problem import Problem
from rl.run_folder import write_atomically

RECORD = "contamination.json"
"""In the run folder: what was compared and which training problems were left out."""

NAMED = 5
"""So many of the problems that are left out are named in the line."""

SHOWN = 100
"""Characters of the words that are shown in it."""

Contamination = dict[str, Any]


def decontaminated(
    train: Sequence[Problem], benchmarks: Sequence[str]
) -> tuple[list[Problem], Contamination]:
    """The training problems without those that overlap a benchmark, and the record of it.

    The benchmarks are read as `eval.benchmarks.benchmark` does, from the folder of
    GROUPWISE_DATA or the hub. Prints one line: how many are left out, some of them, and the words
    that most of them share, by which a template that was taken for a problem can be seen.

    Raises:
        ValueError: An unknown benchmark, one whose rows cannot be had, or nothing is left.
    """
    data = data_folder(None)
    asked = [benchmark(name, data=data) for name in benchmarks]
    found = overlaps(train, [problem for each in asked for problem in each.problems])
    kept = without_overlaps(train, found)
    told = f"{NGRAM_WORDS} words in a row with {', '.join(benchmarks)}"
    if train and not kept:
        raise ValueError(
            f"drop_contaminated leaves no training problem: all {len(train)} share {told}, "
            f"{_commonest(found)}; train on other data, or leave that benchmark out"
        )
    if found:
        print(
            f"train: {len(train) - len(kept)} of {len(train)} problems left out, they share {told}, "
            f"{_commonest(found)}: {_some(found)}; each is in {RECORD}"
        )
    elif train:
        print(f"train: none of {len(train)} problems shares {told}")
    return kept, {
        "benchmarks": {each.name: each.digest() for each in asked},
        "num_train": len(train),
        "num_dropped": len(train) - len(kept),
        "overlaps": [asdict(overlap) for overlap in found],
    }


def _commonest(found: Sequence[Overlap]) -> str:
    """The words that most training problems share with a benchmark."""
    pairs = {(overlap.words, overlap.training) for overlap in found}
    words, times = Counter(words for words, _ in sorted(pairs)).most_common(1)[0]
    shown = words if len(words) <= SHOWN else f"{words[:SHOWN]}..."
    return f'{times} of them "{shown}"'


def _some(found: Sequence[Overlap]) -> str:
    names = list(dict.fromkeys(overlap.training for overlap in found))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def keep_record(folder: Path, record: Contamination) -> None:
    """Write the record, once; nothing if no benchmark was compared.

    Raises:
        ValueError: The folder holds another: the data changed since the run began.
    """
    if not record:
        return
    path = folder / RECORD
    text = json.dumps(record, indent=2) + "\n"
    if not path.is_file():
        write_atomically(path, text.encode())
    elif _left(json.loads(path.read_text())) != _left(record):
        raise ValueError(
            f"{path} names other problems than are left out now: the training data, a benchmark or "
            "Groupwise changed since the run began; give it those that it began with"
        )


def _left(record: Contamination) -> tuple[object, set[str]]:
    """How many problems there were, and which are left out: what decides what is trained on."""
    return record["num_train"], {overlap["training"] for overlap in record["overlaps"]}
