"""The audit as a command, on the files that trainers write."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from recipes.audit import main
from recipes.config import to_yaml
from recipes.presets import PRESETS
from recipes.regrading import row_tests, usable_tests
from rewards.problem import Problem, Response, Score, Verdict
from rewards.unit_tests import CallTests, StdioTests
from rollouts.records import encode_groups
from rollouts.rollout import Group, Rollout

ROOT = Path(__file__).resolve().parent.parent
EVIL = "\x1b[2J\x1b]0;owned\x07[bold red]\u202e\u200b\x9b31m<script> \\boxed{8}"


def verl(folder: Path, step: int, *rows: tuple[str, str, str, float]) -> None:
    """A step's file: (question, output, ground truth, score) under a chat template."""
    folder.mkdir(exist_ok=True)
    lines = (
        json.dumps(
            {
                "input": f"system\nThink.\nuser\n{question}\nassistant\n",
                "output": output,
                "gts": truth,
                "score": score,
                "step": step,
            },
            ensure_ascii=False,
        )
        for question, output, truth, score in rows
    )
    (folder / f"{step}.jsonl").write_text("\n".join(lines) + "\n")


def audit(*words: str | Path) -> dict:
    """The JSON file of an audit with one process."""
    out = Path("out.json")
    main([*map(str, words), "--workers", "1", "--out", str(out)])
    return json.loads(out.read_text())


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_verls_dump_from_end_to_end(capsys):
    rows = [
        ("What is 3 + 5?", "It is \\boxed{8}", "8", 1.0),
        ("What is 3 + 5?", "It is \\boxed{8} or \\boxed{9}", "8", 1.0),
        ("What is 3 + 5?", "It is \\boxed{8.0}", "8", 0.0),
        ("What is 3 + 5?", "<think>hmm", "8", 0.0),
    ]
    verl(Path("dump"), 1, *rows)
    verl(Path("dump"), 2, *rows[:2])
    found = audit("dump")
    assert (found["format"], found["files"], found["reward"]) == ("verl", 2, "math")
    assert found["completions"] == 6
    assert found["agreement"]["accepted"] == 2
    assert found["agreement"]["refused"] == 1
    assert found["wrong_grades"]["accepted"]["several answers"]["count"] == 2
    assert found["wrong_grades"]["refused"]["number form"]["count"] == 1
    assert found["verdicts"]["no_answer"]["count"] == 1
    assert found["parts"]["format"]["mean"] == 0.0
    assert found["parts"]["language"]["count"] == 6
    printed = capsys.readouterr().out
    assert printed.startswith(
        "verl: 6 completions in 2 groups, steps 1 to 2; dump, 2 files\n"
        "theirs: the dump's score, right above 0\n"
        "ours: math; reference answers: the dump's gts\n\n"
        "right by theirs: 66.7% (4 of 6)\nright by ours:   50.0% (3 of 6)\n"
    )
    assert (
        "accepted, several answers: dump/2.jsonl, row 2\n"
        "  theirs 1, ours wrong\n"
        "  reference | 8\n"
        "  prompt    | Think.\n"
        "            | user\n"
        "            | What is 3 + 5?\n"
        "            | assistant\n"
        "  response  | It is \\boxed{8} or \\boxed{9}\n"
    ) in printed
    assert "agreed: 50.0% of 6 graded by both; accepted wrongly 2, refused wrongly 1" in printed


def test_trls_table_with_answers_from_a_data_set():
    rows = [
        {"question": f"How many is {n} plus 1?", "answer": f"so\n#### {n + 1}"} for n in range(9)
    ]
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    user = [{"role": "user", "content": "How many is 3 plus 1? Box your answer."}]
    table = {
        "step": [5, 5, 5],
        "prompt": [user, user, [{"role": "user", "content": "Something else entirely?"}]],
        "completion": [[{"role": "assistant", "content": text}] for text in ("4", "5", "6")],
        "accuracy_reward": [0.0, 0.0, 1.0],
        "format_reward": [1.0, 1.0, 0.0],
        "advantage": [0.0, 0.0, 0.0],
    }
    Path("run/completions").mkdir(parents=True)
    pandas.DataFrame(table).to_parquet("run/completions/completions_00005.parquet")
    found = audit("run", "--answers", "train.jsonl")
    assert found["format"] == "trl"
    assert found["agreement"]["refused"] == 1
    assert found["agreement"]["both_wrong"] == 1
    assert found["ungraded"] == {"no_answer_to_grade_against": 1}
    assert found["rewards"]["format_reward"]["mean"] == pytest.approx(2 / 3)
    assert found["groups"]["no_signal_by_their_rewards"]["count"] == 1
    assert found["groups"]["no_signal_by_our_verdicts"]["count"] == 0


def run_folder(folder: Path, *members: tuple[str, float]) -> None:
    problem = Problem(id="a", prompt="What is 3 + 5?", answer="8", source="arithmetic/add")
    rollouts = tuple(
        Rollout(
            token_ids=(1, 2),
            sampled=(False, True),
            logprobs=(0.0, -0.5),
            response=Response(text=text, num_tokens=1, max_tokens=8),
            score=Score(value=value, verdict=Verdict.CORRECT if value else Verdict.WRONG),
            versions=((0, 1, 2),),
        )
        for text, value in members
    )
    (folder / "rollouts").mkdir(parents=True)
    file = folder / "rollouts" / "round-000000.jsonl.zst"
    file.write_bytes(encode_groups([Group(problem=problem, rollouts=rollouts)]))


def test_a_run_of_ours_by_its_own_reward_with_its_logged_mismatch(capsys):
    run_folder(Path("run"), ("8", 1.0), ("9", 1.0), ("eight", 0.0))
    Path("run/config.yaml").write_text(to_yaml(PRESETS["quickstart"]()))
    lines = [
        {"round": 0, "mismatch/abs": 0.02, "mismatch/max": 0.3},
        {"round": 1, "mismatch/abs": 0.04, "mismatch/max": 0.2},
        {"round": 2},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    Path("run/metrics.jsonl").write_text(text + '{"round": 3, "mism')
    found = audit("run")
    assert found["reward"] == "the run's own, of the task arithmetic"
    assert found["agreement"]["accepted"] == 1
    assert found["texts"]["truncated"] == {"count": 0, "of": 3, "frac": 0.0}
    assert found["logged_mismatch"] == {
        "rounds": 2,
        "abs": 0.03,
        "worst_round": 1,
        "abs_of_worst": 0.04,
        "max": 0.3,
    }
    assert "metrics.jsonl over 2 rounds: abs 0.03 (worst round 1: 0.04), max 0.3" in (
        capsys.readouterr().out
    )


def test_hostile_text_reaches_neither_the_terminal_nor_the_file_raw(capsys):
    verl(Path("dump"), 1, ("What is 3 + 5?", EVIL, "8", 0.0), (EVIL, "9", "9", 1.0))
    found = audit("dump")
    printed = capsys.readouterr().out
    assert found["agreement"]["refused"] == 1
    kept = found["wrong_grades"]["refused"]["place: box"]["examples"][0]
    assert kept["response_end"] == EVIL
    assert Path("out.json").read_bytes().isascii()
    for text in (printed.replace("\n", ""), Path("out.json").read_text().replace("\n", "")):
        assert not any(bad in text for bad in "\x1b\x07\u202e\u200b\x9b")
    assert "\\x1b[2J\\x1b]0;owned\\x07[bold red]\\u202e\\u200b\\x9b31m<script>" in printed


def test_a_reference_that_our_reward_does_not_read_grades_nobody():
    verl(
        Path("dump"),
        1,
        ("Prove it.", "\\boxed{4}", "Proof. It is so. " * 80, 1.0),
        ("What is 3 + 5?", "\\boxed{8}", "8", 1.0),
    )
    found = audit("dump")
    assert found["ungraded"] == {"reference_not_read": 1}
    assert found["agreement"]["both_graded"] == 1


def test_programs_are_run_by_their_tests():
    cases = json.dumps({"inputs": ["1 2\n"], "outputs": ["3\n"]})
    add = "```python\na, b = map(int, input().split())\nprint(a + b)\n```"
    verl(
        Path("dump"), 1, ("Add.", add, cases, 0.0), ("Add.", "```python\nprint(4)\n```", cases, 1.0)
    )
    found = audit("dump")
    assert found["reward"] == "code"
    assert list(found["wrong_grades"]["refused"]) == ["correct"]
    assert list(found["wrong_grades"]["accepted"]) == ["wrong"]


def test_tests_of_rows_and_of_references(data):
    row = json.loads((data / "humaneval" / "test.jsonl").read_text().splitlines()[0])
    assert json.loads(row_tests(row, "", "a"))["names"] == [row["entry_point"]]
    row = json.loads((data / "mbpp_sanitized" / "test.jsonl").read_text().splitlines()[0])
    assert json.loads(row_tests(row, "", "a"))["tests"] == row["test_list"]
    cases = [{"input": "1", "output": "2"}]
    assert json.loads(row_tests({"tests": cases}, "", "a"))["cases"] == [["1", "2"]]
    own = StdioTests(cases=(("1", "2"),)).to_json()
    assert usable_tests(own) == own
    calls = CallTests(names=("f",), tests=("assert f(1) == 2",)).to_json()
    assert usable_tests(calls) == calls
    by_name = {"fn_name": "f", "inputs": ["1"], "outputs": ["2"]}
    for useless in (None, "8", "{", [], {"inputs": [1], "outputs": [2]}, by_name):
        assert usable_tests(useless) is None


OWN = """
def right(problem, text):
    return float(text.strip().endswith(problem.answer))
def trl(completions, answer, **columns):
    return [float(a in c) for a, c in zip(answer, completions)]
def group(problem, responses):
    return [0.0 for r in responses]
def broken(problem, text):
    raise RuntimeError("no")
"""


def test_ones_own_reward(monkeypatch, here):
    Path("mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    verl(Path("dump"), 1, ("a?", "so 8", "8", 0.0), ("a?", "8 it is", "8", 1.0))
    found = audit("dump", "--reward", "mine:right")
    assert list(found["wrong_grades"]["accepted"]) == ["wrong"]
    assert audit("dump", "--reward", "mine:trl")["agreement"]["refused"] == 1
    with pytest.raises(ValueError, match="takes a group's responses together"):
        audit("dump", "--reward", "mine:group")
    with pytest.raises(ValueError, match=r"raised RuntimeError: no"):
        audit("dump", "--reward", "mine:broken")
    sys.modules.pop("mine", None)


def test_rows_that_cannot_be_read_are_refused_or_counted(capsys):
    verl(Path("dump"), 1, *[("What is 3 + 5?", "8", "8", 1.0)] * 3)
    text = Path("dump/1.jsonl").read_text()
    Path("dump/1.jsonl").write_text(text[: len(text) - 9])
    with pytest.raises(ValueError, match=r"1\.jsonl, line 3: not valid JSON.*half-written.*skip"):
        audit("dump")
    found = audit("dump", "--bad-rows", "skip")
    assert found["completions"] == 2
    assert found["left_out"] == {"not valid JSON": {"count": 1, "first": "dump/1.jsonl, line 3"}}
    assert (
        "left out: 1 x not valid JSON (the first: dump/1.jsonl, line 3)" in capsys.readouterr().out
    )


def test_without_grading():
    verl(Path("dump"), 1, ("a?", "no " * 99, "", 1.0))
    found = audit("dump", "--reward", "none", "--limit", "1")
    assert found["texts"]["loop"]["frac"] == 1.0
    assert found["agreement"]["both_graded"] == 0


def test_the_command_says_in_one_line_what_is_wrong():
    verl(Path("dump"), 1, ("a?", "8", "8", 1.0))
    verl(Path("bare"), 1, ("a?", "8", None, 1.0))
    Path("empty").mkdir()
    Path("odd.jsonl").write_text('{"question": 1}\n')
    Path("answers.jsonl").write_text(
        '{"question": "Another question altogether?", "answer": "1"}\n'
    )
    for words, message in {
        "absent": "error: absent is not there: name a file or folder of completions",
        "empty": "error: empty holds nothing; known are a run folder of ours",
        "odd.jsonl": "error: odd.jsonl: its first row has the fields ['question']; known are",
        "bare": "error: no answers to grade against in 1 completions: name the field",
        "dump --answers answers.jsonl": "error: none of 1 prompts holds a question of --answers",
        "dump --answers no/such/file.jsonl": "error: 'no/such/file.jsonl' is not a file",
        "dump --reward maths": "error: --reward is 'maths': use math, code, none, or",
        "dump --workers 0": "error: --workers is 0: model text is graded in other processes",
        "dump --theirs accuracy": "error: dump/1.jsonl, row 1: no field 'accuracy'; the fields",
        "dump --examples 0": "error: --examples is 0: use 1 or more",
        "dump --question-column q": "error: --question-column names a field of --answers: give both",
        "dump --out empty": "error: --out is empty, a folder: name a file",
        "dump --out no/out.json": "error: --out is no/out.json, but no is no folder",
    }.items():
        done = command(words)
        assert done.returncode == 2, words
        assert done.stderr.startswith(message), done.stderr
        assert done.stderr.count("\n") == 1


def command(words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "recipes.audit", *words.split()],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_large_dump_takes_no_more_memory_than_a_small_one():
    """Resident memory at its peak: texts of the large dump alone come to 30 MB."""

    def peak(number: int) -> float:
        code = (
            "import resource, sys; from recipes.audit import main; main(sys.argv[1:]); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "dump", "--reward", "none", "--limit", str(number)],
            env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout.splitlines()[-1]) / 1024

    row = ("What is 3 + 5?", "word " * 1000 + "8", "8", 1.0)
    for step in range(12):
        verl(Path("dump"), step, *[row] * 500)
    small, large = peak(500), peak(6_000)
    assert large - small < 10


def test_it_needs_no_torch():
    code = "import recipes.audit, sys; print('torch' in sys.modules, 'vllm' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False\n"
