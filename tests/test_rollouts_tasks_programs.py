"""Programming tasks: their rows, their splits, and their reference solutions in the sandbox."""

import json
import logging

import pytest

from rewards.problem import Response, Verdict
from rollouts.tasks.programs import HumanEval, Mbpp, Programs

SPLITS = ("train", "validation", "test")
ADD = {
    "prompt": "Add two numbers.",
    "tests": [{"input": "1 2\n", "output": "3"}, {"input": "5 5", "output": "10\n"}],
}
SOLUTION = "```python\na, b = map(int, input().split())\nprint(a + b)\n```"


def rows(tmp_path, *found, name="train"):
    (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return str(tmp_path)


def only(task):
    [problem] = [problem for split in SPLITS for problem in task.problems(split)]
    return problem


@pytest.mark.parametrize(
    "tests",
    [
        ADD["tests"],
        {"inputs": ["1 2\n", "5 5"], "outputs": ["3", "10\n"]},
        json.dumps({"inputs": ["1 2\n", "5 5"], "outputs": ["3", "10\n"]}),
    ],
)
def test_cases_in_every_form_mean_the_same(tmp_path, tests):
    problem = only(Programs(path=rows(tmp_path, {**ADD, "tests": tests})))
    assert json.loads(problem.answer)["cases"] == [["1 2\n", "3"], ["5 5", "10\n"]]
    assert problem.prompt == (
        "Add two numbers.\n\nRead from stdin and print to stdout. "
        "Give the whole program in one ```python block."
    )


def test_a_program_is_run_and_paid_whole_or_by_share(tmp_path):
    path = rows(tmp_path, ADD)
    whole, share = Programs(path=path), Programs(path=path, partial=True)
    problem = only(whole)
    assert whole.score(problem, Response(text=SOLUTION)).verdict is Verdict.CORRECT
    half = Response(text="```python\nprint(3)\n```")
    assert whole.score(problem, half).value == 0.0
    assert share.score(problem, half).value == 0.5


def test_rows_without_usable_tests_are_left_out_and_named(tmp_path, caplog):
    bad = {"task_id": "x/7", "prompt": "What?", "tests": [{"in": "1"}]}
    path = rows(tmp_path, ADD, bad)
    with caplog.at_level(logging.WARNING, logger="rollouts.tasks.programs"):
        assert only(Programs(path=path, name="sums")).id.startswith("sums/")
    [record] = caplog.records
    assert "left out 1 problems whose tests cannot be used: x/7 (its tests" in record.getMessage()


def test_human_eval(data, caplog):
    task = HumanEval(path=str(data / "humaneval"))
    with caplog.at_level(logging.WARNING, logger="rollouts.tasks.programs"):
        problems = task.problems("test")
    assert (len(problems), task.problems("train"), task.problems("validation")) == (164, [], [])
    assert caplog.records == []
    first = problems[0]
    assert first.id == "human_eval/HumanEval/0"
    assert first.prompt.startswith(
        "Complete this function.\n\n```python\nfrom typing import List\n"
    )
    row = json.loads((data / "humaneval/test.jsonl").read_text().splitlines()[0])
    solved = Response(text=f"```python\n{row['prompt']}{row['canonical_solution']}\n```")
    assert task.score(first, solved).verdict is Verdict.CORRECT
    nothing = Response(text=f"```python\n{row['prompt']}    return True\n```")
    assert task.score(first, nothing).verdict is Verdict.WRONG


def test_mbpp(data):
    task = Mbpp(path=str(data / "mbpp_sanitized"))
    sizes = {split: len(task.problems(split)) for split in SPLITS}
    assert sizes["train"] + sizes["validation"] <= 120
    assert sizes["test"] <= 257
    assert sizes["test"] > 240
    first = task.problems("test")[0]
    assert first.prompt.startswith("Write a python function to remove first and last occurrence")
    row = json.loads((data / "mbpp_sanitized/test.jsonl").read_text().splitlines()[0])
    assert task.score(first, Response(text=row["code"])).verdict is Verdict.CORRECT
    assert task.score(first, Response(text="def remove_Occ(s, c): return s")).value == 0.0
