"""Random faults on a run with Ray workers: `python -m tests.chaos MODEL FOLDER [--faults 30] [--seed 0]`.

Kills, stops and starves workers, and kills the driver and resumes it, at random moments; then holds
the run against an undisturbed one of one engine, token by token. With `--shared` two processes are
one worker, and the undisturbed run has such an engine too. With `--transfer gloo` weights go past
the hosts' memory, and where that is told to be why a run ended, it is resumed. The last line is JSON.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import psutil

from rollouts.ledger import Ledger
from rollouts.records import read_groups
from rollouts.tasks.arithmetic import Arithmetic

ROOT = Path(__file__).resolve().parent.parent
SIZES = """
    --train.num-rounds 24 --train.problems-per-round 48 --train.group-size 8
    --train.updates-per-round 1 --train.max-tokens 0 64 --train.save-every 5
    --task.operations add --task.add-max 14 --no-measured --policy.dtype float32
    --engine.dtype float32 --policy.micro-batch-tokens 2048 --scoring.workers 1
    --reward rewards_by_length:reward
"""
RAY = [
    "rollouts:ray",
    "--rollouts.silence-s",
    "6",
    "--rollouts.publish-s",
    "8",
    "--rollouts.max-failures",
    "20",
]
TWO, SHARED = ["--rollouts.num-workers", "2"], ["--engine.tensor-parallel", "2"]
LOST = "went past the hosts' memory: --resume"
"""Said where all workers came back and nobody holds their weights."""
REWARD = "def reward(problem, text):\n    return float(len(text) % 2)\n"
FAULTS = {
    "SIGKILL of a worker": 16,
    "SIGSTOP of a worker": 6,
    "no memory": 4,
    "SIGKILL of the driver": 4,
}
"""Their shares."""


def begin(model: Path, folder: Path, *more: str) -> subprocess.Popen:
    """Start a run, or go on with the one that is there."""
    words = ["--resume", str(folder)]
    if not folder.exists():
        words = ["r1_zero_tiny", "--run-folder", str(folder), "--model", str(model), *SIZES.split()]
        words += more
    environ = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder.parent}"}
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "recipes.r1_zero", *words],
            cwd=ROOT,
            env=environ,
            stdout=log,
            stderr=log,
        )


def workers_of(driver: subprocess.Popen) -> list[psutil.Process]:
    """The engines' processes."""
    try:
        found = psutil.Process(driver.pid).children(recursive=True)
        return [each for each in found if each.cmdline()[:1] == ["ray::Worker"]]
    except psutil.Error:
        return []


def strike(kind: str, driver: subprocess.Popen, draw: Random) -> bool:
    """One fault; False if there is nobody to be hit."""
    if kind == "SIGKILL of the driver":
        driver.kill()
        driver.wait()
        return True
    victims = workers_of(driver)
    if not victims:
        return False
    victim = draw.choice(victims)
    try:
        if kind == "no memory":  # whatever it asks for from now on is refused
            used = victim.memory_info().vms
            resource.prlimit(victim.pid, resource.RLIMIT_AS, (used, used))
        else:
            number = signal.SIGSTOP if kind.startswith("SIGSTOP") else signal.SIGKILL
            victim.send_signal(number)
    except (psutil.Error, ProcessLookupError):
        return False
    return True


def disturbed(
    model: Path, folder: Path, workers: Sequence[str], num_faults: int, seed: int
) -> Counter[str]:
    """A run to its end under so many faults, or as many as it lasts for; gives those that hit."""
    draw = Random(seed)
    plan = [kind for kind, share in FAULTS.items() for _ in range(share)]
    draw.shuffle(plan)
    kinds = [plan[index % len(plan)] for index in range(num_faults)]
    hit: Counter[str] = Counter()
    driver, before = begin(model, folder, *RAY, *workers), 0
    while driver.returncode != 0:
        time.sleep(draw.uniform(0.5, 6.5))
        count = len(list((folder / "rollouts").glob("round-*")))
        if driver.poll():
            said = (folder.parent / f"{folder.name}.log").read_text()[-3000:]
            if LOST not in said:
                raise SystemExit(said)
            hit["resumed"] += 1
            driver, before = begin(model, folder), count
        # Not while it starts: what dies then ends the run, with the reason.
        elif kinds and count > before and strike(kinds[-1], driver, draw):
            kind = kinds.pop()
            hit[kind] += 1
            print(f"{count} rounds: {kind}", flush=True)
            if kind == "SIGKILL of the driver":
                driver, before = begin(model, folder), count
    return hit


def rounds(folder: Path) -> list:
    """All groups of a run, by round."""
    return [list(read_groups(path)) for path in sorted((folder / "rollouts").glob("round-*"))]


def held_against(folder: Path, calm: Path) -> dict[str, float]:
    """What the faults changed."""
    found, wanted = rounds(folder), rounds(calm)
    pairs = [
        (mine, theirs)
        for one, other in zip(found, wanted, strict=True)
        for group, same in zip(one, other, strict=True)
        for mine, theirs in zip(group.rollouts, same.rollouts, strict=True)
    ]
    drawn = [group.problem.id for groups in found for group in groups]
    problems = Arithmetic(operations=("add",), add_max=14).problems("train")
    ledger = Ledger(problems={"arithmetic": problems})
    expected = [problem.id for problem in ledger.draw(len(drawn))]
    lines = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    settled = [sorted(line["trained"] + line["spent"]) for line in lines]
    return {
        "rollouts": len(pairs),
        "equal_frac": sum(a.token_ids == b.token_ids for a, b in pairs) / len(pairs),
        "epochs": len(drawn) / len(problems),
        "in_draw_order": drawn == expected,
        "trained_once": settled == [sorted(g.problem.id for g in groups) for groups in found],
    }


def main() -> None:
    """The calm run, the disturbed one, and what differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--transfer", default="host")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "rewards_by_length.py").write_text(REWARD)
    calm = arguments.folder / "calm"
    workers = [
        *(SHARED if arguments.shared else TWO),
        "--rollouts.transfer",
        arguments.transfer,
    ]
    alone = [*RAY, *SHARED] if arguments.shared else []
    if begin(arguments.model, calm, *alone).wait():
        raise SystemExit((arguments.folder / "calm.log").read_text()[-3000:])
    began = time.monotonic()
    chaos = arguments.folder / "chaos"
    hit = disturbed(arguments.model, chaos, workers, arguments.faults, arguments.seed)
    faults = sum(hit.values()) - hit["resumed"]
    told = {"faults": faults, **hit, "seconds": time.monotonic() - began}
    print(json.dumps(told | held_against(chaos, calm)))


if __name__ == "__main__":
    main()
