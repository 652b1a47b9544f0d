"""Single-turn environments of verifiers, from packages written here; all others are refused."""

import logging
import pickle
import signal
import sys

import pytest

from recipes.config import RunConfig, from_yaml, to_yaml
from recipes.preflight import check_config
from rewards.compose import r1_zero_reward
from rewards.pool import RewardPool, ScoringConfig
from rewards.problem import Response, Verdict
from rollouts.tasks import verifiers as tested
from rollouts.tasks.arithmetic import Arithmetic
from rollouts.tasks.mixture import Mixture
from rollouts.tasks.verifiers import Verifiers

SPLITS = ("train", "validation", "test")

SUMS = """
import verifiers as vf
from datasets import Dataset


def rows(numbers, missing=0, wrong=0):
    return Dataset.from_list([
        {
            "question": f"{i} + 1?",
            "answer": "" if i < missing else "none" if i < missing + wrong else str(i + 1),
            "info": {"fragile": i == 3, "words": ["a"]},
        }
        for i in numbers
    ])


def load_environment(num_rows=30, own_eval=False, **bad):
    parser = vf.XMLParser(["answer"])

    def right(completion, answer, **kwargs):
        said = parser.parse_answer(completion)
        return 1.0 if said == answer and said != "none" else 0.0

    async def short(completion, state, info):
        if "break" in completion[-1]["content"]:
            raise RuntimeError("cannot read \\x1b[2J")
        return 1.0 if len(completion[-1]["content"]) < 80 and info["words"] == ["a"] else 0.0

    return vf.SingleTurnEnv(
        dataset=rows(range(num_rows), **bad),
        eval_dataset=rows(range(100, 110)) if own_eval else None,
        system_prompt="Be brief.",
        parser=parser,
        rubric=vf.Rubric(funcs=[right, short], weights=[1.0, 0.25], parser=parser),
    )
"""

REFUSED = """
import verifiers as vf
from datasets import Dataset

DATA = Dataset.from_list([{"question": "1 + 1?", "answer": "2"}])


def one(completion, answer):
    return 1.0


def asks(completion, judge):
    return 1.0


def together(completions, answers):
    return [1.0 for _ in completions]


def use(x: int) -> int:
    "A tool."
    return x


class Turns(vf.MultiTurnEnv):
    async def env_response(self, messages, state, **kwargs):
        return []


class Steps(vf.SingleTurnEnv):
    async def get_prompt_messages(self, state):
        return []


def load_environment(kind="turns"):
    rubric = vf.Rubric(funcs=[one])
    if kind == "turns":
        return Turns(dataset=DATA, rubric=rubric)
    if kind == "tools":
        return vf.ToolEnv(tools=[use], dataset=DATA, rubric=rubric)
    if kind == "steps":
        return Steps(dataset=DATA, rubric=rubric)
    if kind == "judge":
        from openai import AsyncOpenAI

        rubric = vf.JudgeRubric(judge_client=AsyncOpenAI(api_key="none"))
    if kind == "asks":
        rubric = vf.Rubric(funcs=[one, asks])
    if kind == "together":
        rubric = vf.RubricGroup([rubric, vf.Rubric(funcs=[together])])
    if kind == "raises":
        raise OSError("no such\\nfile")
    if kind == "pictures":
        data = Dataset.from_list([{"prompt": [{"role": "user", "content": [{"type": "image"}]}]}])
        return vf.SingleTurnEnv(dataset=data, rubric=rubric)
    return vf.SingleTurnEnv(dataset=DATA, rubric=rubric)
"""

GYM = """
from verifiers.envs.integrations.reasoninggym_env import ReasoningGymEnv


def load_environment():
    return ReasoningGymEnv("gcd", num_train_examples=5, num_eval_examples=2)
"""


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Three installed environments; verifiers itself is not part of make setup, it is heavy."""
    package = pytest.importorskip("verifiers", reason="the extra verifiers is not installed")
    if not hasattr(package, "SingleTurnEnv"):
        pytest.skip("this verifiers has no SingleTurnEnv")
    for name, code in (("sums_env", SUMS), ("refused_env", REFUSED), ("gym_env", GYM)):
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("sums_env", "refused_env", "gym_env"):
        sys.modules.pop(name, None)
    tested._environment.cache_clear()
    tested._all_problems.cache_clear()


def everything(task):
    return [problem for split in SPLITS for problem in task.problems(split)]


def problem_with(task, number):
    return next(p for p in everything(task) if p.prompt[1]["content"] == f"{number} + 1?")


def test_rows_become_problems_with_what_the_rubric_reads(packages):
    task = Verifiers(environment="sums-env")
    problems = everything(task)
    assert len(problems) == 30
    problem = problem_with(task, 7)
    assert problem.prompt[0] == {"role": "system", "content": "Be brief."}
    assert problem.answer == (
        '{"answer": "8", "info": {"fragile": false, "words": ["a"]}, "task": "default", '
        '"example_id": 7}'
    )
    assert problem.source == "sums-env"
    assert problem.id.startswith("sums-env/")


def test_evaluation_rows_are_the_test_split(packages):
    task = Verifiers(environment="sums-env", arguments='{"own_eval": true}')
    assert len(task.problems("test")) == 10
    assert all(p.prompt[1]["content"].startswith("10") for p in task.problems("test"))
    assert len(task.problems("train")) + len(task.problems("validation")) == 30


@pytest.mark.parametrize(
    ("text", "value", "parts", "verdict"),
    [
        ("<answer>8</answer>", 1.25, (1.0, 1.0), Verdict.CORRECT),
        ("<answer>9</answer>", 0.25, (0.0, 1.0), Verdict.WRONG),
        ("", 0.25, (0.0, 1.0), Verdict.WRONG),
        ("<answer>8</answer>" + "!" * 80, 1.0, (1.0, 0.0), Verdict.CORRECT),
        ("<answer>9</answer>" + "!" * 80, 0.0, (0.0, 0.0), Verdict.WRONG),
        ("<answer>8</answer> break", 1.0, (1.0, 0.0), Verdict.MALFORMED),
    ],
)
def test_a_score_is_the_weighted_sum_with_its_parts(packages, text, value, parts, verdict):
    # 1.0 * right + 0.25 * short
    task = Verifiers(environment="sums-env")
    score = task.score(problem_with(task, 7), Response(text=text))
    assert (score.value, score.verdict) == (value, verdict)
    assert (score.parts["right"], score.parts["short"]) == parts


def test_what_counts_as_correct_is_a_field(packages):
    task = Verifiers(environment="sums-env", correct_at=1.25)
    score = task.score(problem_with(task, 7), Response(text="<answer>8</answer>" + "!" * 80))
    assert (score.value, score.verdict) == (1.0, Verdict.WRONG)


def test_a_prefill_is_part_of_the_completion(packages):
    task = Verifiers(environment="sums-env")
    response = Response(prefill="<answer>", text="8</answer>")
    assert task.score(problem_with(task, 7), response).value == 1.25


def test_bad_answers_are_counted_and_named_left_out_or_kept(packages, caplog):
    bad = {"environment": "sums-env", "arguments": '{"missing": 1, "wrong": 3}'}
    with pytest.raises(ValueError) as refused:
        Verifiers(**bad).problems("train")
    message = str(refused.value)
    assert message.startswith(
        "sums-env: 4 of 30 answers do not score 1: sums-env train, row 1: no answer; "
        "sums-env train, row 2: 'none' scores 0.25; sums-env train, row 3: 'none' scores 0.25; ..."
    )
    assert "--task.bad-answers skip" in message
    with caplog.at_level(logging.WARNING, logger=tested.__name__):
        assert len(everything(Verifiers(**bad, bad_answers="skip"))) == 26
    assert (
        "sums-env: left out, 4 of 30 answers do not score 1: sums-env train, row 1" in caplog.text
    )
    assert len(everything(Verifiers(**bad, bad_answers="keep"))) == 30


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("turns", "it is a Turns, and only SingleTurnEnv has one turn without tools$"),
        ("tools", "it is a ToolEnv, and only SingleTurnEnv has one turn"),
        ("steps", "Steps has its own get_prompt_messages$"),
        ("judge", "its rubric JudgeRubric asks a model to judge$"),
        ("asks", "its reward function asks asks for judge, a model to judge$"),
        ("together", "its reward function together scores whole groups$"),
        ("raises", "cannot be loaded: Failed to load environment 'refused-env': no such file$"),
        ("pictures", r"train, row 1: the prompt is \[.*; a text or messages are needed$"),
    ],
)
def test_an_environment_with_more_than_one_turn_is_refused_by_name(packages, kind, message):
    with pytest.raises(ValueError, match=message) as refused:
        Verifiers(environment="refused-env", arguments=f'{{"kind": "{kind}"}}').problems("train")
    assert "refused-env" in str(refused.value)


def test_an_environment_that_is_not_there_or_takes_other_arguments_is_one_line(packages):
    with pytest.raises(ValueError, match=r"^the environment 'nowhere' cannot be loaded: Could not"):
        Verifiers(environment="nowhere").problems("train")
    with pytest.raises(ValueError, match="unexpected keyword argument 'size'"):
        Verifiers(environment="refused-env", arguments='{"size": 1}').problems("train")


def test_the_packages_own_gym_is_refused_for_its_scorers(packages):
    pytest.importorskip("reasoning_gym", reason="the extra reasoning-gym is not installed")
    with pytest.raises(ValueError, match=r"evaluate the model's text; use task:reasoning-gym$"):
        Verifiers(environment="gym-env").problems("train")


def test_the_packages_signal_handlers_do_not_stay(packages):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    Verifiers(environment="sums-env").problems("train")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_it_goes_through_yaml_a_mixture_and_a_sum_of_rewards(packages):
    one = Verifiers(environment="sums-env", arguments='{"num_rows": 60}')
    mixture = Mixture(tasks=(one, Arithmetic()), weights=(1.0, 2.0))
    for task in (one, mixture):
        config = RunConfig(task=task)
        assert from_yaml(to_yaml(config), "f") == config
        check_config(config)
    problem = problem_with(one, 7)
    response = Response(text="<think>1</think><answer>8</answer>")
    assert mixture.score(problem, response).value == 1.25
    assert r1_zero_reward(mixture.score)(problem, response).value == 2.25  # 1.25 + format


def test_scoring_processes_load_the_environment_themselves(packages):
    task = pickle.loads(pickle.dumps(Verifiers(environment="sums-env")))
    problem = problem_with(task, 7)
    with RewardPool(task.score, ScoringConfig(workers=1)) as pool:
        pool.check(problem)
        assert pool(problem, Response(text="<answer>8</answer>")).value == 1.25
        assert pool(problem, Response(text="<answer>9</answer>")).verdict is Verdict.WRONG


def test_a_missing_package_is_one_line_with_the_remedy(monkeypatch):
    tested._environment.cache_clear()
    monkeypatch.setitem(sys.modules, "verifiers", None)
    with pytest.raises(ValueError, match=r"^verifiers cannot be used .* pip install 'groupwise\[v"):
        Verifiers(environment="sums-env").problems("train")


def test_a_verifiers_without_single_turns_is_one_line_with_the_remedy(monkeypatch):
    tested._environment.cache_clear()
    monkeypatch.setitem(sys.modules, "verifiers", type(sys)("verifiers"))
    with pytest.raises(ValueError, match=r"has no attribute 'SingleTurnEnv'.*: pip install"):
        Verifiers(environment="sums-env").problems("train")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"arguments": "n=1"}, "^arguments is 'n=1', no JSON"),
        ({"arguments": "[1]"}, r"^arguments is '\[1\]'; give a JSON object$"),
        ({"name": "a/b"}, "^the name of the task is 'a/b'"),
        ({"correct_at": float("nan")}, "^correct_at is nan; give a finite number$"),
    ],
)
def test_settings_that_cannot_be_are_refused_without_the_package(given, message):
    with pytest.raises(ValueError, match=message):
        Verifiers(environment="sums-env", **given)


def test_the_name_is_the_environments_without_its_owner():
    assert Verifiers(environment="owner/sums-env").name == "sums-env"
