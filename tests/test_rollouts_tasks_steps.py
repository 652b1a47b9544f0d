from collections import Counter

import pytest

from rewards.language import share_by_script
from rewards.problem import Response, Verdict
from rewards.tags import has_think_summary_format
from rollouts.tasks.steps import Steps, value_of
from rollouts.tasks.worked_columns import worked_chain

SPLITS = ("train", "validation", "test")


def everything(task):
    return [problem for split in SPLITS for problem in task.problems(split)]


def test_each_kind_has_its_problems():
    counts = Counter(problem.source for problem in everything(Steps(num_problems=300)))
    kinds = ("add2", "subtract2", "add3", "subtract3", "words")
    assert counts == {f"steps/{kind}": 300 for kind in kinds}


def test_ids_are_unique_and_never_change():
    problems = everything(Steps())
    assert len({problem.id for problem in problems}) == len(problems) == 10_000
    first = Steps().problems("train")[0]
    assert (first.id, first.prompt, first.answer) == ("steps/add2/74+74", "What is 74 + 74?", "148")


def test_operands_of_one_split_are_in_no_other():
    """Neither the sum turned round, nor another story of the same numbers."""
    homes = {}
    for split in SPLITS:
        for problem in Steps().problems(split):
            kind, expression = problem.id.split("/")[1:3]
            numbers = tuple(sorted(expression.replace("-", "+").split("+")))
            key = (kind, numbers)
            assert homes.setdefault(key, split) == split


def test_differences_are_never_negative():
    assert all(int(problem.answer) >= 0 for problem in everything(Steps()))


@pytest.mark.parametrize(
    ("expression", "value"), [("47+38", 85), ("52-38", 14), ("47+38-29", 56), ("90-80-7", 3)]
)
def test_values(expression, value):
    assert value_of(expression) == value


def test_every_worked_solution_is_right_and_in_form():
    task = Steps()
    for problem in task.problems("train"):
        text = task.worked(problem)
        assert task.score(problem, Response(text=text)).verdict is Verdict.CORRECT
        assert has_think_summary_format(text)
        assert share_by_script(text, "en") == 1.0


def test_every_line_of_a_worked_chain_is_true():
    task = Steps()
    for problem in task.problems("test"):
        for line in worked_chain(problem.id.split("/")[2]).splitlines():
            if ": " in line:
                left, _, right = line.partition(": ")[2].partition(",")[0].partition(" = ")
                assert value_of(left.replace(" ", "")) == int(right)


def test_worked_by_hand():
    assert worked_chain("47+38-29") == (
        "47 + 38\nones: 7 + 8 = 15, write 5, carry 1\ntens: 4 + 3 + 1 = 8\nso 85\n"
        "85 - 29\nones: 15 - 9 = 6, borrow 1\ntens: 8 - 2 - 1 = 5\nso 56"
    )
    assert worked_chain("103-7") == (
        "103 - 7\nones: 13 - 7 = 6, borrow 1\ntens: 10 - 0 - 1 = 9, borrow 1\n"
        "hundreds: 1 - 0 - 1 = 0\nso 96"
    )


def test_some_think_in_no_steps():
    """BRIEF of 8,044, within four standard deviations: 0.3 +- 0.02."""
    task = Steps()
    problems = task.problems("train")
    chains = {p.id: task.worked(p).split("\n")[1:-2] for p in problems}
    brief = [id_ for id_, lines in chains.items() if len(lines) == 2]
    assert abs(len(brief) / len(problems) - 0.3) < 0.02
    assert all(chains[id_][1].startswith("so ") for id_ in brief)
    words = next(id_ for id_ in brief if "/words/" in id_)
    assert chains[words][0].count(" ") == 4  # 47 + 38 - 29


def test_harder_problems_have_longer_chains():
    task = Steps()
    lengths = {}
    for problem in task.problems("train"):
        lengths.setdefault(problem.source, []).append(len(task.worked(problem)))
    mean = {source: sum(each) / len(each) for source, each in lengths.items()}
    assert mean["steps/add2"] < mean["steps/add3"] < mean["steps/words"]


def test_a_wrong_and_an_empty_answer():
    task = Steps()
    problem = task.problems("train")[0]
    assert task.score(problem, Response(text="")).verdict is Verdict.NO_ANSWER
    assert task.score(problem, Response(text="\\boxed{147}")).verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"kinds": ("add4",)}, "name at least one of add2"), ({"num_problems": 3}, "use 20 or more")],
)
def test_mistakes_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Steps(**fields)


def test_an_instruction_follows_the_question():
    problem = Steps(instruction="Box the answer.").problems("test")[0]
    assert problem.prompt.endswith("? Box the answer.")
