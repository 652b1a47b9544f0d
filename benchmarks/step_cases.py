"""What `benchmarks.step --against trl` measures of each case: the parts, and the figures from them.

Seconds are medians of timed steps. What no run of this length can hold is made up from parts, and
says so: a step of TRL's long case from some of its micro-batches, which are all padded to one
width. TRL's defaults are measured in the short case.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.step_figures import (
    against_best,
    floor_figures,
    gradient_figures,
    length_figures,
    rows_of,
    update_figures,
)
from benchmarks.step_part import OUT, Part
from benchmarks.step_table import TableRow
from benchmarks.step_work import StepResult, read_work, write

SMALLEST, LARGEST = 4, 64
SILENT = ("0", "0.5", "0.8")
Keep = Callable[..., None]


def short_case(bench: Any, keep: Keep) -> list[TableRow]:
    """8 x 8 completions of at most 64 tokens."""
    work = bench.once(
        Part(
            name="short-work",
            module="step_rollouts",
            arguments=("work", OUT, "--steps", 4),
            expected_s=10,
        ),
        bench.folder / "short-work.json",
    )
    batches = rollouts(bench, "short", SILENT)

    def run(name: str, module: str, expected_s: float, *options: Any) -> StepResult:
        arguments = (work, OUT, *options)
        return bench.run(
            Part(name=f"short-{name}", module=module, arguments=arguments, expected_s=expected_s)
        )

    ours = run("ours", "ours_step", 80)
    keep(**floor_figures(ours, ["bare_s", "gemm_s"]), versions=ours.versions)
    small = run("ours-bfloat16", "ours_step", 65, "--states", "bfloat16", "--no-floor")
    minimal = run("minimal", "minimal_loop", 120)
    keep(
        step_speedup_minimal=minimal.median() / ours.median(),
        minimal_update_over_floor=minimal.extra["update_over_floor"],
    )

    def tried(size: int) -> StepResult:
        options = ("--micro-batch", size, "--rollouts", batches[0], "--updates", 1)
        return run(f"trl-update-{size}", "trl_step", 40, *options, "--micro-batches", 2)

    size = fastest(tried, 8, LARGEST)
    trl = run("trl-best", "trl_step", 110, "--micro-batch", size, "--steps", 3)
    keep(**against_best(ours, small, trl, size))
    plain = run("trl-default", "trl_step", 90, "--setting", "default", "--micro-batches", 2)
    keep(step_speedup_default_trl=plain.median() / ours.median())

    of_ours = run("ours-updates", "ours_step", 70, "--rollouts", *batches, "--updates", 4)
    of_minimal = run(
        "minimal-updates", "minimal_loop", 75, "--no-floor", "--rollouts", *batches, "--updates", 1
    )
    options = ("--micro-batch", size, "--rollouts", *batches[1:], "--updates", 1)
    of_trl = run("trl-updates", "trl_step", 75, *options)
    keep(**update_figures(of_ours, of_minimal, [tried(size), of_trl]))
    keep(**gradient_figures(bench, work, batches[0]))
    return rows_of(ours, small, minimal, {f"TRL, best ({size})": trl, "TRL, defaults*": plain})


def long_case(bench: Any, keep: Keep) -> list[TableRow]:
    """4 x 16 completions behind 256-token prompts, log-normal up to 1,024 tokens."""
    work = bench.once(
        Part(
            name="long-work",
            module="step_rollouts",
            arguments=("work", OUT, "--case", "long", "--steps", 2),
            expected_s=10,
        ),
        bench.folder / "long-work.json",
    )
    timed_first = turned(work)
    batch = rollouts(bench, "long", ("0",), "--unscored")[0]

    def run(name: str, module: str, expected_s: float, on: Path, *options: Any) -> StepResult:
        arguments = (on, OUT, *options)
        return bench.run(
            Part(name=f"long-{name}", module=module, arguments=arguments, expected_s=expected_s)
        )

    ours = run("ours", "ours_step", 200, work)
    keep(**floor_figures(ours, ["bare_s", "gemm_s", "attention_s"]))
    small = run("ours-bfloat16", "ours_step", 140, work, "--states", "bfloat16", "--no-floor")
    minimal = run("minimal", "minimal_loop", 200, work, "--no-floor")
    keep(step_speedup_minimal=minimal.median() / ours.median())

    def tried(size: int) -> StepResult:
        options = ("--micro-batch", size, "--rollouts", batch, "--micro-batches", 1)
        return run(f"trl-update-{size}", "trl_step", 12 + 14 * size / 2, work, *options)

    size = fastest(tried, SMALLEST, LARGEST)
    options = ("--micro-batch", size, "--micro-batches", 1)
    trl = run("trl-best", "trl_step", 120, timed_first, *options)
    keep(**against_best(ours, small, trl, size))
    keep(**length_figures(bench, work))
    return rows_of(ours, small, minimal, {f"TRL, best ({size})*": trl})


def rollouts(bench: Any, shape: str, fracs: tuple[str, ...], *options: Any) -> list[Path]:
    """The batches of a shape, one for each share of groups without signal."""
    paths = [bench.folder / f"rollouts-{shape}-{frac}.json" for frac in fracs]
    arguments = ("rollouts", bench.folder, "--shapes", shape, "--silent-frac", *fracs, *options)
    bench.made(
        Part(name=f"rollouts-{shape}", module="step_rollouts", arguments=arguments, expected_s=15),
        paths[-1],
    )
    return paths


def turned(work: Path) -> Path:
    """The timed step first, for what times one step only."""
    given = read_work(work)
    changed = replace(
        given,
        prompts=given.prompts[::-1],
        texts=given.texts[::-1],
        lengths=given.lengths[::-1],
        signal_groups=given.signal_groups[::-1],
    )
    path = work.with_name("long-work-timed.json")
    write(path, changed)
    return path


def fastest(tried: Callable[[int], StepResult], first: int, largest: int) -> int:
    """TRL's fastest number of sequences at once: up from the first while it gets faster and fits."""
    best = first
    while best * 2 <= largest and fits(tried(best)):
        if tried(best * 2).median() >= tried(best).median():
            break
        best *= 2
    if best == first and first > SMALLEST and tried(first // 2).median() < tried(first).median():
        best = first // 2
    return best


def fits(result: StepResult) -> bool:
    """True if twice its micro-batch will fit: all but 2 GB doubles, and the engine takes 4."""
    import psutil

    doubled = 2 * result.peak_memory_bytes - 2e9
    return doubled + 4e9 <= psutil.virtual_memory().available
