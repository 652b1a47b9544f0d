"""The figures of `benchmarks.step --against trl`, from what its parts measured."""

import statistics
from pathlib import Path
from typing import Any

from benchmarks.step_part import OUT, Part
from benchmarks.step_table import TableRow
from benchmarks.step_work import StepResult

SILENT = ("0", "0.5", "0.8")
LENGTHS = ("512", "2048", "4096")


def floor_figures(ours: StepResult, names: list[str]) -> dict[str, Any]:
    """Our step over the sum of these floors; a step's floors are timed right after it."""
    floor = {name: statistics.median(one[name] for one in ours.extra["floors"]) for name in names}
    pairs = zip(ours.timed(), ours.extra["floors"], strict=True)
    return {
        "step_over_floor": ours.median() / sum(floor.values()),
        "step_over_floor_of_each": [
            round(row.step_s / sum(one[name] for name in names), 3) for row, one in pairs
        ],
        "floor": floor,
        "peak_without_pool_bytes": ours.peak_memory_without_pool_bytes,
    }


def against_best(
    ours: StepResult, small: StepResult, trl: StepResult, micro_batch: int
) -> dict[str, Any]:
    """Step and memory beside TRL at its best; memory with states of the same precision."""
    without = trl.peak_memory_without_pool_bytes
    return {
        "trl_micro_batch": micro_batch,
        "step_speedup_best_trl": trl.median() / ours.median(),
        "step_speedup_best_trl_bfloat16_states": trl.median() / small.median(),
        "memory_frac_best_trl": small.peak_memory_without_pool_bytes / without,
        "memory_frac_best_trl_float32_states": ours.peak_memory_without_pool_bytes / without,
        "trl_step_made_of": trl.extra,
    }


def update_figures(ours: StepResult, minimal: StepResult, trl: list[StepResult]) -> dict[str, Any]:
    """Updates of fixed rollouts by the share of groups without signal, and the products' share.

    `trl` holds the result for no silent group, and the one with the others as its batches.
    """
    of_trl = [trl[0].median(), *(trl[1].median(batch=i) for i in range(len(SILENT) - 1))]
    rows = {
        frac: {
            "ours": ours.median(batch=i),
            "minimal": minimal.median(batch=i),
            "trl_best": of_trl[i],
        }
        for i, frac in enumerate(SILENT)
    }
    return {"update_s_by_silent_frac": rows, "update_gemm_frac": floor_frac(ours, 0, ["gemm_s"])}


def floor_frac(ours: StepResult, batch: int, names: list[str]) -> float:
    """Of an update of ours, what these floors take when each is timed alone, in turn with it."""
    floors = [one for one in ours.extra["floors"] if one["batch"] == batch]
    pairs = zip(ours.timed(batch), floors, strict=True)
    return statistics.median(sum(one[name] for name in names) / row.update_s for row, one in pairs)


def length_figures(bench: Any, work: Path) -> dict[str, Any]:
    """`update_floor_frac_N` at N tokens a completion, and an update with one of 8,192."""
    paths = [bench.folder / f"rollouts-{name}-0.json" for name in (*LENGTHS, "8192")]
    shapes = ("rollouts", bench.folder, "--shapes", *LENGTHS, "8192", "--unscored")
    bench.made(
        Part(name="rollouts-lengths", module="step_rollouts", arguments=shapes, expected_s=10),
        paths[-1],
    )
    wide = ("--micro-batch-tokens", 8448, "--rollouts")
    arguments = (work, OUT, *wide, *paths[:-1], "--updates", 1)
    ours = bench.run(Part(name="lengths", module="ours_step", arguments=arguments, expected_s=150))
    arguments = (work, OUT, "--no-floor", *wide, paths[-1], "--updates", 1, "--warm-ups", 1)
    longest = bench.run(
        Part(name="completion-8192", module="ours_step", arguments=arguments, expected_s=80)
    )
    both = ["gemm_s", "attention_s"]
    found = {f"update_floor_frac_{n}": floor_frac(ours, i, both) for i, n in enumerate(LENGTHS)}
    return found | {
        "completion_8192_update_s": longest.median(),
        "completion_8192_peak_bytes": longest.peak_memory_bytes,
    }


def gradient_figures(bench: Any, work: Path, batch: Path) -> dict[str, Any]:
    """Cosine of our float32 gradient with the others', on the same rollouts."""
    from safetensors.torch import load_file

    def gradient(name: str, module: str, *options: str) -> Any:
        path = bench.folder / f"{name}-gradient.safetensors"
        given = ("--rollouts", batch, "--gradients", OUT, *options)
        arguments = (work, path.with_suffix(".json"), *given)
        part = Part(name=f"{name}-gradient", module=module, arguments=arguments, expected_s=35)
        return load_file(bench.once(part, path))

    ours = gradient("ours", "ours_step", "--eager", "--no-floor")
    found = {}
    for name, module in (("trl", "trl_step"), ("minimal", "minimal_loop")):
        other = gradient(name, module)
        dot = sum((ours[n].double() * other[n].double()).sum().item() for n in ours)
        sizes = [
            sum(g.double().square().sum().item() for g in t.values()) ** 0.5 for t in (ours, other)
        ]
        found[name] = {"cosine": dot / (sizes[0] * sizes[1]), "norm_ratio": sizes[0] / sizes[1]}
    return {"gradient_cosine": found["trl"]["cosine"], "gradients": found}


def rows_of(
    ours: StepResult, small: StepResult, minimal: StepResult, trl: dict[str, StepResult]
) -> list[TableRow]:
    """The table of a case."""
    named = {"ours": ours, "ours, bfloat16 states": small, "minimal loop": minimal} | trl
    rows = [
        TableRow(
            name=name,
            step_s=result.median(),
            sample_s=result.median("sample_s"),
            update_s=result.median("update_s"),
            memory_bytes=result.peak_memory_without_pool_bytes,
        )
        for name, result in named.items()
    ]
    floors = ours.extra["floors"]
    bare = statistics.median(one["bare_s"] for one in floors)
    alone = statistics.median(one["gemm_s"] + one["attention_s"] for one in floors)
    floor = TableRow(
        name="floor, attention included", step_s=bare + alone, sample_s=bare, update_s=alone
    )
    return [rows[0], floor, *rows[1:]]
