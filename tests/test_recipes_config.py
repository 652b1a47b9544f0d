"""The config on its way to YAML and back, and what is said of a file that is wrong."""

from dataclasses import replace

import pytest

from recipes.config import RunConfig, differences, flags, from_yaml, nearest, to_yaml
from recipes.presets import PRESETS
from rollouts.placement import Inline, Ray
from rollouts.prompts import PromptConfig
from rollouts.tasks.arithmetic import Arithmetic
from rollouts.tasks.countdown import Countdown
from rollouts.tasks.dataset import Dataset
from rollouts.tasks.mixture import Mixture

MIXTURE = Mixture(
    tasks=(
        Arithmetic(add_max=9, operations=("add",)),
        Countdown(num_numbers=4),
        Dataset(path="a/b"),
    ),
    weights=(1.0, 2.5, 3.0),
    starts=(0, 1300, 0),
)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_reads_back_as_itself(name: str):
    config = PRESETS[name]()
    again = from_yaml(to_yaml(config), "config.yaml")
    assert again == config
    assert type(again.train.max_tokens[0]) is tuple  # frozen and hashable, not YAML's lists
    assert to_yaml(again) == to_yaml(config)


@pytest.mark.parametrize("task", [MIXTURE, Dataset(path="a.jsonl", id_column="id"), Countdown()])
def test_every_task_reads_back_as_itself(task):
    config = RunConfig(
        task=task, prompts=PromptConfig(chat_template_kwargs={"tools": ["a"], "on": False})
    )
    again = from_yaml(to_yaml(config), "config.yaml")
    assert again == config
    assert type(again.task) is type(task)
    hash(again.task)  # tasks cache their problems under themselves


def test_fields_left_out_have_their_defaults():
    config = from_yaml("{train: {num_rounds: 3}, task: {kind: arithmetic, add_max: 5}}", "f")
    default = RunConfig()
    expected = replace(
        default, train=replace(default.train, num_rounds=3), task=Arithmetic(add_max=5)
    )
    assert config == expected


def test_a_number_in_scientific_notation_needs_no_decimal_point():
    # YAML 1.1 reads 1e-5 as a text and 1.0e-5 as a number.
    config = from_yaml("optimizer: {learning_rate: 1e-5, betas: [9e-1, 0.95]}", "f")
    assert config.optimizer.learning_rate == 1e-5
    assert config.optimizer.betas == (0.9, 0.95)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trian: {}", "f.yaml: unknown field 'trian'; did you mean 'train'?"),
        (
            "train: {num_round: 3}",
            "f.yaml: unknown field 'train.num_round'; did you mean 'train.num_rounds'?",
        ),
        ("train: {num_rounds: 3.5}", "f.yaml: field 'train.num_rounds' is 3.5; int is needed"),
        ("train: 5", "f.yaml: field 'train' is 5; TrainConfig is needed"),
        (
            "control: shuffled",
            "f.yaml: field 'control' is 'shuffled'; Literal['none', 'shuffled_rewards'] is needed",
        ),
        (
            "optimizer: {learning_rate: fast}",
            "f.yaml: field 'optimizer.learning_rate' is 'fast'; float is needed",
        ),
        (
            "train: {max_tokens: 64}",
            "f.yaml: field 'train.max_tokens' is 64; tuple[tuple[int, int], ...] is needed",
        ),
        ("stop_after: 5", "f.yaml: field 'stop_after' is 5; str | None is needed"),
        (
            "task: {kind: arithmetik}",
            "f.yaml: task.kind is 'arithmetik'; one of arithmetic, countdown, steps, gsm8k, competition, dataset, general, instructions, human_eval, mbpp, programs, reasoning_gym, verifiers, mixture is "
            "meant, perhaps arithmetic: write it as {kind: arithmetic}",
        ),
        (
            "task: countdown",
            "f.yaml: task.kind is 'countdown'; one of arithmetic, countdown, steps, gsm8k, competition, dataset, general, instructions, human_eval, mbpp, programs, reasoning_gym, verifiers, mixture is "
            "meant, perhaps countdown: write it as {kind: countdown}",
        ),
        ("task: {kind: dataset}", "f.yaml: task: field 'path' is missing"),
        (
            "task: {kind: arithmetic, add_max: x}",
            "f.yaml: task: field 'add_max' is 'x'; int is needed",
        ),
        (
            "task: {kind: countdown, num_numbers: 7}",
            "f.yaml: task: num_numbers is 7; set it to 3 or 4",
        ),
        (
            "task: {kind: mixture, weights: [1], tasks: [{kind: dataset, pat: x}]}",
            "f.yaml: task.tasks[0]: unknown field 'pat'; did you mean 'path'?",
        ),
        ("5", "f.yaml holds no fields; write it as the config.yaml of a run folder"),
    ],
)
def test_a_wrong_file_is_refused_with_the_field(text: str, message: str):
    with pytest.raises(ValueError) as caught:
        from_yaml(text, "f.yaml")
    assert str(caught.value) == message


def test_a_file_that_is_no_yaml_is_refused_with_the_line():
    with pytest.raises(ValueError, match=r"^f.yaml, line 2: no YAML \(expected the node"):
        from_yaml("train:\n  [", "f.yaml")


def test_a_field_far_from_all_is_answered_with_the_list():
    with pytest.raises(ValueError, match="unknown field 'zzz'; it has model, task, reward"):
        from_yaml("zzz: 1", "f")


def test_differences_name_the_changed_fields_and_both_values():
    config = PRESETS["quickstart"]()
    assert differences(config, config) == []
    changed = replace(
        config, train=replace(config.train, num_rounds=41), optimizer=replace(config.optimizer)
    )
    was = config.train.num_rounds
    assert differences(config, changed) == [f"train.num_rounds: {was}, 41"]
    assert differences(changed, config) == [f"train.num_rounds: 41, {was}"]
    other = replace(config, task=replace(config.task, add_max=7), model="m")
    assert [line.partition(":")[0] for line in differences(config, other)] == [
        "model",
        "task.add_max",
    ]


def test_differences_of_another_task_and_of_a_mixture():
    one, other = RunConfig(task=Arithmetic()), RunConfig(task=Countdown())
    found = differences(one, other)
    assert "task.kind: 'arithmetic', 'countdown'" in found
    assert "task.num_problems: None, 4096" in found
    weighed = RunConfig(task=replace(MIXTURE, weights=(1.0, 2.5, 4.0)))
    assert differences(RunConfig(task=MIXTURE), weighed) == [
        "task.weights: [1.0, 2.5, 3.0], [1.0, 2.5, 4.0]"
    ]


def test_fields_that_change_no_number_may_differ():
    config = RunConfig()
    free = replace(config, stop_after="1h", train=replace(config.train, keep_last=9))
    assert differences(config, free) == []
    workers = replace(config, rollouts=Ray(num_workers=2, transfer="gloo"))
    fewer = replace(config, rollouts=Ray(num_workers=1, transfer="host", publish_s=9, start_s=9))
    assert differences(workers, fewer) == []  # what the line of a dead crew advises


def test_flags_are_what_the_command_line_takes():
    found = flags(RunConfig())
    assert {"--model", "--train.num-rounds", "--task.add-max", "--loss.clip-high"} <= set(found)
    assert {"--best-prompt", "--no-best-prompt", "--engine.no-compile"} <= set(found)
    assert nearest("--train.num-round", found) == "--train.num-rounds"
    assert nearest("--zzzzzzzz", found) is None


def test_a_run_goes_on_with_other_workers_elsewhere():
    config = RunConfig(rollouts=Ray(num_workers=4, address="10.0.0.1:6379", cores=2))
    moved = replace(config, rollouts=Ray(num_workers=3, address="10.0.0.2:6379", cores=2))
    assert differences(config, moved) == []
    fewer = replace(config, rollouts=replace(config.rollouts, cores=1))  # another order of sums
    assert differences(config, fewer) == ["rollouts.cores: 2, 1"]
    assert differences(config, replace(config, rollouts=Inline())) != []
