"""Replaying a reward over saved rollouts, in a folder and in a file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from recipes.try_reward import main, read_saved
from rewards.problem import Problem, Response, Score, Verdict
from rollouts.records import encode_groups
from rollouts.rollout import Group, Rollout

ROOT = Path(__file__).resolve().parent.parent
OWN = """
import os
def right(problem, text):
    if text == "crash":
        os._exit(1)
    if text == "raise":
        raise RuntimeError(f"cannot read \\x1b[2J")
    return float(text == problem.answer)
def longest(problem, responses):
    best = max(len(r.text) for r in responses)
    return [float(len(r.text) == best) for r in responses]
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a person's own module, which is the current one."""
    (tmp_path / "tried.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tried", raising=False)
    yield tmp_path
    sys.modules.pop("tried", None)


def write_round(folder: Path, index: int, *members: tuple[str, float]) -> None:
    problem = Problem(id=f"sum/{index}", prompt="3 + 5?", answer="8", source="sum")
    rollouts = tuple(
        Rollout(
            token_ids=(1, 2),
            sampled=(False, True),
            logprobs=(0.0, -0.5),
            response=Response(text=text),
            score=Score(value=value, verdict=Verdict.CORRECT if value else Verdict.WRONG),
            versions=((0, 1, 2),),
        )
        for text, value in members
    )
    path = folder / "rollouts" / f"round-{index:06d}.jsonl.zst"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_groups([Group(problem=problem, rollouts=rollouts)]))


def lines(printed: str) -> list[str]:
    return [" ".join(line.split()) for line in printed.splitlines()]


def test_a_run_folder_is_replayed(own, capsys):
    write_round(own / "run", 0, ("8", 1.0), ("9", 0.0), ("eight", 1.0))
    write_round(own / "run", 1, ("crash", 1.0), ("raise", 0.0), ("8", 1.0))
    main(["tried:right", "run", "--workers", "1"])
    found = lines(capsys.readouterr().out)
    assert found[0] == "6 responses, 2 groups; processes: 1"
    # 2 of 6 are right: mean 1/3, standard deviation sqrt(1/3 * 2/3).
    assert found[1] == "value mean 0.3333, std 0.4714, min 0, max 1"
    assert found[2:4] == ["0 4 ###########################", "1 2 #############"]
    assert found[4] == "verdict correct 2, wrong 2, malformed 1, grader_error 1"
    assert "failures 2" in found
    assert "1 x ended with exit code 1; the first: 'sum/1' 'crash'" in found
    assert any(
        line.startswith(r"1 x raised RuntimeError: cannot read \x1b[2J (tried.py, line")
        for line in found
    )
    assert found[-3:] == [
        "recorded 6 values, 2 of them differ",
        "recorded 1, now 0 'sum/0' 'eight'",
        "recorded 1, now 0 'sum/1' 'crash'",
    ]


def test_the_slowest_come_first(own, capsys):
    (own / "tried.py").write_text(
        "import time\ndef naps(problem, text):\n    time.sleep(float(text))\n    return 1.0\n"
    )
    write_round(own / "run", 0, ("0.01", 1.0), ("0.2", 1.0), ("0.1", 1.0))
    main(["tried:naps", "run", "--workers", "1"])
    found = lines(capsys.readouterr().out)
    start = found.index(next(line for line in found if line.startswith("slowest of 0.3")))
    assert [line.rpartition(" ")[2] for line in found[start + 1 : start + 4]] == [
        "'0.2'",
        "'0.1'",
        "'0.01'",
    ]


def test_a_file_of_rows_and_a_group_reward(own, capsys):
    rows = [
        {"prompt": "a?", "answer": 8, "response": "12", "reward": 0},
        {"prompt": "a?", "answer": 8, "completion": "123"},
        {"prompt": "b?", "answer": "8", "text": "1", "reward": 1.0},
    ]
    (own / "rows.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    saved = list(read_saved(Path("rows.jsonl")))
    assert [len(group.responses) for group in saved] == [2, 1]
    assert [group.recorded for group in saved] == [(0, None), (1.0,)]
    main(["tried:longest", "rows.jsonl", "--workers", "2"])
    found = lines(capsys.readouterr().out)
    assert found[:2] == [
        "3 responses, 2 groups; processes: 2",
        "value mean 0.6667, std 0.4714, min 0, max 1",
    ]
    assert found[-1] == "recorded 2 values, 0 of them differ"
    main(["tried:longest", "rows.jsonl", "--workers", "1", "--limit", "1"])
    assert lines(capsys.readouterr().out)[0] == "2 responses, 1 groups; processes: 1"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "rows.jsonl, line 1: not valid JSON"),
        ("[1]", "rows.jsonl, line 1: prompt, answer and response are needed; it has list"),
        ('{"prompt": "a", "answer": "8"}', "response are needed; it has prompt, answer"),
        (
            '{"prompt": "a", "answer": "8", "text": "8", "reward": "1"}',
            "reward is '1'; a number is needed",
        ),
    ],
)
def test_a_row_that_cannot_be_read_is_named(own, row, message):
    (own / "rows.jsonl").write_text(row)
    with pytest.raises(ValueError, match=message):
        list(read_saved(Path("rows.jsonl")))


def test_the_command_says_in_one_line_what_is_wrong(own):
    write_round(own / "run", 0, ("8", 1.0))
    (own / "empty" / "rollouts").mkdir(parents=True)
    for words, message in {
        ("tried:right", "absent"): "error: absent is no run folder and no file: name either",
        ("tried:right", "empty"): "error: empty holds no rollouts yet",
        (
            "tried:wrong",
            "run",
        ): "error: the reward 'tried:wrong': tried has no 'wrong'; it has right",
        ("tried:right", "run", "--workers", "0"): "error: --workers is 0: a reward is tried in",
    }.items():
        done = subprocess.run(
            [sys.executable, "-m", "recipes.try_reward", *words],
            cwd=own,
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.startswith(message)
        assert done.stderr.count("\n") == 1


def test_nothing_heavy_is_loaded():
    code = "import recipes.try_reward, sys; print('torch' in sys.modules, 'vllm' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False\n"
