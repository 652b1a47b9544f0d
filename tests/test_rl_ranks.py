"""Several processes under torchrun (gloo) against one: the same updates, to rounding."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rl.dealing import computed, dealt, parts_of
from rl.packing import PackingConfig, pack
from rl.ranks import Ranks
from tests import packed_models
from tests.ranks_program import CASES, groups_of, trained

ROOT = Path(__file__).parent.parent
TOLERANCE = {"float32": 2e-6, "bfloat16": 1e-4, "float16": 1e-4}
"""Of a tensor's size, after four updates; in 16 bits a master's cast may fall the other way."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks")
    for make in (
        packed_models.llama,
        packed_models.qwen3,
        packed_models.gemma2,
        packed_models.deepseek_v3,
    ):
        make().save_pretrained(path / make.__name__)
    return path


def start(program, *arguments, count=2):
    """Run a program under torchrun, one thread a process; gives what it said."""
    command = ["-m", "torch.distributed.run", "--nproc-per-node", str(count), str(program)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command, *map(str, arguments)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="session")
def together(folder):
    """What each of two processes found."""
    done = start(ROOT / "tests" / "ranks_program.py", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"result-{index}-of-2.pt") for index in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_update_as_one(name, folder, together):
    expected = trained(folder, CASES[name], Ranks())
    tolerance = TOLERANCE[CASES[name].policy.dtype]
    first, second = (found[name] for found in together)
    assert first["state"].keys() == expected["state"].keys()
    for key, tensor in expected["state"].items():
        assert torch.equal(first["state"][key], second["state"][key]), key
        gap = (first["state"][key].double() - tensor.double()).norm()
        assert gap <= tolerance * tensor.double().norm() + 1e-12, key
    assert_near(first["metrics"], expected["metrics"], tolerance)
    assert first["metrics"] == second["metrics"]


def assert_near(found, expected, tolerance):
    assert len(found) == len(expected)
    for left, right in zip(found, expected, strict=True):
        assert left.keys() == right.keys()
        for key, value in right.items():
            assert left[key] == pytest.approx(value, rel=1e3 * tolerance, abs=1e3 * tolerance), key
