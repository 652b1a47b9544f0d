"""Stages on real commands: rejection sampling of worked solutions alone, which needs no engine."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from recipes.config import to_yaml
from recipes.pipeline import Pipeline, run_pipeline
from recipes.rejection_config import RejectionConfig
from recipes.stages import Stage, StageError, Stages, child
from rewards.pool import ScoringConfig
from rollouts.tasks.steps import Steps

ROOT = Path(__file__).resolve().parent.parent
WORKED = RejectionConfig(
    task=Steps(kinds=("add2",), num_problems=30),
    num_samples=0,
    num_rows=4,
    scoring=ScoringConfig(workers=0),
)


@pytest.fixture
def stages(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "in.txt").write_text("a")
    return Stages(root=tmp_path)


def worked(stages, config=WORKED, **changed):
    fields = {
        "name": "worked",
        "recipe": "rejection",
        "config": to_yaml(config),
        "inputs": {"the words": stages.root / "in.txt"},
        "outputs": ("kept.jsonl",),
        "numbers": lambda folder: json.loads((folder / "counts.json").read_text())["kept"],
    }
    return Stage(**fields | changed)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A stage that is done, and its manifest."""
    root = tmp_path_factory.mktemp("stages")
    (root / "in.txt").write_text("a")
    stages = Stages(root=root)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        return stages, stages.run(worked(stages))
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def test_a_manifest_says_what_was_read_and_left(done):
    stages, manifest = done
    assert manifest["stage"] == "worked"
    # printf a | sha256sum
    assert manifest["inputs"] == {
        "the words": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    }
    assert manifest["numbers"]["rows"] == 4
    assert list(manifest["outputs"]) == ["kept.jsonl"]
    assert manifest["seconds"] > 0
    assert len((stages.folder("worked") / "kept.jsonl").read_text().splitlines()) == 4
    assert "4 rows are in" in (stages.root / "stages" / "worked.log").read_text()
    assert json.loads((stages.folder("worked") / "manifest.json").read_text()) == manifest


def test_what_is_done_is_not_done_again(done):
    stages, manifest = done
    path = stages.folder("worked") / "kept.jsonl"
    before = path.stat().st_mtime_ns
    assert stages.run(worked(stages)) == manifest
    assert path.stat().st_mtime_ns == before


def test_changed_inputs_and_settings_are_named(done):
    stages, _ = done
    other = worked(stages, replace(WORKED, num_rows=5))
    with pytest.raises(ValueError, match=r"stage worked .* num_rows \(4, now 5\): choose another"):
        stages.run(other)
    (stages.root / "in.txt").write_text("b")
    try:
        with pytest.raises(
            ValueError, match=r"input the words \(sha256 ca978112ca1b, now 3e23e81600"
        ):
            stages.run(worked(stages))
    finally:
        (stages.root / "in.txt").write_text("a")


def test_a_refused_pipeline_keeps_its_settings_file(done, capsys):
    stages, _ = done

    def pipeline(config, stage):
        return Pipeline(
            config=config, stages=stages, listed=(stage,), models={}, compared=(), shown=()
        )

    run_pipeline(pipeline("num_rows: 4", worked(stages)))
    assert "[1/1] worked is done" in capsys.readouterr().out
    with pytest.raises(ValueError, match="choose another"):
        run_pipeline(pipeline("num_rows: 5", worked(stages, replace(WORKED, num_rows=5))))
    assert (stages.root / "config.yaml").read_text() == "num_rows: 4"


def test_a_missing_input_is_named(stages):
    stage = worked(stages, inputs={"model": stages.root / "nowhere"})
    with pytest.raises(ValueError, match="nowhere is not there: a stage before it"):
        stages.run(stage)
    assert not (stages.root / "stages").exists()


@pytest.mark.slow
def test_a_mistake_of_the_stage_is_the_pipelines(stages):
    config = replace(
        WORKED,
        endpoint=replace(WORKED.endpoint, url="http://127.0.0.1:9/v1", model="m"),
        prompts=replace(WORKED.prompts, template="plain"),
    )
    with pytest.raises(ValueError, match="stage worked: an endpoint applies its own chat template"):
        stages.run(worked(stages, config))


def test_a_failure_of_ours_is_told_apart(stages):
    with pytest.raises(StageError, match="ended with exit code 1; its output is in"):
        stages.run(worked(stages, recipe="no_such_recipe"))


@pytest.mark.slow
def test_an_output_that_is_missing_is_no_end(stages):
    with pytest.raises(ValueError, match=r"stopped before its end \(final is missing\)"):
        stages.run(worked(stages, outputs=("final",)))
    assert stages.manifest("worked") is None


def test_a_child_is_told_of_an_interrupt_and_waited_for():
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: (print('told', flush=True), sys.exit(0)))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with (
        pytest.raises(KeyboardInterrupt),
        child([sys.executable, "-c", program]) as process,
    ):
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if line == "ready\n":
                os.kill(os.getpid(), signal.SIGINT)
    assert lines == ["ready", "told"]
    assert process.returncode == 0


def test_a_child_ends_with_its_parent():
    program = (
        "import sys; from recipes.stages import child\n"
        "with child([sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); "
        "time.sleep(60)']) as p:\n"
        "    print(p.stdout.readline(), end='', flush=True); p.stdout.readline()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text():
            break
        time.sleep(0.05)
    else:
        pytest.fail("the child lives on")
