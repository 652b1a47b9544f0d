"""Kill a run at random instants, resume it, and compare with one that was never killed.

`python -m benchmarks.kill [--kills 100] [--seed 0] [--model M]`; the last line is JSON. Equal
means tokens, logprobs, verdicts, every metric outside time/ and memory/, evaluations, and the
hash of the float32 masters.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rollouts.process import prepare_process

KILLS_A_RUN = 10
UNEQUAL_BY_NATURE = ("time/", "memory/")
FIELDS = {
    "train.num-rounds": "6",
    "train.problems-per-round": "4",
    "train.group-size": "4",
    "train.updates-per-round": "2",
    "train.max-tokens": "0 16",
    "train.evaluate-every": "3",
    "train.save-every": "2",
    "loss.kl-coefficient": "0.001",
    "loss.reference-every": "4",
    "test.num-problems": "4",
    "test.num-samples": "2",
    "test.max-tokens": "16",
    "validation.num-problems": "4",
    "validation.num-samples": "2",
    "validation.max-tokens": "16",
}


def command(folder: Path, *, resume: bool, model: str | None = None) -> list[str]:
    """The run's command line, new or resumed."""
    words = [sys.executable, "-m", "recipes.r1_zero", "quickstart"]
    if resume:
        return [*words, "--resume", str(folder)]
    words += ["--run-folder", str(folder), "--no-best-prompt"]
    for name, value in FIELDS.items():
        words += [f"--{name}", *value.split()]
    return words + (["--model", model] if model else [])


def differences(left: Path, right: Path) -> list[str]:
    """What differs between two finished run folders, in words; nothing means equal."""
    from rollouts.records import read_groups

    found = []
    names = sorted({p.name for run in (left, right) for p in (run / "rollouts").glob("round-*")})
    for name in names:
        files = [run / "rollouts" / name for run in (left, right)]
        if not all(file.exists() for file in files):
            found.append(f"{name} is missing in one")
        elif read_groups(files[0]) != read_groups(files[1]):
            found.append(f"{name} differs")
    rows = [_metrics(run) for run in (left, right)]
    if rows[0] != rows[1]:
        found.append("metrics differ: " + ", ".join(_unequal_names(*rows)))
    for name in sorted({p.name for run in (left, right) for p in (run / "eval").glob("*.json")}):
        if _text(left / "eval" / name) != _text(right / "eval" / name):
            found.append(f"eval/{name} differs")
    hashes = [_masters(run) for run in (left, right)]
    if hashes[0] != hashes[1]:
        found.append(f"masters differ: {hashes[0]}, {hashes[1]}")
    return found


def _metrics(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(UNEQUAL_BY_NATURE)} for row in rows]


def _unequal_names(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> list[str]:
    if len(left) != len(right):
        return [f"{len(left)} rounds against {len(right)}"]
    pairs = zip(left, right, strict=True)
    return sorted(
        {name for a, b in pairs for name in a.keys() | b.keys() if a.get(name) != b.get(name)}
    )


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _masters(run: Path) -> str | None:
    states = sorted((run / "checkpoints").glob("round-*/state.json"))
    return json.loads(states[-1].read_text())["masters_sha256"] if states else None


def finish(folder: Path, model: str | None) -> float:
    """Run to the end without a kill; gives the seconds."""
    began = time.perf_counter()
    done = subprocess.run(
        command(folder, resume=folder.exists(), model=model), capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"the run failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return time.perf_counter() - began


def kill_once(folder: Path, delay_s: float, model: str | None) -> bool:
    """Start or resume in a forked process, SIGKILL it after `delay_s`; False if it had finished.

    Forking spares each of a hundred processes the imports, so that most kills fall into the run.
    """
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_forked, args=(folder, model))
    process.start()
    process.join(delay_s)
    if process.is_alive():
        process.kill()
        process.join()
        return True
    if process.exitcode:
        raise SystemExit(f"the run ended with {process.exitcode}; resume {folder} to see why")
    return False


def _forked(folder: Path, model: str | None) -> None:
    """The recipe's command, in this process, saying nothing."""
    from recipes.cli import guarded, start

    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    words = command(folder, resume=folder.exists(), model=model)[3:]
    sys.exit(guarded(lambda: start("r1_zero", "quickstart", words)))


def main() -> None:
    """Kill, resume, compare; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default=None)
    arguments = parser.parse_args()
    prepare_process()
    import recipes.launch  # noqa: F401
    import rl.policy  # noqa: F401
    import rollouts.engine  # noqa: F401

    random.seed(arguments.seed)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as base:
        never = Path(base) / "never"
        whole_s = finish(never, arguments.model)
        kills, runs, unequal = 0, 0, []
        while kills < arguments.kills:
            folder = Path(base) / f"run-{runs}"
            for _ in range(min(KILLS_A_RUN, arguments.kills - kills)):
                kills += kill_once(folder, random.uniform(0.0, whole_s / 2), arguments.model)
            finish(folder, arguments.model)
            found = differences(never, folder)
            shutil.rmtree(folder)
            runs += 1
            unequal += [f"run {runs}: {line}" for line in found]
            print(f"{kills} kills, {runs} runs finished, {len(unequal)} differences", flush=True)
        result = {
            "kills": kills,
            "runs": runs,
            "identical_runs": runs - len({line.partition(":")[0] for line in unequal}),
            "differences": unequal[:10],
            "seconds": round(time.perf_counter() - began, 1),
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
