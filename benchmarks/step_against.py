"""The training step beside its peers, one after another on the same work.

`python -m benchmarks.step --against trl [--case short|long] [--folder FOLDER]`; the last line is
JSON. Each subject runs in a process of its own and writes its result into the folder, so that a
run cut short goes on where it stopped. TRL's micro-batch is the fastest of 4 to 64, found by
going up or down from 8 while updates get faster.
"""

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.step_work import StepResult, read_result

SMALLEST, FIRST, LARGEST = 4, 8, 64
SILENT = ("0", "0.5", "0.8")
CASES = {
    "short": ["--problems", "8", "--group", "8", "--max-tokens", "64"],
    "long": ["--problems", "4", "--group", "16", "--max-tokens", "1024"],
}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A folder of work and results."""

    folder: Path
    case: str

    def work(self) -> Path:
        """The prompts of every step; made once."""
        return self._made("work.json", ["work", *CASES[self.case], "--steps", "5"])

    def rollouts(self, silent: str) -> Path:
        """One batch of rollouts with so many groups without signal; made once."""
        sizes = ["--shape", self.case, "--silent-frac", silent]
        return self._made(f"rollouts-{silent}.json", ["rollouts", *sizes])

    def run(self, name: str, module: str, *options: str) -> StepResult:
        """A subject's result, from its file if it is there."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            partial = path.with_suffix(".running")
            self._call(module, str(self.work()), str(partial), *options)
            partial.replace(path)
        return read_result(path)

    def gradients(self, name: str, module: str, *options: str) -> Path:
        """A subject's float32 gradient on the first batch of rollouts."""
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            batch = ["--rollouts", str(self.rollouts("0")), "--gradients", str(path)]
            self._call(module, str(self.work()), str(path.with_suffix(".json")), *batch, *options)
        return path

    def _made(self, name: str, arguments: list[str]) -> Path:
        path = self.folder / name
        if not path.exists():
            self._call("step_rollouts", arguments[0], str(path), *arguments[1:])
        return path

    def _call(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
        print("running", module, *arguments[2:], flush=True)
        with (self.folder / "log.txt").open("ab") as log:
            done = subprocess.run(command, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise SystemExit(f"{module} failed, see {self.folder / 'log.txt'}")


def run_all(bench: Bench) -> dict[str, Any]:
    """Every subject; the report grows in the folder as they end."""
    found: dict[str, Any] = {"case": bench.case}

    def keep(**values: Any) -> None:
        found.update(values)
        (bench.folder / "report.json").write_text(json.dumps(found, indent=1))
        print(json.dumps(values), flush=True)

    ours = bench.run("ours", "ours_step")
    keep(**_floor(ours), versions=ours.versions)
    small = bench.run("ours-bfloat16", "ours_step", "--states", "bfloat16", "--no-floor")
    minimal = bench.run("minimal", "minimal_loop")
    keep(step_speedup_minimal=_step(minimal) / _step(ours), minimal_floor=minimal.extra)
    micro_batch = fastest_micro_batch(bench)
    trl = bench.run("trl-best", "trl_step", "--micro-batch", str(micro_batch))
    without = trl.peak_memory_without_pool_bytes
    keep(
        trl_micro_batch=micro_batch,
        step_speedup_best_trl=_step(trl) / _step(ours),
        memory_frac_best_trl=small.peak_memory_without_pool_bytes / without,
        memory_frac_best_trl_float32_states=ours.peak_memory_without_pool_bytes / without,
        step_s={"ours": _step(ours), "minimal": _step(minimal), "trl_best": _step(trl)},
    )
    keep(**updates(bench, micro_batch), **gradients(bench))
    if bench.case == "short":
        plain = bench.run("trl-default", "trl_step", "--setting", "default")
        keep(step_speedup_default_trl=_step(plain) / _step(ours))
    return found


def fastest_micro_batch(bench: Bench) -> int:
    """TRL's fastest number of sequences at once, by updates of one batch."""

    def seconds(size: int) -> float:
        return _step(trl_update(bench, size, "0"))

    best = FIRST
    for factor in (2, 0.5):
        while SMALLEST <= best * factor <= LARGEST:
            if seconds(int(best * factor)) >= seconds(best):
                break
            best = int(best * factor)
        if best != FIRST:
            break
    return best


def trl_update(bench: Bench, size: int, silent: str) -> StepResult:
    """TRL's update alone."""
    batch = ["--rollouts", str(bench.rollouts(silent)), "--updates", "1"]
    return bench.run(f"trl-update-{size}-{silent}", "trl_step", "--micro-batch", str(size), *batch)


def updates(bench: Bench, micro_batch: int) -> dict[str, Any]:
    """Updates of fixed rollouts with more and more groups without signal; ours against the others."""
    rows, frac = {}, None
    for silent in SILENT:
        batch = ["--rollouts", str(bench.rollouts(silent))]
        ours = bench.run(f"ours-update-{silent}", "ours_step", *batch)
        minimal = bench.run(f"minimal-update-{silent}", "minimal_loop", "--no-floor", *batch)
        trl = trl_update(bench, micro_batch, silent)
        rows[silent] = {"ours": _step(ours), "minimal": _step(minimal), "trl_best": _step(trl)}
        if silent == "0":
            frac = ours.extra["gemm_s"] / _step(ours)
    return {"update_s_by_silent_frac": rows, "update_gemm_frac": frac}


def gradients(bench: Bench) -> dict[str, Any]:
    """Cosine of our float32 gradient with the others', on the same rollouts."""
    from safetensors.torch import load_file

    ours = load_file(bench.gradients("ours-gradient", "ours_step", "--eager", "--no-floor"))
    found = {}
    for name, module in (("trl", "trl_step"), ("minimal", "minimal_loop")):
        other = load_file(bench.gradients(f"{name}-gradient", module))
        dot = sum((ours[n].double() * other[n].double()).sum().item() for n in ours)
        sizes = [
            sum(g.double().square().sum().item() for g in t.values()) ** 0.5 for t in (ours, other)
        ]
        found[name] = {"cosine": dot / (sizes[0] * sizes[1]), "norm_ratio": sizes[0] / sizes[1]}
    return {"gradient_cosine": found["trl"]["cosine"], "gradients": found}


def _step(result: StepResult) -> float:
    """Median seconds of the timed steps."""
    return statistics.median(row.step_s for row in result.steps if not row.watched)


def _floor(ours: StepResult) -> dict[str, Any]:
    floors = ours.extra["floors"]
    bare = statistics.median(floor["bare_s"] for floor in floors)
    gemm = statistics.median(floor["gemm_s"] for floor in floors)
    return {
        "step_over_floor": _step(ours) / (bare + gemm),
        "floor": {"bare_s": bare, "gemm_s": gemm},
        "ours_peak_without_pool_bytes": ours.peak_memory_without_pool_bytes,
    }
