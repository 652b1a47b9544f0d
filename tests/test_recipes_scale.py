"""docs/scale.md: its scripts parse, every option that it names exists, its figures are the planner's."""

import re
import shlex
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from torch.distributed.run import get_args_parser

from recipes.config import flags
from recipes.plan import planned
from recipes.presets import R1_ZERO_PRESETS
from rl.memory import peak
from rollouts.placement import Ray

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "scale.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
SCRIPTS = [text for kind, text in BLOCKS if kind in ("", "bash")]
COMMAND_LINE = {"--run-folder", "--resume", "--config", "--plan"}
"""Options of the command line that are no fields."""
GIB = 2**30


def commands(program: str) -> list[list[str]]:
    """The words after a program's name, of every command of the page that begins with it."""
    lines = "\n".join(SCRIPTS).replace("\\\n", " ").splitlines()
    found = [line.partition(f"{program} ")[2] for line in lines if f"{program} " in line]
    return [shlex.split(re.split(r"[;|&>)]", line)[0], comments=True) for line in found]


def options(words: list[str]) -> set[str]:
    return {word for word in words if word.startswith("--")}


def test_there_is_something_to_check():
    assert len(SCRIPTS) >= 9
    assert [kind for kind, _ in BLOCKS].count("yaml") == 1
    assert len(commands("ray start")) >= 7
    assert len(commands("torchrun")) >= 5


@pytest.mark.parametrize("text", SCRIPTS)
def test_a_script_parses(text: str):
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_batch_script_begins_as_slurm_reads_it():
    batch = [text for text in SCRIPTS if "#SBATCH" in text]
    assert len(batch) == 2
    for text in batch:
        first, *rest = text.splitlines()
        assert first == "#!/bin/bash"
        directives = [line for line in rest if line.startswith("#SBATCH")]
        assert rest[: len(directives)] == directives  # Slurm stops at the first command
        assert {"--nodes", "--gpus-per-node", "--ntasks-per-node", "--time"} <= options(
            shlex.split(" ".join(directives), comments=False)
        )


def test_every_field_that_is_named_exists():
    known = set(flags(replace(R1_ZERO_PRESETS["quickstart"](), rollouts=Ray())))
    named = {f"--{name}" for name in re.findall(r"(?<![\w-])--((?:[a-z]+\.)[a-z-]+)", PAGE)}
    assert len(named) >= 5
    assert named <= known
    for words in commands("-m recipes.r1_zero"):
        assert options(words) <= known | COMMAND_LINE, words
    # Of the table of fields, and in running text: `rollouts.cores`.
    plain = set(re.findall(r"`((?:rollouts|train|engine|loss|policy)\.[a-z_-]+)`", PAGE))
    assert {f"--{name.replace('_', '-')}" for name in plain} <= known


def test_every_preset_that_is_named_exists():
    named = set(re.findall(r"recipes\.r1_zero ([a-z][\w.-]*\w)", PAGE))
    named |= set(re.findall(r"(?<![\w/.-])(qwen2\.5-\d[\w.]*b(?:-\w+)?)", PAGE))
    assert {"qwen2.5-7b", "qwen2.5-7b-ray", "qwen2.5-32b", "r1_zero_tiny"} <= named
    assert named <= set(R1_ZERO_PRESETS)


def test_torchrun_takes_what_is_given():
    known = {option for action in get_args_parser()._actions for option in action.option_strings}
    for words in commands("torchrun"):
        own = words[: words.index("-m")] if "-m" in words else words
        assert options(own) <= known, words


def test_ray_takes_what_is_given():
    scripts = pytest.importorskip("ray.scripts.scripts")
    for name in ("start", "status", "get-auth-token"):
        known = {option for each in scripts.cli.commands[name].params for option in each.opts}
        found = commands(f"ray {name}")
        assert found
        for words in found:
            assert options(words) <= known, words
    ports = re.findall(r"`(--[a-z-]+-port)`", PAGE)
    start = {option for each in scripts.cli.commands["start"].params for option in each.opts}
    assert len(ports) >= 7
    assert set(ports) <= start


def test_the_manifest_is_a_ray_job_of_this_ray():
    (text,) = [text for kind, text in BLOCKS if kind == "yaml"]
    job = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    cluster, words = spec["rayClusterSpec"], shlex.split(spec["entrypoint"])
    (wanted,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]["ray"]
    assert cluster["rayVersion"] in Requirement(wanted).specifier
    assert words[:4] == ["torchrun", "--nproc-per-node", "4", "-m"]
    head, (group,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    pods = [each["template"]["spec"] for each in (head, group)]
    gpus = [int(pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]) for pod in pods]
    preset = R1_ZERO_PRESETS["qwen2.5-7b-ray"]()
    # The head's GPUs train and Ray does not hand them out; each worker has one of the others.
    assert (gpus, head["rayStartParams"]["num-gpus"]) == ([4, 4], "0")
    assert preset.rollouts.num_workers == group["replicas"] * gpus[1]
    for pod in pods:
        mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


ROWS = {
    "r1_zero_tiny rollouts:ray --rollouts.num-workers 2": "24GiB",
    "qwen2.5-1.5b": "h100",
    "qwen2.5-1.5b rollouts:ray --train.max-staleness 1 --engine.gpu-memory-frac 0.9": "2xh100",
    "qwen2.5-7b": "8xh100",
    "qwen2.5-7b-ray": "8xh100",
    "qwen2.5-7b-ray --rollouts.num-workers 12": "2x8xh100",
    "qwen2.5-32b rollouts:ray --rollouts.num-workers 10 --engine.tensor-parallel 4 "
    "--train.max-staleness 1 --engine.gpu-memory-frac 0.9 --optimizer.offload": "8x8xh100",
    "qwen2.5-32b": "8x8xb200",
}
"""Commands of the table, and the device that its words mean."""
MEANS = {"qwen2.5-1.5b": (400, 700), "qwen2.5-7b-ray": (500, 1_500)}
"""Tokens of prompt and completion that the preset's facts assume."""


def rows() -> dict[str, list[str]]:
    table = PAGE.partition("## Which hardware")[2].partition("\n\nThe trainers")[0]
    cells = [line.strip("| ").split(" | ") for line in table.splitlines() if ": `" in line]
    return {row[0].partition("`")[2].rstrip("`"): row[1:] for row in cells}


@pytest.mark.parametrize("command", ROWS)
def test_the_figures_are_the_planners(command: str):
    trainers, _, memory, hours = rows()[command]
    words = [*command.split(), "--device", ROWS[command]]
    name = words[0]
    if name in MEANS and len(command.split()) > 1:
        prompt, mean = MEANS[name]
        words += ["--prompt-tokens", str(prompt), "--mean-tokens", str(mean)]
    plan = planned(words)
    assert plan.verdict == "fits"
    assert plan.trainers == int(trainers.partition(",")[0])
    if hours == "minutes":
        assert memory == f"{peak(plan.memory)[1] / GIB:.1f} of memory"
        return
    assert memory == f"{peak(plan.memory)[1] / GIB:.0f}"
    assert hours == (f"{plan.hours:.1f}" if plan.hours < 10 else f"{plan.hours:.0f}")


def test_every_row_is_checked():
    assert set(rows()) == set(ROWS)


def test_what_large_models_need_is_the_planners_too():
    words = "qwen2.5-32b --device 8xh100 --optimizer.offload --engine.tensor-parallel 8"
    found = planned(words.split()).memory
    total = {phase: sum(parts.values()) / GIB for phase, parts in found.items()}
    assert f"| {total['update']:.0f} |" in PAGE
    assert f"layers that compute | {total['gate']:.0f} |" in PAGE
    assert max(total.values()) < 79.6
    large = planned(["r1_zero"]).memory
    gathered, activations = (large["update"][name] / GIB for name in ("gathered", "activations"))
    assert f"| {gathered:.0f} GiB of each |" in PAGE
    assert f"| {activations:.0f} GiB of each |" in PAGE
    states = ("masters", "gradients", "moments", "reference")
    assert f"| {sum(large['update'][name] for name in states) / GIB:.0f} GiB of each |" in PAGE
    assert f"| {large['gate']['float32 copies'] / GIB:,.0f} GiB of each |" in PAGE
