"""What a file or folder holds, as one SHA-256."""

import hashlib
from pathlib import Path
from typing import Any


def digest(path: Path) -> str:
    """The SHA-256 of a file's content, or over the names and contents of a folder's files.

    Raises ValueError if nothing is there.
    """
    if path.is_dir():
        return folder_digest(path)["sha256"]
    if not path.is_file():
        raise ValueError(f"{path} is not there: a stage before it, or --from, has to give it")
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def folder_digest(path: Path) -> dict[str, Any]:
    """A folder's files with their sizes, and one SHA-256 over names and contents."""
    whole = hashlib.sha256()
    sizes = {}
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        name = file.relative_to(path).as_posix()
        sizes[name] = file.stat().st_size
        with file.open("rb") as data:
            whole.update(f"{name}\0".encode() + hashlib.file_digest(data, "sha256").digest())
    return {"files": sizes, "sha256": whole.hexdigest()}
