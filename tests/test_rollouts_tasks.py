import json
import logging
import pickle
import subprocess
import sys
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.problem import Problem, Response, Verdict
from rollouts.tasks.arithmetic import Arithmetic
from rollouts.tasks.countdown import Countdown, Expression, parse_expression
from rollouts.tasks.dataset import Dataset
from rollouts.tasks.mixture import Mixture
from rollouts.tasks.reasoning_gym import ReasoningGym
from rollouts.tasks.splits import split_of

SPLITS = ("train", "validation", "test")
GARBAGE = ["?", "\x00", "<answer>", "<answer>)(</answer>", "<answer>1/0</answer>", "\\boxed{" * 99]


def write_rows(folder, rows, *, name="apples.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def apples(tmp_path):
    rows = [{"prompt": f"{n} and {n} apples?", "answer": str(2 * n)} for n in range(1, 41)]
    return Dataset(path=write_rows(tmp_path, rows))


@pytest.fixture(params=["arithmetic", "countdown3", "countdown4", "jsonl", "mixture", "gym"])
def task(request, apples):
    if request.param == "gym":
        pytest.importorskip("reasoning_gym", reason="the extra reasoning-gym is not installed")
    small = Countdown(num_problems=50)
    return {
        "gym": ReasoningGym(dataset="chain_sum", size=200),
        "arithmetic": Arithmetic(),
        "countdown3": Countdown(num_problems=300),
        "countdown4": Countdown(num_problems=300, num_numbers=4, partial=0.1),
        "jsonl": apples,
        "mixture": Mixture(tasks=(Arithmetic(), small, apples), weights=(1.0, 2.0, 0.5)),
    }[request.param]


def all_problems(task):
    return [problem for split in SPLITS for problem in task.problems(split)]


def digest(problems):
    text = "\n".join(f"{problem.id} {problem.prompt} {problem.answer}" for problem in problems)
    return sha256(text.encode()).hexdigest()[:16]


# Every task


def test_each_reference_answer_scores_one(task):
    for problem in all_problems(task):
        score = task.score(problem, Response(text=f"<answer>{problem.answer}</answer>"))
        assert (score.value, score.verdict) == (1.0, Verdict.CORRECT), problem


def test_an_empty_text_is_no_answer(task):
    for problem in all_problems(task)[:20]:
        score = task.score(problem, Response(text=""))
        assert (score.value, score.verdict) == (0.0, Verdict.NO_ANSWER)


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_gets_a_verdict_of_the_policy(task, text):
    score = task.score(task.problems("train")[0], Response(text=text))
    assert score.value == 0.0
    assert not score.verdict.is_ours and score.verdict is not Verdict.CORRECT


def test_splits_are_disjoint_and_none_is_empty(task):
    ids = [{problem.id for problem in task.problems(split)} for split in SPLITS]
    assert all(ids)
    assert len(set.union(*ids)) == sum(map(len, ids)) == len(all_problems(task))


def test_ids_and_sources_begin_with_the_name_of_the_task(task):
    for single in task.tasks if isinstance(task, Mixture) else (task,):
        for problem in all_problems(single):
            assert problem.id.startswith(f"{single.name}/")
            assert problem.source.partition("/")[0] == single.name


def test_the_order_does_not_depend_on_the_interpreter(task):
    program = (
        "import pickle, sys\n"
        "task = pickle.load(sys.stdin.buffer)\n"
        "print(*(p.id for p in task.problems('train')), sep='\\n')"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps(task),
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[1],
        env={"PYTHONHASHSEED": "1"},
    )
    assert result.stdout.decode().split() == [problem.id for problem in task.problems("train")]


# Splits


def test_a_split_is_a_hash_of_the_content():
    # sha256 of the key, as a number, modulo 10: 7, 8, 9 (0 to 7 train, 8 validation, 9 test)
    assert int(sha256(b"key 0").hexdigest(), 16) % 10 == 7 and split_of("key 0") == "train"
    assert int(sha256(b"key 9").hexdigest(), 16) % 10 == 8 and split_of("key 9") == "validation"
    assert int(sha256(b"key 21").hexdigest(), 16) % 10 == 9 and split_of("key 21") == "test"


def test_eight_tenths_train_one_validate_one_test():
    splits = [split_of(str(number)) for number in range(10_000)]
    # 4 standard deviations of a binomial with n = 10,000: 160 at p = 0.8, 120 at p = 0.1
    assert abs(splits.count("train") - 8000) < 160
    assert abs(splits.count("validation") - 1000) < 120
    assert abs(splits.count("test") - 1000) < 120


# Arithmetic


def test_arithmetic_has_the_stated_problems():
    # 40 * 40 sums, 40 * 41 / 2 differences, 12 * 12 products
    assert len(all_problems(Arithmetic())) == 1600 + 820 + 144


def test_an_arithmetic_problem_is_what_the_docstring_says():
    problems = {problem.id: problem for problem in all_problems(Arithmetic())}
    assert problems["arithmetic/add/3+5"] == Problem(
        id="arithmetic/add/3+5",
        prompt="What is 3 + 5? Reply with the number only.",
        answer="8",
        source="arithmetic/add",
    )
    assert problems["arithmetic/subtract/9-4"].answer == "5"
    assert problems["arithmetic/multiply/7*8"].prompt.startswith("What is 7 * 8? ")
    assert problems["arithmetic/multiply/7*8"].answer == "56"


def test_arithmetic_problems_keep_their_places():
    train = Arithmetic().problems("train")
    assert [problem.id for problem in train[:3]] == [
        "arithmetic/add/1+1",
        "arithmetic/add/1+2",
        "arithmetic/add/1+3",
    ]
    assert digest(all_problems(Arithmetic())) == "67a852390f6bafa3"


def test_commutative_twins_share_a_split():
    home = {p.id: split for split in SPLITS for p in Arithmetic().problems(split)}
    for a in range(1, 41):
        for b in range(1, 41):
            assert home[f"arithmetic/add/{a}+{b}"] == home[f"arithmetic/add/{b}+{a}"]
    for a in range(1, 13):
        for b in range(1, 13):
            assert home[f"arithmetic/multiply/{a}*{b}"] == home[f"arithmetic/multiply/{b}*{a}"]


def test_no_difference_is_negative():
    task = Arithmetic(operations=("subtract",), subtract_max=15)
    assert len(all_problems(task)) == 120  # 15 * 16 / 2
    assert min(int(problem.answer) for problem in all_problems(task)) == 0


def test_ranges_and_instruction_do_not_move_a_problem():
    wide = {p.id for p in Arithmetic(add_max=60, instruction="").problems("test")}
    assert {p.id for p in Arithmetic().problems("test")} <= wide
    assert Arithmetic(instruction="").problems("test")[0].prompt.endswith("?")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"operations": ("ad",)}, "unknown operation 'ad'; did you mean 'add'"),
        ({"operations": ("divide",)}, "unknown operation 'divide'; did you mean"),
        ({"operations": ()}, r"operations is \(\); name at least one of add, subtract"),
        ({"operations": ("add", "add")}, "each once"),
        ({"add_max": 0}, "add_max is 0, which leaves no problems; set it to 1 or more"),
    ],
)
def test_an_arithmetic_without_problems_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Arithmetic(**fields)


# Countdown

COUNTDOWN = Problem(
    id="countdown/3,7,25=46", prompt="...", answer="25 + (7 * 3)", source="countdown"
)


@pytest.mark.parametrize(
    ("text", "value", "verdict"),
    [
        ("<answer>3*7+25</answer>", 1.0, Verdict.CORRECT),
        ("<answer> (25 + (3 \u00d7 7)) </answer>", 1.0, Verdict.CORRECT),
        ("<answer>1</answer> no: <answer>3*7+25</answer>", 1.0, Verdict.CORRECT),
        ("<think><answer>1</answer></think><answer>25+7*3</answer>", 1.0, Verdict.CORRECT),
        ("<answer>25 + 7 + 3</answer>", 0.1, Verdict.WRONG),
        ("<answer>46</answer>", 0.1, Verdict.WRONG),
        ("<answer>25 + 7 + 7 + 7</answer>", 0.1, Verdict.WRONG),
        ("<answer>25 + 7 * 3 + 3 - 3</answer>", 0.1, Verdict.WRONG),
        ("<answer>25 + 21</answer>", 0.1, Verdict.WRONG),
        ("<answer>3*7+25</answer> no: <answer>1</answer>", 0.1, Verdict.WRONG),
        ("<answer>3*7+25 = 46</answer>", 0.0, Verdict.MALFORMED),
        ("<answer>25/(7-7)</answer>", 0.0, Verdict.MALFORMED),
        ("<answer>__import__('os')</answer>", 0.0, Verdict.MALFORMED),
        (f"<answer>{'1+' * 100}1</answer>", 0.0, Verdict.TOO_LARGE),
        ("<answer></answer>", 0.0, Verdict.NO_ANSWER),
        ("3*7+25", 0.0, Verdict.NO_ANSWER),
        ("<answer>3*7+25</answer></think>", 0.0, Verdict.NO_ANSWER),
    ],
)
def test_a_countdown_answer_has_the_numbers_and_the_value(text, value, verdict):
    score = Countdown(partial=0.1).score(COUNTDOWN, Response(text=text))
    assert (score.value, score.verdict) == (value, verdict)
    assert score.value == score.parts["accuracy"] + score.parts["partial"]


def test_without_partial_credit_a_wrong_expression_is_worth_nothing():
    score = Countdown().score(COUNTDOWN, Response(text="<answer>25 + 7 + 3</answer>"))
    assert (score.value, score.verdict) == (0.0, Verdict.WRONG)


@pytest.mark.parametrize(
    ("text", "value", "numbers"),
    [
        ("(25 - 3) / 4", Fraction(11, 2), (3, 4, 25)),
        ("1 - 2 - 3", Fraction(-4), (1, 2, 3)),
        ("2 + 3 * 4", Fraction(14), (2, 3, 4)),
        ("1/3*3", Fraction(1), (1, 3, 3)),
        ("8 \u00f7 4 \u2212 1", Fraction(1), (1, 4, 8)),
    ],
)
def test_expressions_have_an_exact_value(text, value, numbers):
    assert parse_expression(text) == Expression(value=value, numbers=numbers)


@pytest.mark.parametrize(
    "text",
    [
        "", "()", "1 2", "007", "-3", "+3", "2**9", "7//2", "3(4)", "1.5", "1e3", "1_0", "x", "(1",
        "1,2", "1\n+2", "1/0", "1/(2-2)", "0x1", "True", "1 if 1 else 2", "[1]", "\x00", "\u0663",
        "+".join("1" * 34), "(" * 150 + "1" + ")" * 150, "-" * 199 + "1", "9**9**9**9", "1;2",
    ],
)  # fmt: skip
def test_what_is_not_an_expression_is_none(text):
    assert parse_expression(text) is None


def test_an_expression_may_nest_up_to_the_cap():
    assert parse_expression("+".join("1" * 33)).value == 33  # 32 operations deep
    assert parse_expression("(" * 60 + "1" + ")" * 60).value == 1  # parentheses are no operation


@given(st.text() | st.text(alphabet="0123456789+-*/() ", max_size=250))
def test_any_text_is_a_bounded_expression_or_none(text):
    expression = parse_expression(text)
    # At most 200 characters of digits go in, and no operation makes more digits than it is given
    # but for a carry: far under 1,000.
    if expression is not None:
        assert max(abs(expression.value.numerator), expression.value.denominator) < 10**1000


def test_countdown_problems_keep_their_places():
    three, four = Countdown(), Countdown(num_numbers=4, seed=1)
    assert [problem.id for problem in three.problems("train")[:2]] == [
        "countdown/7,36,46=89",
        "countdown/21,27,36=42",
    ]
    assert digest(all_problems(three)) == "88e76df9c0b0a9bc"
    assert digest(all_problems(four)) == "80ef28ff8231942b"


def test_more_countdown_problems_keep_the_first_ones():
    few = Countdown(num_problems=50).problems("train")
    assert Countdown(num_problems=100).problems("train")[: len(few)] == few


def test_countdown_problems_fit_their_configuration():
    task = Countdown(num_problems=400, num_numbers=4, max_number=9, max_target=30)
    problems = all_problems(task)
    assert len({problem.id for problem in problems}) == 400
    for problem in problems:
        numbers, target = problem.id.removeprefix("countdown/").split("=")
        expression = parse_expression(problem.answer)
        assert expression.value == int(target) and 1 <= int(target) <= 30
        assert numbers == ",".join(map(str, expression.numbers))
        assert len(expression.numbers) == 4 and set(expression.numbers) <= set(range(1, 10))
        assert f"equals {target}." in problem.prompt
        assert problem.answer not in problem.prompt


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_numbers": 5}, "num_numbers is 5; set it to 3 or 4"),
        ({"num_problems": 0}, "num_problems is 0; set it to 1 or more"),
        ({"max_target": 0}, "max_target is 0"),
        ({"partial": 1.0}, "partial is 1.0"),
    ],
)
def test_a_countdown_without_problems_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Countdown(**fields)


def test_too_few_different_countdown_problems_are_reported():
    # Three ones reach 1, 2 and 3 only: 1*1*1, 1*1+1, 1+1+1.
    with pytest.raises(ValueError, match="found only 3 of num_problems=4 "):
        Countdown(num_problems=4, max_number=1).problems("train")


# Dataset


def test_a_row_is_what_the_docstring_says(tmp_path):
    path = write_rows(tmp_path, [{"prompt": "2 and 2 apples?", "answer": "4"}])
    [problem] = all_problems(Dataset(path=path))
    assert problem == Problem(
        id="apples/f2ec0257ca1733f1", prompt="2 and 2 apples?", answer="4", source="apples"
    )


def test_columns_ids_instruction_and_name_are_chosen(tmp_path):
    rows = [{"q": "1 + 1?", "a": 2, "n": 7}, {"q": "1 + 2?", "a": "so\n#### 3", "n": "x"}]
    task = Dataset(
        path=write_rows(tmp_path, rows),
        prompt_column="q",
        answer_column="a",
        id_column="n",
        instruction="Think.",
        name="sums",
    )
    found = sorted((p.id, p.prompt, p.answer, p.source) for p in all_problems(task))
    assert found == [
        ("sums/7", "1 + 1? Think.", "2", "sums"),
        ("sums/x", "1 + 2? Think.", "so\n#### 3", "sums"),
    ]


def test_the_instruction_moves_no_row(tmp_path, apples):
    told = Dataset(path=apples.path, instruction="Think.")
    for split in SPLITS:
        assert [p.id for p in told.problems(split)] == [p.id for p in apples.problems(split)]


def test_a_repeated_prompt_is_kept_once_and_counted(tmp_path, caplog):
    rows = [
        {"prompt": "1 + 1?", "answer": "2"},
        {"prompt": "1 + 2?", "answer": "3"},
        {"prompt": " 1 +  1?\n", "answer": "2"},
    ]
    task = Dataset(path=write_rows(tmp_path, rows))
    with caplog.at_level(logging.WARNING, logger="rollouts.tasks.dataset"):
        assert sorted(p.prompt for p in all_problems(task)) == ["1 + 1?", "1 + 2?"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{task.path}: left out 1 repeated prompts"
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"promt": "1?", "answer": "1"}', "no field 'prompt'; the fields are 'promt', 'answer'; "
         "did you mean 'promt'"),
        ("{}", "no field 'prompt'; the fields are none"),
        ('{"prompt": "1?"}', "no field 'answer'; the fields are 'prompt'"),
        ('{"prompt": "1?", "answer": null}', "field 'answer' is None; give a text or a number"),
        ('{"prompt": ["1?"], "answer": 1}', "field 'prompt' is .*; a conversation is a list of obj"),
        ('{"prompt": {"a": 1}, "answer": 1}', "field 'prompt' is .*; give a text or a number"),
        ('{"prompt": "1?", "answer": "x + 1"}', "'x \\+ 1'. Mend the rows, or leave"),
        ('{"prompt": "1?", "answer": NaN}', "'nan'. Mend the rows, or leave"),
        ('{"prompt": "1?"', "not valid JSON .*; each line must be one JSON object"),
        ("[1]", "a JSON list .*; each line must be one object"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_with_its_file_and_line(tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"prompt": "0?", "answer": "0"}\n\n' + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"bad\.jsonl, line 3: {message}"):
        Dataset(path=str(path), reward="numeric").problems("train")


def test_text_that_is_not_utf_8_is_named_with_its_line(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"prompt": "caf\xe9", "answer": "0"}\n')
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 1: not valid JSON .*utf-8"):
        Dataset(path=str(path)).problems("train")


def test_an_id_given_twice_is_refused(tmp_path):
    rows = [{"prompt": "1?", "answer": 1, "n": 7}, {"prompt": "2?", "answer": 2, "n": 7}]
    with pytest.raises(ValueError, match=r"line 2: the id 'apples/7' is that of .*line 1 too"):
        Dataset(path=write_rows(tmp_path, rows), id_column="n").problems("train")


def test_the_file_is_read_only_when_problems_are_asked_for(tmp_path):
    task = Dataset(path=str(tmp_path / "absent.jsonl"))
    assert task.name == "absent"
    with pytest.raises(ValueError, match=r"absent\.jsonl' is not a file; give the path"):
        task.problems("train")


def test_a_name_with_a_slash_is_refused():
    with pytest.raises(ValueError, match="'a/b'; give one without a slash"):
        Dataset(path="x.jsonl", name="a/b")


# Mixture


def test_a_mixture_has_all_problems_task_after_task(apples):
    mixture = Mixture(tasks=(Arithmetic(), apples), weights=(1.0, 1.0))
    assert mixture.problems("test") == Arithmetic().problems("test") + apples.problems("test")


def test_each_problem_is_scored_by_its_own_task():
    mixture = Mixture(tasks=(Arithmetic(), Countdown(partial=0.1)), weights=(1.0, 1.0))
    sum_problem = Arithmetic().problems("train")[0]  # 1 + 1
    text = Response(text="<answer>1 + 1</answer>")
    assert mixture.score(sum_problem, text).verdict is Verdict.MALFORMED
    assert mixture.score(COUNTDOWN, text).value == 0.1


def test_a_problem_of_no_task_is_our_mistake():
    with pytest.raises(ValueError, match=r"is of task 'countdown'; this mixture has \['arith"):
        Mixture(tasks=(Arithmetic(),), weights=(1.0,)).score(COUNTDOWN, Response(text=""))


@pytest.mark.parametrize(
    ("tasks", "weights", "message"),
    [
        ((), (), "0 tasks and 0 weights"),
        ((Arithmetic(),), (1.0, 2.0), "1 tasks and 2 weights"),
        ((Arithmetic(),), (0.0,), "each must be positive and finite"),
        ((Arithmetic(),), (float("nan"),), "each must be positive and finite"),
        ((Arithmetic(), Arithmetic(add_max=5)), (1.0, 1.0), "names must differ"),
    ],
)
def test_a_mixture_that_cannot_be_drawn_from_is_refused(tasks, weights, message):
    with pytest.raises(ValueError, match=message):
        Mixture(tasks=tasks, weights=weights)


@pytest.mark.parametrize("starts", [(0,), (0, 1, 2), (1, 2), (0, -1)])
def test_a_mixture_that_starts_with_nothing_is_refused(starts):
    tasks = (Arithmetic(), Countdown())
    with pytest.raises(ValueError, match=r"give each of the 2 tasks the update .* 0 for at least"):
        Mixture(tasks=tasks, weights=(1.0, 1.0), starts=starts)


# Imports


def test_graders_and_tasks_import_no_torch():
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print([name for name in ('torch', 'transformers', 'vllm') if name in sys.modules])"
    )
    modules = [f"rewards.{name}" for name in ("answers", "numeric", "mathematics", "tags")]
    modules += ["rewards.compose", "rollouts.tasks.mixture", "rollouts.tasks.splits"]
    result = subprocess.run(
        [sys.executable, "-c", program, *modules],
        capture_output=True,
        check=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert result.stdout == "[]\n"
