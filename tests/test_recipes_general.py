"""Preferences in a run: what is refused, what is built, and a whole run that is killed and resumed."""

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.kill import differences
from recipes.cli import guarded, start
from recipes.config import PreferenceConfig, RunConfig, from_yaml, to_yaml
from recipes.config import differences as config_differences
from recipes.general import late_start_fault, preference_fault, with_preferences
from recipes.preflight import check_config
from recipes.scoring import pooled, reward_of
from rewards.judge import JudgeConfig
from rewards.pool import RewardPool, ScoringConfig
from rewards.problem import Response
from rewards.routing import Routed
from rewards.scorer import Inline
from rl.reward_model import RewardModelConfig
from rollouts.records import read_groups
from rollouts.tasks.arithmetic import Arithmetic
from rollouts.tasks.general import General
from rollouts.tasks.mixture import Mixture
from tests.conftest import write_reward_model
from tests.judge_endpoint import KEY, endpoint, fenced, safe
from tests.test_recipes_resume import KILLER, run

CHAT = General(path="chat.jsonl", reference_column="reply")
MIXTURE = Mixture(tasks=(Arithmetic(), CHAT), weights=(1.0, 1.0), starts=(0, 4))
MODELS = PreferenceConfig(
    helpfulness="reward_model",
    helpfulness_model="a/b",
    safety="judge",
    judge=JudgeConfig(model="j"),
)
CONFIG = RunConfig(task=MIXTURE, preference=MODELS)


def write_chat(folder: Path) -> Path:
    path = folder / "chat.jsonl"
    rows = [{"prompt": f"Say {n}.", "reply": f"{n}"} for n in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        (CHAT, {"helpfulness": "none", "safety": "none"}, "preference.helpfulness is none: set it to"),
        (replace(CHAT, judged="safety"), {"safety": "none"}, "but preference.safety is none"),
        (replace(CHAT, judged="safety"), {}, "preference.helpfulness is reward_model, but no task of"),
        (Arithmetic(), {}, "preference.helpfulness is reward_model, but no task of the run is judged"),
        (CHAT, {"helpfulness_model": ""}, "but preference.helpfulness_model names none"),
        (CHAT, {"judge": JudgeConfig()}, "preference.safety is judge, but preference.judge.model na"),
        (General(path="chat.jsonl"), {"helpfulness": "judge"}, "task chat names none: set its refere"),
    ],
)  # fmt: skip
def test_preferences_that_cannot_score_are_refused(task, values, message):
    config = replace(CONFIG, task=task, preference=replace(MODELS, **values))
    assert message in preference_fault(config)
    with pytest.raises(ValueError) as caught:
        check_config(config)
    assert message in str(caught.value)


def test_preferences_that_fit_are_not():
    assert preference_fault(CONFIG) is None
    assert preference_fault(RunConfig()) is None
    one = replace(CONFIG, task=CHAT, preference=replace(MODELS, safety="none"))
    assert preference_fault(one) is None


def test_a_task_that_would_never_start_is_refused():
    # 40 rounds of one update: the last starts at update 39.
    assert late_start_fault(CONFIG) is None
    assert late_start_fault(replace(CONFIG, task=replace(MIXTURE, starts=(0, 39)))) is None
    late = replace(CONFIG, task=replace(MIXTURE, starts=(0, 40)))
    assert late_start_fault(late) == (
        "the task chat starts at update 40, but the run's last round starts at update 39: start it "
        "earlier, or leave it out"
    )
    with pytest.raises(ValueError, match="the task chat starts at update 40"):
        check_config(late)


def test_a_config_reads_back_and_its_judge_may_move():
    config = replace(
        CONFIG, preference=replace(MODELS, reward_models=RewardModelConfig(scale="none"))
    )
    assert from_yaml(to_yaml(config), "f") == config
    moved = replace(MODELS, judge=replace(MODELS.judge, url_variable="OTHER", concurrency=1))
    assert config_differences(CONFIG, replace(CONFIG, preference=moved)) == []
    other = replace(MODELS, judge=replace(MODELS.judge, model="k"))
    assert config_differences(CONFIG, replace(CONFIG, preference=other)) == [
        "preference.judge.model: 'j', 'k'"
    ]


def polite(message: str) -> str:
    """A judge of safety that decides by the text alone."""
    return safe(len(fenced(message, "response")) % 2 == 0)


def test_what_a_run_is_scored_by(tmp_path, monkeypatch):
    model = write_reward_model(tmp_path / "reward")
    chat = replace(CHAT, path=str(write_chat(tmp_path)))
    preference = replace(
        MODELS,
        helpfulness_model=str(model),
        reward_models=RewardModelConfig(dtype="float32"),
    )
    config = replace(
        CONFIG,
        task=replace(MIXTURE, tasks=(Arithmetic(), chat)),
        reward="r1_zero",
        preference=preference,
        scoring=ScoringConfig(workers=1),
    )
    problems = config.task.problems("train")
    sums, said = problems[0], problems[-1]
    good = Response(text="<think>a</think><answer>2</answer>")
    with (
        endpoint(monkeypatch, polite) as server,
        pooled(config, Inline(reward_of(config)), problems) as score,
    ):
        assert len(server.bodies) == 1  # tried on one general problem
        assert isinstance(score, Routed) and isinstance(score.rules, RewardPool)
        assert score.takes_group
        assert score(sums, good).parts == {"accuracy": 1.0, "format": 1.0}
        score_of_chat = score(said, good)
        assert list(score_of_chat.parts) == ["format", "helpfulness", "safety"]
        assert 0.0 < score_of_chat.parts["helpfulness"] < 1.0
        other_thought = Response(text="<think>b, at length</think><answer>2</answer>")
        helpful = [score(said, r).parts["helpfulness"] for r in (good, other_thought)]
        assert helpful == [score_of_chat.parts["helpfulness"]] * 2  # the summary is the same
        assert score_of_chat.parts["safety"] == float(len(good.text) % 2 == 0)
        assert score_of_chat.value == pytest.approx(sum(score_of_chat.parts.values()))
        sent = server.bodies[1]["messages"][1]["content"]
        assert fenced(sent, "response") == good.text  # safety reads the thinking too


def test_prompts_of_one_kind_are_judged_by_it_alone(tmp_path, monkeypatch):
    both = replace(CHAT, path=str(write_chat(tmp_path)))
    tasks = (Arithmetic(), both, replace(both, judged="safety", name="harm"))
    preference = replace(MODELS, helpfulness="judge", helpfulness_model="")
    task = Mixture(tasks=tasks, weights=(1.0,) * 3)
    config = replace(CONFIG, task=task, preference=preference)
    with (
        endpoint(monkeypatch, polite),
        with_preferences(config, Inline(reward_of(config))) as score,
    ):
        assert {name: list(parts) for name, parts in score.preferences.items()} == {
            "chat": ["helpfulness", "safety"],
            "harm": ["safety"],
        }
        assert not score.takes_group  # rules and judges take one response at a time


def test_without_general_tasks_rules_are_alone():
    rules = Inline(reward_of(RunConfig()))
    with with_preferences(RunConfig(), rules) as score:
        assert score is rules


def config_of(folder: Path, model: Path) -> Path:
    """A run's file: four rounds, general prompts from the third on."""
    chat = replace(CHAT, path=str(write_chat(folder)))
    quick = {"num_problems": 2, "num_samples": 2, "max_tokens": 16}
    values = {
        "model": str(model),
        "best_prompt": False,
        "scoring": {"workers": 1},
        "train": {
            "num_rounds": 4, "problems_per_round": 4, "group_size": 4, "updates_per_round": 2,
            "max_tokens": [[0, 16]], "save_every": 1,
        },
        "test": {"split": "test", **quick},
        "validation": quick,
        "task": {
            "kind": "mixture",
            "tasks": [
                {"kind": "arithmetic", "add_max": 9, "subtract_max": 9},
                {"kind": "general", "path": chat.path, "reference_column": "reply"},
            ],
            "weights": [1.0, 3.0],
            "starts": [0, 4],
        },
        "preference": {
            "helpfulness": "reward_model",
            "helpfulness_model": str(write_reward_model(folder / "reward")),
            "safety": "judge",
            "judge": {"model": "j", "key_variable": "JUDGE_KEY"},
        },
    }  # fmt: skip
    path = folder / "run.yaml"
    path.write_text(json.dumps(values))
    return path


def recipe(*words: object) -> list[str]:
    return [sys.executable, "-m", "recipes.r1_zero", *map(str, words)]


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory):
    """A run from beginning to end: its file, its folder, what it printed, and its judge."""
    folder = tmp_path_factory.mktemp("general")
    config = config_of(folder, tiny_model)
    with pytest.MonkeyPatch.context() as patch, endpoint(patch, polite) as server:
        done = run(recipe("--config", config, "--run-folder", folder / "whole"))
        assert done.returncode == 0, done.stderr[-3000:]
        yield config, folder / "whole", done.stdout + done.stderr, server


def test_general_prompts_come_when_they_start_and_are_scored_by_preference(whole):
    _, folder, _, _ = whole
    rounds = [read_groups(path) for path in sorted((folder / "rollouts").glob("round-*"))]
    sources = [{group.problem.source.partition("/")[0] for group in groups} for groups in rounds]
    assert sources[:2] == [{"arithmetic"}] * 2  # updates 0 to 3
    assert len(sources) == 4 and all("chat" in source for source in sources[2:])
    for group in (group for groups in rounds for group in groups):
        general = group.problem.source == "chat"
        for rollout in group.rollouts:
            parts = {"helpfulness", "safety"} if general else {"accuracy"}
            assert set(rollout.score.parts) == parts


def test_neither_url_nor_key_is_in_the_run_folder_or_on_the_screen(whole):
    _, folder, printed, server = whole
    assert len(server.bodies) > 8
    for secret in (server.url, f":{server.server.server_port}", KEY):
        assert secret not in printed
        for path in folder.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_a_killed_run_with_preferences_equals_one_that_was_not(whole, tmp_path):
    config, folder, _, _ = whole
    words = recipe("--config", config, "--run-folder", tmp_path / "cut")
    killed = run([sys.executable, "-c", KILLER, *words[2:]], KILL_AT="update:3")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    resumed = run(recipe("--resume", tmp_path / "cut"))
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert differences(folder, tmp_path / "cut") == []


def test_a_judge_that_cannot_be_used_stops_the_start_with_one_line(
    tiny_model, tmp_path, monkeypatch, capsys
):
    words = [
        "--config",
        str(config_of(tmp_path, tiny_model)),
        "--run-folder",
        str(tmp_path / "run"),
    ]

    def started():
        code = guarded(lambda: start("r1_zero", "r1_zero", words))
        return code, capsys.readouterr().err.strip().splitlines()[-1]

    with endpoint(monkeypatch, 401):
        code, line = started()
    assert code == 2
    assert line.endswith(
        "the judge 'j' (its endpoint stands in $GROUPWISE_JUDGE_URL) cannot be used: "
        "AuthenticationError, HTTP status 401"
    )
    monkeypatch.delenv("GROUPWISE_JUDGE_URL")
    code, line = started()
    assert code == 2
    assert line.endswith("is 'GROUPWISE_JUDGE_URL', but this environment variable is not set")
    assert not (tmp_path / "run").exists()


def test_the_pages_example_is_a_run():
    page = (Path(__file__).parents[1] / "docs" / "preference.md").read_text()
    config = from_yaml(page.partition("```yaml\n")[2].partition("```")[0], "docs/preference.md")
    assert preference_fault(config) is None
    assert config.task.starts == (0, 1300)
    assert (config.preference.helpfulness, config.preference.safety) == ("reward_model", "judge")
