"""The command line: preset, files, fields in any order, and one line for every mistake."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from recipes import cli
from recipes.cli import Command, guarded, read_config, split_command
from recipes.config import TASKS, RunConfig, from_yaml, to_yaml
from recipes.presets import PRESETS
from rollouts.placement import Ray
from rollouts.tasks.arithmetic import Arithmetic
from rollouts.tasks.countdown import Countdown
from rollouts.tasks.dataset import Dataset
from rollouts.tasks.mixture import Mixture

ROOT = Path(__file__).resolve().parent.parent
MIXTURE = Mixture(tasks=(Arithmetic(add_max=3), Countdown()), weights=(1.0, 2.0))


def command(line: str) -> Command:
    return split_command(line.split(), "quickstart", "quickstart", list(PRESETS))


def config_of(line: str) -> RunConfig:
    return read_config(command(line))


def refusal(line: str) -> str:
    with pytest.raises(ValueError) as caught:
        config_of(line)
    return str(caught.value)


def test_preset_and_folders_are_taken_wherever_they_stand():
    found = command("r1_zero_tiny --model m --run-folder=a/b --config c.yaml --seed 3")
    assert (found.preset, found.run_folder, found.config) == (
        "r1_zero_tiny",
        Path("a/b"),
        Path("c.yaml"),
    )
    assert found.fields == ["--model", "m", "--seed", "3"]
    assert found.program == "python -m recipes.quickstart"
    found = command("--resume runs/x")
    assert (found.preset, found.resume, found.fields) == ("quickstart", Path("runs/x"), [])
    assert command("task:countdown").preset == "quickstart"
    assert str(command("").run_folder).startswith("runs/quickstart-")


def test_without_fields_a_preset_is_itself():
    for name, preset in PRESETS.items():
        config = config_of(name)
        assert config == preset()
        assert type(config) is RunConfig


def test_a_field_changes_itself_alone():
    config = config_of("--train.num-rounds 5 --train.max-tokens 0 8 20 16 --no-best-prompt")
    preset = PRESETS["quickstart"]()
    train = replace(preset.train, num_rounds=5, max_tokens=((0, 8), (20, 16)))
    assert config == replace(preset, train=train, best_prompt=False)


@pytest.mark.parametrize(
    "line",
    [
        "task:dataset --task.path F --train.num-rounds 3",
        "--train.num-rounds 3 task:dataset --task.path F",
        "--task.path F --train.num-rounds 3 task:dataset",
        "--task.path=F task:dataset --train.num_rounds=3",
    ],
)
def test_a_task_and_its_fields_stand_in_any_order(line: str):
    config = config_of(line)
    assert (config.task, config.train.num_rounds) == (Dataset(path="F"), 3)


def test_a_task_keeps_what_the_preset_says_of_it_and_another_has_its_defaults():
    preset = PRESETS["quickstart"]().task
    assert config_of("task:arithmetic --task.add-max 9").task == replace(preset, add_max=9)
    assert config_of("--task.add-max 9").task == replace(preset, add_max=9)
    assert config_of("task:countdown").task == Countdown()


def test_a_mixture_comes_from_a_file_and_gives_way_to_a_task_on_the_command_line(tmp_path: Path):
    file = tmp_path / "mixture.yaml"
    file.write_text(to_yaml(RunConfig(task=MIXTURE)))
    assert config_of(f"--config {file}") == RunConfig(task=MIXTURE)
    assert config_of(f"--config {file} --model m") == RunConfig(task=MIXTURE, model="m")
    assert config_of(f"--config {file} task:arithmetic --task.add-max 7").task == Arithmetic(
        add_max=7
    )
    assert refusal(f"--config {file} --task.add-max 7") == (
        "--task.add-max: the tasks of a mixture are set in the file that names them"
    )


HELP = "; see python -m recipes.quickstart --help"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--train.num-round 5", "unknown field --train.num-round; did you mean --train.num-rounds?"),
        ("--train.num_round=5", "unknown field --train.num-round; did you mean --train.num-rounds?"),
        ("--no-best-promt", "unknown field --no-best-promt; did you mean --no-best-prompt?"),
        ("--resum runs/x", "unknown field --resum; did you mean --resume?"),
        ("--zzzzzzzzzz 5", "unknown field --zzzzzzzzzz; --help lists all"),
        (
            "task:countdown --task.max-numbers 5",
            "unknown field --task.max-numbers; did you mean --task.max-number?",
        ),
        (
            "task:coutdown",
            "unknown task 'task:coutdown'; did you mean 'task:countdown'? Tasks are arithmetic, "
            "countdown, steps, gsm8k, competition, dataset, general, instructions, human_eval, mbpp, programs, reasoning_gym, verifiers, mixture",
        ),
        (
            "task:mixture",
            "a mixture is given in a file only: --config FILE, as in a run's config.yaml",
        ),
        (
            "task:arithmetic task:countdown",
            "task:countdown: a run has one task, and another was named before",
        ),
        (
            "r1_zro",
            "unknown preset 'r1_zro'; did you mean 'r1_zero'? Presets are quickstart, "
            "r1_zero_tiny, grpo, dr_grpo, dapo, gspo, cispo, sapo, dppo, maxrl, rloo, lite_ppo, "
            "r1_zero, qwen2.5-32b, qwen2.5-7b, qwen2.5-7b-ray, qwen2.5-1.5b, qwen2.5-0.5b, t4",
        ),
        (
            "--best-prompt False",
            "'False' belongs to no field; fields are given as --name value, switches as --name or "
            "--no-name",
        ),
        (
            "--prompts.chat-template-kwargs a b",
            "--prompts.chat-template-kwargs cannot be given here: write it into a file for --config",
        ),
        ("--config a --resume b", "give --config or --resume, not both: a resumed run has its own config"),
        ("--run-folder", "--run-folder needs a value"),
        (
            "--config /absent.yaml",
            "/absent.yaml does not exist: name a config.yaml, or the folder of a run",
        ),
        (
            "--train.num-rounds five",
            "Error parsing --train.num-rounds: invalid literal for int() with base 10: 'five'" + HELP,
        ),
        (
            "--control shuffled",
            "invalid choice 'shuffled' for argument '--control'. Expected one of ('none', "
            "'shuffled_rewards')." + HELP,
        ),
        (
            "task:dataset",
            "Missing from python -m recipes.quickstart task:dataset: --task.path STR A .jsonl, "
            ".json, .csv or .parquet file, a folder with one a split, or a Hugging Face id. "
            "(required)" + HELP,
        ),
        (
            "--task.operations add div",
            "Error parsing task: unknown operation 'div'; did you mean 'add'? Operations are add, "
            "subtract, multiply" + HELP,
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_the_nearest_name(line: str, message: str):
    assert refusal(line) == message


def test_a_file_given_twice_is_refused(tmp_path: Path):
    file = tmp_path / "c.yaml"
    file.write_text(to_yaml(RunConfig()))
    assert refusal(f"--config {file} --config {file}") == "--config is given twice"


def test_help_lists_fields_and_tasks_under_the_name_of_the_recipe(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stop:
        config_of("r1_zero --help")
    assert stop.value.code in (0, None)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith("usage: python -m recipes.quickstart ")
    assert "Defaults are those of the preset r1_zero" in printed
    kinds = [f"task:{kind.replace('_', '-')}" for kind in TASKS if kind != "mixture"]
    for choice in (*kinds, "rollouts:inline", "rollouts:ray"):
        assert f"• {choice} " in printed, choice
    for name in ("--train.num-rounds INT", "(default: 650)", "--task.max-number", "--resume"):
        assert name in printed


@pytest.mark.parametrize(
    "words",
    [
        "task:countdown rollouts:ray --rollouts.num-workers 3 --train.max-staleness 1",
        "--rollouts.num-workers 3 --train.max-staleness 1 rollouts:ray task:countdown",
    ],
)
def test_where_engines_are_and_the_task_are_named_in_any_order(words: str):
    config = config_of(f"r1_zero {words}")
    assert config.rollouts == Ray(num_workers=3)
    assert isinstance(config.task, Countdown)
    assert config.train.max_staleness == 1
    assert from_yaml(to_yaml(config), "c.yaml") == config


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(replace(PRESETS["quickstart"](), model="m")))
    return folder


def test_a_resumed_run_keeps_its_config_and_names_what_would_differ(run_folder: Path):
    config = config_of(f"--resume {run_folder}")
    assert config.model == "m"
    # The preset named beside it says nothing.
    assert config_of(f"r1_zero --resume {run_folder}") == config
    message = refusal(f"--resume {run_folder} --train.group-size 8 --model n")
    was = config.train.group_size
    assert message == (
        "a resumed run keeps its config; these fields differ (run, asked): model: 'm', 'n'; "
        f"train.group_size: {was}, 8. Leave them out, or start a new run"
    )
    free = config_of(f"--resume {run_folder} --stop-after 1h --train.keep-last 5")
    assert (free.stop_after, free.train.keep_last) == ("1h", 5)


def test_what_is_no_run_cannot_be_resumed(tmp_path: Path):
    assert refusal(f"--resume {tmp_path}") == (
        f"{tmp_path}/config.yaml does not exist: name a config.yaml, or the folder of a run"
    )


def raising(error: BaseException) -> Any:
    def action() -> None:
        raise error

    return action


NO_ROOM = "the disk is full{}: free some space, then --resume; the last checkpoint is whole"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("a  line\nbroken"), 2, "error: a line broken"),
        (ValueError("\x1b[2J\u202e\x07é"), 2, "error: \\x1b[2J\\u202e\\x07é"),
        (OSError(errno.ENOSPC, "No space", "f"), 2, "error: " + NO_ROOM.format(" (f)")),
        (OSError(errno.EDQUOT, "Quota"), 2, "error: " + NO_ROOM.format("")),
        (
            SafetensorError("Error while serializing: I/O error: No space left (os error 28)"),
            2,
            "error: " + NO_ROOM.format(""),
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/runs"),
            2,
            "error: Permission denied (/runs): choose another --run-folder",
        ),
        (KeyboardInterrupt(), 130, "stopped at once; what was written is whole"),
    ],
)
def test_what_a_person_can_mend_is_one_line(error, code, line, capsys: pytest.CaptureFixture):
    assert guarded(raising(error)) == code
    assert capsys.readouterr().err == line + "\n"


@pytest.mark.parametrize(
    "error",
    [
        AssertionError("ours"),
        OSError(errno.EIO, "I/O error"),
        RuntimeError("not of the disk (os error 28)"),
        SafetensorError("header too small"),
    ],
)
def test_an_error_of_our_own_keeps_its_traceback(error: Exception):
    with pytest.raises(type(error)):
        guarded(raising(error))


def test_a_mistake_that_the_first_process_has_not_made_is_told_too(monkeypatch, capsys):
    waited = []
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(cli, "_met", lambda: False)
    monkeypatch.setattr(cli.time, "sleep", lambda s: waited.append((s, capsys.readouterr().err)))
    assert guarded(raising(ValueError("no such folder here"))) == 2
    assert waited == [(10.0, "")]  # the first speaks, and the launcher ends this one meanwhile
    assert capsys.readouterr().err == "error: process 1: no such folder here\n"


@pytest.mark.parametrize(("code", "left"), [(0, [1]), (2, [])])
def test_a_process_parts_from_the_others_if_all_went_well(monkeypatch, code, left):
    found = []
    monkeypatch.setattr(cli, "_met", lambda: True)
    monkeypatch.setattr("rl.ranks.leave", lambda: found.append(1))
    with pytest.raises(SystemExit) as ended:
        cli.end(code)
    assert (ended.value.code, found) == (code, left)


def test_nothing_wrong_is_code_0():
    assert guarded(lambda: None) == 0


def test_a_process_ends_with_code_2_and_one_line(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "recipes.r1_zero", "--train.num-round", "5"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert (
        done.stderr == "error: unknown field --train.num-round; did you mean --train.num-rounds?\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_two_recipes_have_means_the_recipes_own():
    from recipes.presets import RECIPES

    own = {
        recipe: read_config(split_command(["dapo"], recipe, "dapo", list(known)), known)
        for recipe, known in RECIPES.items()
    }
    assert own["r1_zero"].model == "Qwen/Qwen2.5-32B"
    assert own["quickstart"].model == "smollm2-135m-instruct"
    assert own["r1_zero"].loss == own["quickstart"].loss


def test_help_tells_what_is_known_of_the_preset(capsys: pytest.CaptureFixture[str]):
    from recipes.cli import start

    with pytest.raises(SystemExit):
        start("r1_zero", "r1_zero", ["t4", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "hardware: one T4 with 16 GB" in shown
    assert "state: never run here" in shown
