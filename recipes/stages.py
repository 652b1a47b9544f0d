"""Stages of a pipeline: each a command in a process of its own, with a manifest once it is done.

    PIPELINE/stages/NAME/           the command's own folder; manifest.json in it says it is done
    PIPELINE/stages/NAME.started.json, NAME.config.yaml, NAME.log

A stage that is done is not run again; one that was cut off goes on by its command's --resume. One
whose settings or inputs have changed is refused. Stages meet through files only: nothing that one
leaves in memory (accelerate's state, an engine) reaches the next.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from recipes.config import flat
from recipes.digests import digest
from recipes.versions import versions
from rl.run_folder import write_atomically

PR_SET_PDEATHSIG = 1
MANIFEST = "manifest.json"


class StageError(RuntimeError):
    """A stage's command failed by our own fault; its output has the traceback."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One command, what it reads, and what of its folder later stages read.

    Attributes:
        name: Its folder's.
        recipe: The module of `recipes` that runs it, by --config, --run-folder and --resume.
        config: Its settings as YAML, or what gives them once the stages before it are done.
        inputs: Files and folders that it reads, by what a person calls them.
        outputs: Names in its folder; all must be there at its end.
        numbers: What its folder says of it, for the manifest.
        num_processes: Above 1 it is started by torchrun.
    """

    name: str
    recipe: str
    config: str | Callable[[], str]
    inputs: Mapping[str, Path] = field(default_factory=dict)
    outputs: tuple[str, ...]
    numbers: Callable[[Path], dict[str, Any]]
    num_processes: int = 1

    @property
    def settings(self) -> str:
        """What its command is told."""
        return self.config if isinstance(self.config, str) else self.config()


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Where stages are kept, and how they are run there."""

    root: Path

    def folder(self, name: str) -> Path:
        """A stage's own."""
        return self.root / "stages" / name

    def manifest(self, name: str) -> dict[str, Any] | None:
        """What a finished stage says of itself; None if it is not finished."""
        path = self.folder(name) / MANIFEST
        return json.loads(path.read_text()) if path.exists() else None

    def run(self, stage: Stage) -> dict[str, Any]:
        """Run a stage, go on with it, or leave it if it is done; gives its manifest.

        Raises:
            ValueError: Its settings or inputs are not those it was started with, or its command
                refused them.
            StageError: Its command failed.
        """
        asked = self._asked(stage)
        done = self.manifest(stage.name)
        if done:
            self._check(stage, done, asked)
            return done
        started = self._start(stage, asked)
        begun = time.monotonic()
        try:
            self._command(stage)
        finally:
            started["seconds"] += time.monotonic() - begun
            self._write(f"{stage.name}.started.json", started)
        return self._finish(stage, started)

    def _asked(self, stage: Stage) -> dict[str, Any]:
        return {
            "stage": stage.name,
            "recipe": stage.recipe,
            "processes": stage.num_processes,
            "config": yaml.safe_load(stage.settings.replace(str(self.root), ".")),
            "inputs": {name: digest(path) for name, path in stage.inputs.items()},
        }

    def _check(self, stage: Stage, before: dict[str, Any], now: dict[str, Any]) -> None:
        """Raise ValueError naming what differs from when the stage was started."""
        changed = [
            f"input {name} (sha256 {before['inputs'].get(name, 'none')[:12]}, now {sha[:12]})"
            for name, sha in now["inputs"].items()
            if before["inputs"].get(name) != sha
        ]
        old, new = flat(before["config"]), flat(now["config"])
        changed += [
            f"{path} ({old.get(path)!r}, now {new.get(path)!r})"
            for path in sorted(old.keys() | new.keys())
            if old.get(path) != new.get(path)
        ]
        if changed:
            raise ValueError(
                f"stage {stage.name} in {self.root} was made with another {'; '.join(changed[:4])}"
                f"{f'; and {len(changed) - 4} more' if changed[4:] else ''}: choose another "
                f"--run-folder, or remove {self.folder(stage.name)} and what was made from it"
            )

    def _start(self, stage: Stage, asked: dict[str, Any]) -> dict[str, Any]:
        """What is kept of a stage from its start: settings, inputs, and seconds so far."""
        path = self.root / "stages" / f"{stage.name}.started.json"
        if path.exists() and self.folder(stage.name).exists():
            started = json.loads(path.read_text())
            self._check(stage, started, asked)
            return started
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path.parent / f"{stage.name}.config.yaml", stage.settings.encode())
        started = {**asked, "seconds": 0.0}
        self._write(path.name, started)
        return started

    def _command(self, stage: Stage) -> None:
        """Run the stage's command to its end, its output shown and kept."""
        folder, kept = self.folder(stage.name), self.root / "stages"
        place = ["--config", str(kept / f"{stage.name}.config.yaml"), "--run-folder", str(folder)]
        if folder.exists():
            place = ["--resume", str(folder)]
        error = ""
        with (kept / f"{stage.name}.log").open("a") as log, child(_words(stage) + place) as process:
            for line in process.stdout:
                log.write(line)
                log.flush()
                print(f"  {line}", end="", flush=True)
                error = (
                    line.removeprefix("error: ").strip() if line.startswith("error: ") else error
                )
        if process.returncode == 2:
            raise ValueError(f"stage {stage.name}: {error or 'see above'}")
        if process.returncode:
            raise StageError(
                f"stage {stage.name} ended with exit code {process.returncode}; its output is in "
                f"{kept}/{stage.name}.log. The same command goes on where it stopped"
            )

    def _finish(self, stage: Stage, started: dict[str, Any]) -> dict[str, Any]:
        folder = self.folder(stage.name)
        missing = [name for name in stage.outputs if not (folder / name).exists()]
        if missing:
            raise ValueError(
                f"stage {stage.name} was stopped before its end ({missing[0]} is missing): the same "
                "command goes on with it"
            )
        manifest = {
            **started,
            "outputs": {name: digest(folder / name) for name in stage.outputs},
            "numbers": stage.numbers(folder),
            "versions": versions(),
        }
        write_atomically(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
        return manifest

    def _write(self, name: str, value: dict[str, Any]) -> None:
        data = (json.dumps(value, indent=1) + "\n").encode()
        write_atomically(self.root / "stages" / name, data)


def _words(stage: Stage) -> list[str]:
    """The command of a stage, without its place."""
    started = [sys.executable]
    if stage.num_processes > 1:
        count = f"--nproc-per-node={stage.num_processes}"
        started += ["-m", "torch.distributed.run", "--standalone", count]
    return [*started, "-m", f"recipes.{stage.recipe}"]


@contextlib.contextmanager
def child(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process whose output is read; it ends with this one, and is told of Ctrl-C and SIGTERM.

    Raises KeyboardInterrupt at its end if there was one.
    """
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,  # a terminal's Ctrl-C reaches it once, through us
        preexec_fn=_die_with_parent,
    )
    asked: list[int] = []

    def tell(number: int, frame: Any) -> None:
        asked.append(number)
        process.send_signal(number)

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with process:
            yield process
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
