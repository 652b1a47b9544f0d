"""What this machine and environment lack for training, each failure with its remedy.

Run `python -m recipes.doctor`, or with `--json`; the exit code is 1 if anything is FAIL. It
imports neither torch nor vLLM, so it takes seconds and speaks where they are broken.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from rewards import sandbox
from rollouts import models, process

try:
    import psutil
    from packaging.requirements import Requirement
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from recipes.host_memory import container_limit
except ModuleNotFoundError as error:
    remedy = "run `make setup`, then `.venv/bin/python -m recipes.doctor`"
    raise SystemExit(f"FAIL: {error.name} is missing in {sys.executable}: {remedy}") from error

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("rewards", "rollouts", "rl", "eval", "recipes")
# Run in a fresh interpreter, here and in another folder.
FIND_PACKAGES = f"""
import importlib.util, json, os
specs = {{name: importlib.util.find_spec(name) for name in {PACKAGES}}}
print(json.dumps({{name: s and s.origin and os.path.dirname(s.origin) for name, s in specs.items()}}))
"""
TIMEOUT_S = 30.0
STYLES = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}

Status = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True)
class Check:
    """One line of the table, such as `Check("memory", "FAIL", "3.9 GB", "Needs 8 GB.")`."""

    name: str
    status: Status
    found: str
    remedy: str = ""


def check_python() -> Check:
    """The interpreter's version."""
    found = f"{platform.python_version()} ({sys.executable})"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Check("python", "ok", found)
    return Check("python", "FAIL", found, "Use Python 3.11, 3.12 or 3.13: make clean setup.")


def check_platform() -> Check:
    """Linux on x86-64 is what is tested."""
    found = f"{platform.system()} {platform.release()} {platform.machine()}"
    if platform.system() != "Linux":
        return Check("platform", "FAIL", found, "Use Linux (a container or WSL2 may do).")
    if "microsoft" in platform.release().lower():
        return Check("platform", "warn", found, "WSL2 is untested.")
    if platform.machine() != "x86_64":
        return Check("platform", "warn", found, "Only x86-64 is tested.")
    return Check("platform", "ok", found)


def check_cpu(cpuinfo: str) -> Check:
    """Vector instructions, from the text of /proc/cpuinfo; on a GPU they do not matter."""
    flags = set(next((line for line in cpuinfo.splitlines() if line[:5] == "flags"), "").split())
    names = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    found = " ".join(name for name in names if name in flags) or "no AVX2"
    if process.uses_gpu(os.environ) or platform.machine() != "x86_64":
        return Check("cpu", "ok", found)
    if "avx2" not in flags:
        return Check("cpu", "FAIL", found, "vLLM's CPU build needs AVX2: use another machine.")
    if not flags & {"avx512_bf16", "amx_bf16"}:
        return Check("cpu", "warn", found, "No bf16 instructions: expect it to be slow.")
    return Check("cpu", "ok", found)


def check_cores() -> Check:
    """Physical cores that this process may use."""
    num_cores = len(process.physical_cores())
    found = f"{num_cores} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}"
    if num_cores < 2:
        return Check("cores", "warn", found, "Two cores or more are recommended.")
    return Check("cores", "ok", found)


def check_memory(total_bytes: float, available_bytes: float) -> Check:
    """Memory of the machine, or of its container."""
    found = f"{total_bytes / 1e9:.1f} GB, {available_bytes / 1e9:.1f} GB available"
    if total_bytes < 7.5e9:  # what a machine sold with 8 GB shows
        return Check("memory", "FAIL", found, "At least 8 GB are needed.")
    if available_bytes < 6e9:
        return Check("memory", "warn", found, "Close other programs: 6 GB should be available.")
    return Check("memory", "ok", found)


def check_disk(name: str, folder: Path, *, need_bytes: float) -> Check:
    """Free space where a folder is, or will be."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free_bytes = shutil.disk_usage(existing).free
    found = f"{free_bytes / 1e9:.1f} GB free in {folder}"
    if free_bytes < need_bytes:
        return Check(name, "FAIL", found, f"Make room: {need_bytes / 1e9:.0f} GB are needed.")
    if not os.access(existing, os.W_OK):
        return Check(name, "FAIL", f"{folder} cannot be written", "Use a folder of your own.")
    return Check(name, "ok", found)


def check_settings() -> Check:
    """The process settings, which this program has asked for as every recipe does."""
    absent = process.missing(os.environ)
    if absent:
        remedy = 'eval "$(python -m rollouts.process)" in the shell that starts the process.'
        return Check("settings", "warn", f"not set: {', '.join(absent)}", remedy)
    if not process.uses_gpu(os.environ) and "libiomp5" not in Path("/proc/self/maps").read_text():
        remedy = "vLLM's CPU build brings it: make setup. Without it sampling is slower."
        return Check("settings", "warn", "libiomp5.so is not preloaded", remedy)
    cores = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "all")
    return Check("settings", "ok", f"set; CPU threads on cores {cores}")


def check_packages() -> Check:
    """That the five import names mean this repository, also for a process started elsewhere."""
    command = [sys.executable, "-c", FIND_PACKAGES]
    with tempfile.TemporaryDirectory() as folder:
        here, elsewhere = (json.loads(_output(command, cwd) or "{}") for cwd in (None, folder))
    seen = {(name, path) for found in (here, elsewhere) for name, path in found.items() if path}
    foreign = sorted(pair for pair in seen if Path(pair[1]).resolve() != ROOT / pair[0])
    if foreign:
        told = "; ".join(f"{name} is {path}{_culprit(name)}" for name, path in foreign)
        remedy = "Use one environment per clone, without that package: make clean, make setup."
        return Check("packages", "FAIL", told, remedy)
    if not all(elsewhere.get(name) for name in PACKAGES):
        return Check("packages", "warn", "not installed: found only from here", "make setup")
    return Check("packages", "ok", f"all five in {ROOT}")


def check_version(name: str, requirements: Sequence[str]) -> Check:
    """An installed version against every requirement on it in pyproject.toml."""
    if not _is_installed(name):
        return Check(name, "FAIL", "not installed", "make setup")
    found = metadata.version(name)
    unmet = [line for line in requirements if found not in Requirement(line).specifier]
    if unmet:
        return Check(name, "FAIL", found, f"{', '.join(unmet)} is needed: make clean, make setup.")
    return Check(name, "ok", found)


def check_torchvision() -> Check:
    """A torchvision of another build than torch's breaks transformers' models."""
    if not _is_installed("torchvision"):
        return Check("torchvision", "ok", "absent, and not needed")
    if _output([sys.executable, "-c", "import torchvision; print('imports')"]):
        return Check("torchvision", "ok", metadata.version("torchvision"))
    remedy = "pip uninstall -y torchvision torchaudio torchcodec (nothing here needs them)"
    return Check("torchvision", "FAIL", "does not import", remedy)


def check_gpu() -> Check:
    """The GPU, and whether the installed engine is the one for it."""
    cpu_build = _is_installed("vllm-cpu")
    if not process.gpu_visible(os.environ):
        if cpu_build:
            return Check("gpu", "ok", "none; the engine is vLLM's CPU build")
        return Check("gpu", "FAIL", "none", "For the CPU: make clean, make EXTRA=cpu setup.")
    found = _output(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"])
    if cpu_build:
        remedy = "Not used. For CUDA: make clean, make EXTRA=cuda setup."
        return Check("gpu", "warn", found or "a device", remedy)
    if not found:
        return Check("gpu", "warn", "a device, but nvidia-smi is silent", "Check the driver.")
    return Check("gpu", "ok", found)


def check_sandbox() -> Check:
    """Whether programs that the model writes can be isolated; mathematics needs no sandbox."""
    try:
        backend = sandbox.find_sandbox().backend
    except sandbox.SandboxUnavailable as error:
        return Check("sandbox", "warn", "none", f"Only for code rewards: {error}")
    if backend == "landlock":
        return Check("sandbox", "warn", "Landlock alone", "Allow unprivileged user namespaces.")
    return Check("sandbox", "ok", f"{backend}, passed its probe")


def check_model() -> Check:
    """Whether the default model is at hand."""
    at_hand = "cached" if models.default_model_cached() else "fetched at first use (93 MB)"
    return Check("model", "ok", f"{models.DEFAULT_MODEL}: {at_hand}")


def pinned_requirements() -> dict[str, list[str]]:
    """The lines of pyproject.toml about each package that is pinned, for the installed engine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    engine, extra = ("vllm-cpu", "cpu") if _is_installed("vllm-cpu") else ("vllm", "cuda")
    lines = [*project["dependencies"], *project["optional-dependencies"][extra]]
    names = ("torch", engine, "transformers", "trl", "accelerate", "peft")
    return {name: [line for line in lines if Requirement(line).name == name] for name in names}


def run_checks() -> Iterator[Check]:
    """Every check, in the order of the table."""
    yield check_python()
    yield check_platform()
    if platform.system() != "Linux":
        return
    yield check_cpu(Path("/proc/cpuinfo").read_text())
    yield check_cores()
    memory = psutil.virtual_memory()
    yield check_memory(min(memory.total, container_limit()), memory.available)
    yield check_disk("disk", Path.cwd(), need_bytes=5e9)
    yield check_disk("model cache", models.cache_folder(), need_bytes=1e9)
    yield check_settings()
    yield check_packages()
    for name, requirements in pinned_requirements().items():
        yield check_version(name, requirements)
    yield check_torchvision()
    yield check_gpu()
    yield check_sandbox()
    yield check_model()


def print_table(checks: Sequence[Check]) -> None:
    """The checks for a person."""
    table = Table(box=None)
    for column in ("check", "", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for check in checks:
        status = Text(check.status, style=STYLES[check.status])
        table.add_row(check.name, status, Text(check.found), Text(check.remedy))
    Console().print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks and print them; 1 if any is FAIL. With --plan, `recipes.plan` instead."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--plan" in words:
        from recipes.plan import main as plan

        return plan(words)
    parser = argparse.ArgumentParser(prog="python -m recipes.doctor", description=__doc__)
    parser.add_argument("--plan", action="store_true", help="what a run would take, see --plan -h")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args(argv)
    if platform.system() == "Linux":
        process.prepare_process(argv)
    checks = list(run_checks())
    if arguments.json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        print_table(checks)
    return int(any(check.status == "FAIL" for check in checks))


def _culprit(name: str) -> str:
    """Whose package that is, such as torchtune's `recipes`."""
    owners = metadata.packages_distributions().get(name, ())
    others = [owner for owner in owners if owner != "groupwise"]
    return f", from {others[0]}" if others else ""


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _output(command: Sequence[str], cwd: str | None = None) -> str | None:
    """What a command prints, stripped; None if it fails, hangs or does not exist."""
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, check=True, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
