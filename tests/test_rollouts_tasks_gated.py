"""GPQA and LiveCodeBench, whose rows no file may hold: on rows made by hand."""

import base64
import json
import os
import pickle
import zlib
from pathlib import Path

import pytest

from eval.benchmarks import benchmark
from rewards.problem import Response, Verdict

QUESTION = {
    "Question": "Which of these is a noble gas?",
    "Correct Answer": "Neon\n",
    "Incorrect Answer 1": "Nitrogen",
    "Incorrect Answer 2": "Oxygen",
    "Incorrect Answer 3": "Hydrogen",
}
SUM = {
    "question_id": "abc1_a",
    "question_content": "Print the sum of two numbers.",
    "starter_code": "",
    "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]),
    "metadata": "{}",
}
METHOD = {
    "question_id": "3000",
    "question_content": "Return the numbers above a limit.",
    "starter_code": "class Solution:\n    def above(self, nums: List[int], limit: int) -> List[int]:\n        ",
    "public_test_cases": json.dumps(
        [{"input": "[1, 5, 3]\n2", "output": "[5,3]", "testtype": "functional"}]
    ),
    "metadata": json.dumps({"func_name": "above"}),
}


def packed(cases: list[dict]) -> str:
    """Hidden cases as the hub has them: JSON, pickled, deflated, in base 64."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def made(tmp_path: Path, name: str, *rows: dict, seed: int = 0):
    path = tmp_path / name / f"{'train' if name == 'gpqa_diamond' else 'test'}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return benchmark(name, data=tmp_path, seed=seed)


def verdict(bench, index: int, text: str) -> Verdict:
    return bench.reward(bench.problems[index], Response(text=text)).verdict


def test_choices_are_shuffled_by_the_seed_and_the_letter_follows(tmp_path):
    rows = [{**QUESTION, "Question": f"{QUESTION['Question']} ({i})"} for i in range(40)]
    bench = made(tmp_path, "gpqa_diamond", *rows)
    again, other = (made(tmp_path, "gpqa_diamond", *rows, seed=seed) for seed in (0, 1))
    assert bench.problems == again.problems
    assert [p.id for p in bench.problems] == [p.id for p in other.problems]
    assert (
        sum(a.answer != b.answer for a, b in zip(bench.problems, other.problems, strict=True)) > 15
    )
    assert {p.answer for p in bench.problems} == set("ABCD")
    for problem in bench.problems:
        question, blank, *choices = problem.prompt.split("\n")
        assert question.startswith("Which of these") and blank == ""
        assert [choice[:4] for choice in choices] == ["(A) ", "(B) ", "(C) ", "(D) "]
        assert f"({problem.answer}) Neon" in choices
        assert {choice[4:] for choice in choices} == {"Neon", "Nitrogen", "Oxygen", "Hydrogen"}
    assert (bench.kind, bench.num_samples, bench.votes) == ("choice", 64, True)
    assert any("not be published" in note for note in bench.notes)


def test_a_letter_is_graded(tmp_path):
    bench = made(tmp_path, "gpqa_diamond", QUESTION)
    right = bench.problems[0].answer
    wrong = "ABCD"["ABCD".index(right) - 1]
    assert verdict(bench, 0, f"\\boxed{{{right}}}") is Verdict.CORRECT
    assert verdict(bench, 0, f"The answer is ({right}).") is Verdict.CORRECT
    assert verdict(bench, 0, f"\\boxed{{{right}. Neon}}") is Verdict.CORRECT
    assert verdict(bench, 0, f"\\boxed{{{wrong}}}") is Verdict.WRONG
    assert verdict(bench, 0, f"\\boxed{{{right}}} or \\boxed{{{wrong}}}") is Verdict.WRONG


def test_a_question_without_a_choice_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"line 1: field 'Incorrect Answer 2' is empty"):
        made(tmp_path, "gpqa_diamond", {**QUESTION, "Incorrect Answer 2": " "})


def test_programs_are_run_on_public_and_hidden_cases(tmp_path):
    hidden = packed([{"input": "10 5\n", "output": "15\n", "testtype": "stdin"}])
    bench = made(tmp_path, "livecodebench", {**SUM, "private_test_cases": hidden})
    problem = bench.problems[0]
    assert problem.id == "livecodebench/abc1_a"
    assert problem.prompt == (
        "Print the sum of two numbers.\n\nRead from stdin and print to stdout. "
        "Give the whole program in one ```python block."
    )
    assert json.loads(problem.answer)["cases"] == [["1 2\n", "3\n"], ["10 5\n", "15\n"]]
    assert (
        verdict(bench, 0, "```python\nprint(sum(map(int, input().split())))\n```")
        is Verdict.CORRECT
    )
    assert verdict(bench, 0, "```python\nprint(3)\n```") is Verdict.WRONG
    assert verdict(
        bench, 0, "```python\nprint(pow(3, 1, 100) if input() == '1 2' else 15)\n```"
    ) is (Verdict.CORRECT)  # math's own pow takes two arguments


def test_methods_are_called_with_a_value_a_line(tmp_path):
    hidden = packed([{"input": "[]\n0", "output": "[]", "testtype": "functional"}])
    bench = made(tmp_path, "livecodebench", {**METHOD, "private_test_cases": hidden})
    assert "Complete this class.\n\n```python\nclass Solution:" in bench.problems[0].prompt
    head = "```python\nclass Solution:\n    def above(self, nums: List[int], limit: int) -> List[int]:\n"
    right = "        print('noise')\n        return [n for n in nums if n > limit]\n"
    assert verdict(bench, 0, f"{head}{right}print('more noise')\n```") is Verdict.CORRECT
    assert verdict(bench, 0, f"{head}        return [5, 3]\n```") is Verdict.WRONG
    assert verdict(bench, 0, f"{head}        return nums.missing\n```") is Verdict.WRONG
    assert verdict(bench, 0, "```python\ndef above(nums, limit): return []\n```") is Verdict.WRONG
    bare = "def above(nums, limit):\n    return tuple(n for n in nums if n > limit)"
    assert verdict(bench, 0, f"```python\n{bare}\n```") is Verdict.CORRECT


@pytest.mark.parametrize(
    ("expected", "found", "right"),
    [
        ("2.0", "2", True), ("2", "2.0", True), ("2.5", "2", False), ("true", "True", True),
        ("false", "1 > 0", False), ("[1,2]", "(1, 2.0)", True), ('{"a": 1, "b": [2]}', "{'b': (2,), 'a': 1}", True),
        ("null", "None", True), ("0.1", "0.1", True), ("0.3", "0.1 + 0.2", False), ('"x"', "'x'", True),
    ],
)  # fmt: skip
def test_what_a_method_gives_is_compared_as_python_values(tmp_path, expected, found, right):
    cases = [{"input": "1", "output": expected, "testtype": "functional"}]
    row = {**METHOD, "public_test_cases": json.dumps(cases), "private_test_cases": "[]"}
    bench = made(tmp_path, "livecodebench", row)
    code = f"class Solution:\n    def above(self, _):\n        return {found}"
    assert (verdict(bench, 0, f"```python\n{code}\n```") is Verdict.CORRECT) is right


def test_printed_numbers_are_compared_by_their_values(tmp_path):
    cases = [{"input": "", "output": "1 0.5\nYes\n", "testtype": "stdin"}]
    row = {**SUM, "public_test_cases": json.dumps(cases), "private_test_cases": "[]"}
    bench = made(tmp_path, "livecodebench", row)
    for printed, right in {
        "1 0.5\\nYes": True, "1.0 0.50\\nYes": True, "1 0.5 \\n Yes\\n\\n": True,
        "1\\n0.5\\nYes": False, "1 0.5000001\\nYes": False, "1 0.5\\nyes": False,
    }.items():  # fmt: skip
        text = f"```python\nprint('{printed}')\n```"
        assert (verdict(bench, 0, text) is Verdict.CORRECT) is right, printed


class Run:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_would_run_something_is_left_out(tmp_path):
    target = tmp_path / "made"
    evil = base64.b64encode(zlib.compress(pickle.dumps(Run(str(target))))).decode()
    row = {**SUM, "question_id": "evil", "private_test_cases": evil}
    good = {**SUM, "private_test_cases": "[]"}
    bench = made(tmp_path, "livecodebench", row, good)
    assert not target.exists()
    assert [problem.id for problem in bench.problems] == ["livecodebench/abc1_a"]
    [note] = bench.notes
    assert note.startswith("1 of 2 rows left out") and "evil" in note and "more than a text" in note


@pytest.mark.parametrize(
    "pickled",
    [
        pickle.dumps(["[]"]), pickle.dumps(b"[]"), b"", b".", b"\x80\x04.", pickle.dumps("[" * 100_000),
        b"\x80\x04\x8d" + (1 << 40).to_bytes(8, "little") + b"[].", pickle.dumps("[]")[:-1], b"V[]\nV[]\n.",
    ],
)  # fmt: skip
def test_a_pickle_that_is_no_text_is_left_out(tmp_path, pickled):
    hidden = base64.b64encode(zlib.compress(pickled)).decode()
    row = {**SUM, "question_id": "bad", "private_test_cases": hidden}
    bench = made(tmp_path, "livecodebench", row, {**SUM, "private_test_cases": packed([])})
    assert [problem.id for problem in bench.problems] == ["livecodebench/abc1_a"]


@pytest.mark.parametrize(
    "changed",
    [
        {"private_test_cases": "no base 64!"},
        {"private_test_cases": base64.b64encode(b"not deflated").decode()},
        {"private_test_cases": '{"a": 1}'},
        {"public_test_cases": "[]", "private_test_cases": "[]"},
        {"public_test_cases": '[{"input": "1"}]', "private_test_cases": "[]"},
        {"public_test_cases": METHOD["public_test_cases"], "private_test_cases": "[]"},
        {
            "public_test_cases": METHOD["public_test_cases"],
            "private_test_cases": "[]",
            "metadata": json.dumps({"func_name": "f()+os.system"}),
        },
    ],
)
def test_cases_that_cannot_be_read_are_told(tmp_path, changed):
    with pytest.raises(
        ValueError, match=r"livecodebench: .* has no problem that can be graded: abc1_a"
    ):
        made(tmp_path, "livecodebench", {**SUM, **changed})
