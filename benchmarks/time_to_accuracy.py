"""Seconds of training until the quickstart's task is answered right often enough, TRL and ours.

`python -m benchmarks.step --time-to-accuracy [--target 0.6] [--steps 60] [--folder FOLDER]`; the
last line is JSON. Both start from the quickstart's checkpoint and have its sizes, 16 problems x 16
completions of at most 24 tokens, and one learning rate, loss and clip. No problem comes twice, so a
step's mean reward is the accuracy, on problems that were not trained on, of the policy that the step
starts from; the target is reached when the mean of three steps is. Loading is not counted, steps are,
the first included.

TRL is measured twice: with weights in bf16, where it is fastest and small updates are rounded away,
and with float32 weights under autocast. The one that gets there first counts. Each is stopped after
`--patience` times our seconds; where neither got there, the ratio is known to be more than what they
had spent (`time_to_accuracy_speedup_at_least`).
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.step_against import Bench
from benchmarks.step_part import OUT, Part
from benchmarks.step_work import StepRow

WINDOW = 3
TRL = ("trl-bfloat16", "trl-float32")
EXPECTED_S = {"ours": 200, "trl-bfloat16": 1200, "trl-float32": 1200}


def reached_after(rows: Sequence[StepRow], target: float, window: int = WINDOW) -> float | None:
    """Seconds of all steps until the mean reward of the last `window` is the target; None if never."""
    for end in range(window, len(rows) + 1):
        if sum(row.reward_mean for row in rows[end - window : end]) / window >= target:
            return sum(row.step_s for row in rows[:end])
    return None


def time_to_accuracy(bench: Bench, given: Any) -> dict[str, Any]:
    """Both, one after another; the report grows in the folder."""
    sizes = ("--problems", given.problems, "--group", given.group, "--max-tokens", given.max_tokens)
    training = ("--steps", given.steps, "--learning-rate", 4e-5, "--target", given.target)
    arguments = ("work", OUT, *sizes, *training)
    work = bench.once(
        Part(name="work", module="step_rollouts", arguments=arguments, expected_s=10),
        bench.folder / "work.json",
    )
    micro_batch = ("--micro-batch", min(given.micro_batch, given.problems * given.group))
    subjects = {
        "ours": ("ours_step", "--no-floor"),
        "trl-bfloat16": ("trl_step", *micro_batch),
        "trl-float32": ("trl_step", *micro_batch, "--states", "float32"),
    }
    found: dict[str, Any] = {"target": given.target, "steps_at_most": given.steps}
    limit: tuple[Any, ...] = ()
    for name, (module, *options) in subjects.items():
        part = Part(
            name=name,
            module=module,
            arguments=(work, OUT, *options, *limit),
            expected_s=EXPECTED_S[name],
        )
        rows = bench.run(part).steps
        found[name] = {
            "seconds": reached_after(rows, given.target),
            "steps": len(rows),
            "all_steps_s": sum(row.step_s for row in rows),
            "accuracy": [round(row.reward_mean, 3) for row in rows],
        }
        (bench.folder / "report.json").write_text(json.dumps(found, indent=1))
        print(json.dumps({name: found[name]}), flush=True)
        if name == "ours" and found[name]["seconds"]:
            limit = ("--at-most-s", given.patience * found[name]["seconds"])
    return found | {
        "time_to_accuracy_speedup": speedup(found),
        "time_to_accuracy_speedup_at_least": speedup_at_least(found),
    }


def speedup(found: dict[str, Any]) -> float | None:
    """TRL's seconds over ours; None where ours or both of TRL's never got there."""
    ours = found["ours"]["seconds"]
    reached = [found[name]["seconds"] for name in TRL if found[name]["seconds"] is not None]
    return min(reached) / ours if ours and reached else None


def speedup_at_least(found: dict[str, Any]) -> float | None:
    """What the speedup is known to exceed: each of TRL's runs as if it had got there at its end."""
    ours = found["ours"]["seconds"]
    spent = [found[name]["seconds"] or found[name]["all_steps_s"] for name in TRL]
    return min(spent) / ours if ours else None


def run(given: Any, folder: Path, show: Callable[[str], None] = print) -> None:
    """Measure in a folder and print."""
    show(json.dumps(time_to_accuracy(Bench(folder=folder.resolve()), given)))
