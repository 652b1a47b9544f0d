"""Thirty random faults on one run: nothing lost, nothing trained twice, and the tokens of a calm run."""

import json
import subprocess
import sys

import pytest

from tests.chaos import FAULTS, ROOT


@pytest.mark.slow
def test_thirty_faults_change_nothing(tiny_model, tmp_path):
    command = [sys.executable, "-m", "tests.chaos", tiny_model, tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert sum(FAULTS.values()) == 30
    assert told["faults"] >= 25  # the run may end before the last
    assert told["in_draw_order"] and told["trained_once"]
    assert told["equal_frac"] >= 0.999
