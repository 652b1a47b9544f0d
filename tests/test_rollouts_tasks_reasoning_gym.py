"""Data sets of reasoning-gym: a stand-in for what our code decides, and the package itself."""

import json
import logging
import pickle
import sys
from dataclasses import dataclass
from random import Random

import pytest

from recipes.config import RunConfig, from_yaml, to_yaml
from recipes.preflight import check_config
from rewards.pool import RewardPool, ScoringConfig
from rewards.problem import Response, Verdict
from rollouts.tasks import reasoning_gym as tested
from rollouts.tasks.mixture import Mixture
from rollouts.tasks.reasoning_gym import ReasoningGym
from rollouts.tasks.reasoning_gym_guards import (
    GUARDS,
    MAX_ANSWER_CHARS,
    REFERENCE_IN_METADATA,
    REFUSED,
    WITHOUT_REFERENCE,
)

SPLITS = ("train", "validation", "test")


@dataclass
class SumsConfig:
    seed: int
    size: int
    top: int = 99
    missing: int = 0
    wrong: int = 0


class Sums:
    """Entries as the package makes them; the first `missing` have no answer, `wrong` a wrong one."""

    def __init__(self, config: SumsConfig):
        assert config.top > 0, "top must be positive"
        self.config = config

    def __getitem__(self, number: int) -> dict:
        random = Random(self.config.seed + number)
        a, b = random.randint(0, self.config.top), random.randint(0, self.config.top)
        answer = None if number < self.config.missing else str(a + b)
        off = 1 if self.config.missing <= number < self.config.missing + self.config.wrong else 0
        return {"question": f"\n{a} + {b}?", "answer": answer, "metadata": {"sum": a + b + off}}

    def score_answer(self, answer: str, entry: dict) -> float:
        if answer == "crash":
            raise KeyError(answer)
        if answer == "deep":
            raise RecursionError
        if answer in ("nan", "inf"):
            return float(answer)
        entry["metadata"]["sum"] += 0 if answer != "spoil" else 1
        return 1.0 if answer == str(entry["metadata"]["sum"]) else 0.01


@pytest.fixture
def stand_in(monkeypatch):
    """The package has one data set, `sums`, and one that has never a reference."""
    known = {"sums": (Sums, SumsConfig), "boxnet": (Sums, SumsConfig)}
    monkeypatch.setattr(tested, "_known", lambda: known)
    for cached in (tested._dataset, tested._entry, tested._all_problems):
        cached.cache_clear()
    yield
    for cached in (tested._dataset, tested._entry, tested._all_problems):
        cached.cache_clear()


def everything(task):
    return [problem for split in SPLITS for problem in task.problems(split)]


def tagged(answer: str) -> Response:
    return Response(text=f"<think>1? <answer>no</answer></think> <answer>{answer}</answer>")


def test_an_entry_is_a_problem_and_equal_questions_are_one(stand_in, caplog):
    task = ReasoningGym(dataset="sums", size=40, options='{"top": 3}', instruction="Say it.")
    with caplog.at_level(logging.WARNING, logger=tested.__name__):
        problems = everything(task)
    assert len({p.prompt for p in problems}) == len(problems) <= 16  # 4 * 4 sums
    assert [r.getMessage() for r in caplog.records] == [
        f"sums: left out {40 - len(problems)} repeated questions"
    ]
    first = next(p for p in problems if p.id == "reasoning_gym_sums/0")
    entry = Sums(SumsConfig(seed=0, size=40, top=3))[0]
    assert first.prompt == f"{entry['question'].strip()}\n\nSay it."
    assert (first.answer, first.source) == (entry["answer"], "reasoning_gym_sums")


def test_the_same_question_is_in_the_same_split_whatever_its_number(stand_in):
    # Entry i is drawn from seed + i: these share their questions 5 to 99, under other numbers.
    ours, theirs = ReasoningGym(dataset="sums", size=100), ReasoningGym(dataset="sums", seed=5)
    for split in SPLITS:
        elsewhere = {p.prompt for s in SPLITS if s != split for p in theirs.problems(s)}
        assert not {p.prompt for p in ours.problems(split)} & elsewhere


@pytest.mark.parametrize(
    ("text", "value", "verdict"),
    [
        ("<answer>{}</answer>", 1.0, Verdict.CORRECT),
        ("<answer>0</answer> no, <answer>{}</answer>", 1.0, Verdict.CORRECT),
        ("<answer>\\boxed{{{}}}</answer>", 1.0, Verdict.CORRECT),
        ("So \\boxed{{{}}}", 1.0, Verdict.CORRECT),
        ("<answer>-1</answer>", 0.01, Verdict.WRONG),
        ("<answer>spoil</answer>", 0.01, Verdict.WRONG),
        ("<answer>crash</answer>", 0.0, Verdict.MALFORMED),
        ("<answer>deep</answer>", 0.0, Verdict.MALFORMED),
        ("<answer>nan</answer>", 0.0, Verdict.MALFORMED),
        ("<answer>inf</answer>", 0.0, Verdict.MALFORMED),
        ("<answer>" + "1" * (MAX_ANSWER_CHARS + 1) + "</answer>", 0.0, Verdict.TOO_LARGE),
        ("<answer></answer>", 0.0, Verdict.NO_ANSWER),
        ("It is {}.", 0.0, Verdict.NO_ANSWER),
        ("<answer>{}</answer></think>", 0.0, Verdict.NO_ANSWER),
    ],
)
def test_a_response_gets_what_the_scorer_says_and_a_verdict(stand_in, text, value, verdict):
    task = ReasoningGym(dataset="sums", size=9)
    problem = everything(task)[0]
    score = task.score(problem, Response(text=text.format(problem.answer)))
    assert (score.value, score.verdict) == (value, verdict)
    assert sum(score.parts.values()) == pytest.approx(value)
    # "spoil" writes into its entry, which must not reach the next score.
    assert task.score(problem, tagged(problem.answer)).value == 1.0


def test_bad_references_are_counted_and_named_or_left_out(stand_in, caplog):
    options = '{"missing": 1, "wrong": 3}'
    with pytest.raises(ValueError) as refused:
        ReasoningGym(dataset="sums", size=30, options=options).problems("train")
    message = str(refused.value)
    assert message.startswith(
        "sums: 4 of 30 references do not score 1: entry 0: no answer; entry 1"
    )
    assert "is wrong, 0.01; entry 2: " in message
    assert "entry 3" not in message
    assert message.endswith("; .... Leave them out with --task.bad-answers skip")
    task = ReasoningGym(dataset="sums", size=30, options=options, bad_answers="skip")
    with caplog.at_level(logging.WARNING, logger=tested.__name__):
        assert len(everything(task)) == 26
    assert "sums: left out, 4 of 30 references do not score 1: entry 0" in caplog.text


def test_a_data_set_that_only_judges_is_taken_and_said_to_be_unchecked(stand_in, caplog):
    with caplog.at_level(logging.WARNING, logger=tested.__name__):
        problems = everything(ReasoningGym(dataset="boxnet", size=5, options='{"missing": 5}'))
    assert [p.answer for p in problems] == [""] * 5
    assert "boxnet: its entries have no reference, so none was checked" in caplog.text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataset": "sum"}, r"has no 'sum'; did you mean 'sums'\? It has boxnet, sums$"),
        ({"options": '{"to": 1}'}, r"^sums has no option 'to'; did you mean 'top'\?$"),
        ({"options": '{"zzz": 1}'}, "has no option 'zzz'; it has top, missing, wrong$"),
        ({"options": '{"top": 0}'}, r"does not take options .* \(AssertionError: top must be pos"),
        ({"options": '{"seed": 0}'}, "^options names 'seed'; set --task.seed instead$"),
        ({"options": "[1]"}, r"^options is '\[1\]'; give a JSON object$"),
        ({"options": "top=1"}, "^options is 'top=1', no JSON"),
        ({"size": 0}, "^size is 0; set it to 1 or more$"),
        ({"name": "a/b"}, "^the name of the task is 'a/b'; give one without a slash$"),
        *[({"dataset": name}, f"^no training on '{name}': ") for name in REFUSED],
    ],
)
def test_what_cannot_be_drawn_is_one_line(stand_in, given, message):
    with pytest.raises(ValueError, match=message):
        ReasoningGym(**{"dataset": "sums", **given}).problems("train")


def test_a_problem_of_another_configuration_is_not_scored(stand_in):
    problem = everything(ReasoningGym(dataset="sums"))[0]
    with pytest.raises(ValueError, match=r"is not of this task: .* seed, size and options"):
        ReasoningGym(dataset="sums", seed=9).score(problem, tagged("1"))


def test_a_missing_or_unread_package_is_one_line_with_the_remedy(monkeypatch):
    tested._dataset.cache_clear()
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(ValueError, match=r"cannot be imported .*: pip install 'groupwise\[reas"):
        ReasoningGym(dataset="chain_sum").problems("train")


def test_it_goes_through_yaml_and_a_mixture(stand_in):
    one = ReasoningGym(dataset="sums", size=300, options='{"top": 50}')
    mixture = Mixture(tasks=(one, ReasoningGym(dataset="boxnet", size=90)), weights=(1.0, 2.0))
    for task in (one, mixture):
        config = RunConfig(task=task)
        assert from_yaml(to_yaml(config), "f") == config
        check_config(config)
    problem = one.problems("train")[0]
    assert mixture.score(problem, tagged(problem.answer)).value == 1.0


# The package itself


@pytest.fixture
def package():
    """reasoning-gym; its pycosat is built by a C compiler, so that make setup leaves it out."""
    pytest.importorskip("reasoning_gym", reason="the extra reasoning-gym is not installed")


def test_another_version_of_the_package_is_refused(package, monkeypatch):
    tested._dataset.cache_clear()
    monkeypatch.setattr(tested, "VERSION", "0.0.9")
    with pytest.raises(ValueError, match=r"is 0\.1\.25, and only the scorers of 0\.0\.9 were read"):
        ReasoningGym(dataset="gcd").problems("train")


def test_every_data_set_scores_its_own_references(package):
    taken = sorted(set(tested._known()) - set(REFUSED))
    assert len(taken) == 106 - len(REFUSED) == 93
    slow = {"futoshiki", "sokoban", "zebra_puzzles", "puzzle24"}
    for dataset in taken:
        bad_answers = "skip" if dataset == "ab" else "refuse"  # some of it come to an empty text
        size = 3 if dataset in slow else 20
        task = ReasoningGym(dataset=dataset, size=size, bad_answers=bad_answers)
        problems = everything(task)
        assert problems, dataset
        if dataset not in WITHOUT_REFERENCE:
            assert all(task.score(p, tagged(p.answer)).value == 1.0 for p in problems), dataset


def test_the_names_in_our_tables_are_the_packages(package):
    known = set(tested._known())
    assert {*GUARDS, *REFUSED, *REFERENCE_IN_METADATA, *WITHOUT_REFERENCE} <= known


@pytest.mark.parametrize("dataset", ["countdown", "n_queens", "spiral_matrix", "gcd"])
def test_code_in_an_answer_is_not_run(package, tmp_path, monkeypatch, dataset):
    monkeypatch.chdir(tmp_path)
    task = ReasoningGym(dataset=dataset, size=5)
    problem = everything(task)[0]
    for code in (
        "__import__('os').system('touch owned')",
        "[open('owned', 'w')]",
        'exec(\'open("owned", "w")\')',
        'sympify(\'open("owned", "w")\')',
    ):
        assert task.score(problem, tagged(code)).value == 0.0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("dataset", "nonsense"),
    [("complex_arithmetic", "nan"), ("number_sorting", json.dumps([float("nan")] * 10))],
)
def test_nonsense_that_a_scorer_takes_for_right_is_worth_nothing(package, dataset, nonsense):
    ten = '{"min_numbers": 10, "max_numbers": 10}' if dataset == "number_sorting" else ""
    task = ReasoningGym(dataset=dataset, size=20, options=ten)
    problem = everything(task)[0]
    entry = tested._entry_of(task, problem)
    assert tested._dataset(task).score_answer(nonsense, entry) == 1.0  # the scorer itself
    score = task.score(problem, tagged(nonsense))
    assert (score.value, score.verdict) == (0.0, Verdict.MALFORMED)


def test_scoring_processes_draw_the_same_entries(package):
    task = pickle.loads(pickle.dumps(ReasoningGym(dataset="sudoku", size=4)))
    with RewardPool(task.score, ScoringConfig(workers=1)) as pool:
        for problem in everything(task):
            pool.check(problem)
            assert pool(problem, tagged(problem.answer)).value == 1.0
            assert pool(problem, tagged("1 2 3")).value < 0.1
