"""What a run was made with, and what is said when it goes on with something else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from recipes.versions import changed_versions, versions

ROOT = Path(__file__).resolve().parent.parent


def test_it_is_json_and_names_packages_commit_and_machine():
    found = json.loads(json.dumps(versions()))
    assert {"python", "packages", "commit", "machine", "settings", "command"} == set(found)
    assert {"torch", "transformers"} <= set(found["packages"])
    assert found["machine"]["cores"] >= 1


@pytest.mark.parametrize("words", [["-m", "tests_versions_probe", "--x", "a b"], ["probe.py"]])
def test_the_command_is_what_was_really_run(words: list[str], tmp_path: Path):
    program = "import json; from recipes.versions import command; print(json.dumps(command()))"
    for name in ("tests_versions_probe.py", "probe.py"):
        (tmp_path / name).write_text(program)
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=True,
    )
    # With the module, and without the interpreter's place.
    assert json.loads(done.stdout) == ["python", *words]


def test_the_preloaded_library_is_named_without_its_place(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LD_PRELOAD", "/home/someone/.venv/lib/libiomp5.so")
    assert versions()["settings"]["LD_PRELOAD"] == "libiomp5.so"


def test_what_changed_since_the_start_is_said_line_by_line():
    before = {
        "python": "3.11.2",
        "packages": {"torch": "2.13.0", "trl": "1.16"},
        "commit": "abc",
        "machine": {"cpu": "A", "cores": 2},
        "settings": {"OMP_NUM_THREADS": "2"},
        "command": ["python", "-m", "recipes.quickstart"],
    }
    assert changed_versions(before, before) == []
    now = {
        **before,
        "packages": {"torch": "2.14.0"},
        "commit": "def",
        "settings": {"OMP_NUM_THREADS": "1"},
        "command": ["python", "-m", "recipes.quickstart", "--resume", "x"],  # may differ
    }
    assert changed_versions(before, now) == [
        "commit abc, now def",
        "torch 2.13.0, now 2.14.0",
        "trl 1.16, now None",
        "OMP_NUM_THREADS 2, now 1",
    ]
