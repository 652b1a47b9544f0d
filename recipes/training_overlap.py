"""What of a benchmark the training of a model has asked: ten words in a row, by the run's own data."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from eval.benchmarks import Benchmark
from eval.contamination import NGRAM_WORDS, Overlap, overlaps, without_overlaps
from eval.standings import Standing
from recipes.config import from_yaml
from recipes.decontamination import RECORD
from recipes.supervised import SftConfig, read_rows
from rewards.problem import Problem

Found = dict[str, dict[str, Any]]
"""By benchmark: num_problems, num_overlapping, and the overlaps."""


def training_overlap(run: Path, benchmarks: Sequence[Benchmark]) -> Found | str:
    """Which problems of each benchmark the run's training problems overlap.

    What the run left out itself (--drop-contaminated) is not counted. Gives one line in place of
    it where the training data cannot be had any more.
    """
    file = run / "config.yaml"
    try:
        train = without_overlaps(_asked(file), _left_out(run))
    except (OSError, ValueError) as error:
        return f"training data of {run} cannot be compared: {str(error).splitlines()[0]}"
    found: Found = {}
    for each in benchmarks:
        pairs = overlaps(train, each.problems)
        found[each.name] = {
            "num_problems": len(each.problems),
            "num_overlapping": len({pair.benchmark for pair in pairs}),
            "num_training": len(train),
            "overlaps": [asdict(pair) for pair in pairs],
        }
    return found


def _asked(file: Path) -> list[Problem]:
    """The training problems of a run, or the prompts of a supervised stage."""
    if "data" not in (yaml.safe_load(file.read_text()) or {}):
        return from_yaml(file.read_text(), str(file)).task.problems("train")
    config = from_yaml(file.read_text(), str(file), SftConfig)
    return [problem for problem, _ in read_rows(config.data)]


def overlap_line(standing: Standing, found: Found | str) -> str | None:
    """What a reader of the table must know of one row; None if nothing."""
    if isinstance(found, str):
        return found
    record = found[standing.benchmark]
    if not record["num_overlapping"]:
        return None
    asked = {pair["benchmark"] for pair in record["overlaps"]}
    clean = [c for c in standing.counts if c.id not in asked and c.num_graded]
    rest = (
        f"pass@1 without them {100 * sum(c.num_correct / c.num_graded for c in clean) / len(clean):.1f}%"
        if clean
        else "none is left without them"
    )
    return (
        f"{standing.benchmark}: {record['num_overlapping']} of {record['num_problems']} problems "
        f"share {NGRAM_WORDS} words in a row with the training problems of {standing.subject}; {rest}"
    )


def _left_out(run: Path) -> list[Overlap]:
    file = run / RECORD
    rows = json.loads(file.read_text())["overlaps"] if file.is_file() else []
    return [Overlap(**row) for row in rows]
