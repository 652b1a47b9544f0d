"""The planner beside real runs: peak memory and seconds, predicted and measured.

`python -m benchmarks.plan [--model M] [--only CASE ...]`: each case is a short run of its own
process on this machine's CPU; the last line is JSON. Memory is the process tree's high-water mark.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from recipes.plan import as_json, planned
from rollouts.process import prepare_process

LOOK_S = 0.2
RUN = """quickstart --no-best-prompt --train.num-rounds 2 --train.problems-per-round 8
    --train.group-size 8 --train.max-tokens 0 64 --policy.micro-batch-tokens 2048
    --train.save-every 2 --train.keep-last 1 --scoring.workers 1 --loss.entropy-coefficient 1e-9
    --test.num-problems 4 --test.num-samples 2 --test.max-tokens 16 --validation.max-tokens 16"""
CASES = {
    "as it is": "",
    "micro-batches of 1,024": "--policy.micro-batch-tokens 1024",
    "checkpointing": "--policy.gradient-checkpointing",
    "LoRA, rank 16": "--policy.lora.rank 16 --optimizer.learning-rate 4e-4",
    "LoRA, checkpointing": "--policy.lora.rank 16 --policy.gradient-checkpointing",
    "states bfloat16": "--optimizer.states bfloat16",
    "KL term": "--loss.kl-coefficient 0.001",
    "not compiled": "--policy.no-compile",
    "float32": "--policy.dtype float32 --engine.dtype float32",
    # So hot that completions are as long as they may.
    "long completions": "--train.problems-per-round 1 --train.max-tokens 0 512 "
    "--train.temperature 2.0 --train.num-rounds 2 --policy.micro-batch-tokens 4096",
}


def measure(words: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run a recipe to its end: its peak in bytes, and seconds of its last round by phase.

    The peak is the larger of what looks at the whole tree saw (PSS, so that shared pages count
    once) and the kernel's own mark of the largest process.

    Raises RuntimeError with the end of its output if it fails.
    """
    command = [sys.executable, "-m", "recipes.r1_zero", *words, "--run-folder", str(folder)]
    with (folder.parent / "output.txt").open("w+") as output:
        started = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        tree, highest, done = psutil.Process(started.pid), 0, 0
        try:
            while not done:
                highest = max(highest, _proportional(tree))
                time.sleep(LOOK_S)
                done, status, usage = os.wait4(started.pid, os.WNOHANG)
        finally:
            if not done:
                started.kill()
        started.returncode = os.waitstatus_to_exitcode(status)
        if started.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {output.read()[-2000:]}")
    rounds = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = rounds[-1]
    return {
        "peak_bytes": max(highest, usage.ru_maxrss * 1024),
        "seconds": {name: last[f"time/{name}_s"] for name in ("sample", "update", "publish")},
        "mean_tokens": last["rollouts/mean_tokens"],
    }


def _proportional(tree: psutil.Process) -> int:
    """PSS of a process and its children, in bytes."""
    total = 0
    for process in [tree, *_children(tree)]:
        with suppress(psutil.Error):  # it ended in between
            total += process.memory_full_info().pss
    return total


def _children(tree: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return tree.children(recursive=True)
    return []


def compare(words: Sequence[str]) -> dict[str, Any]:
    """One case: what is predicted, what is measured, and predicted over measured."""
    foretold = as_json(planned(list(words)))
    with tempfile.TemporaryDirectory() as name:
        found = measure(words, Path(name) / "run")
    return {
        "predicted_bytes": foretold["peak_bytes"],
        "measured_bytes": found["peak_bytes"],
        "ratio": foretold["peak_bytes"] / found["peak_bytes"],
        "phase": foretold["peak_phase"],
        "predicted_s": foretold["seconds_estimated"],
        "measured_s": found["seconds"],
        "mean_tokens": found["mean_tokens"],
    }


def main() -> None:
    """All cases, one after another."""
    prepare_process()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and the run ends with us
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--model", help="as a recipe takes it")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    given = parser.parse_args()
    model = ["--model", given.model] if given.model else []
    rows = {}
    for name in given.only:
        row = rows[name] = compare([*RUN.split(), *CASES[name].split(), *model])
        print(
            f"{name:24} predicted {row['predicted_bytes'] / 1e9:5.2f} GB ({row['phase']}), measured "
            f"{row['measured_bytes'] / 1e9:5.2f} GB: {row['ratio']:.2f}; seconds "
            + ", ".join(
                f"{part} {row['predicted_s'][part]:.2g} / {s:.2g}"
                for part, s in row["measured_s"].items()
            ),
            flush=True,
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
