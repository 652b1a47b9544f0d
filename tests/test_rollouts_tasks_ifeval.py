"""IFEval's rows as problems, and as a benchmark from a folder."""

import json

import pytest

pytest.importorskip("if_verifiable", reason="the extra ifeval is not installed")
pytest.importorskip("punkt", reason="the extra ifeval is not installed")

from eval.benchmarks import benchmark
from rewards.problem import Problem, Response, Verdict
from rollouts.tasks.ifeval import IfEval

ROWS = [
    {
        "key": 1000,
        "prompt": "Write four words without commas.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{"num_words": None}, {"relation": "at least", "num_words": 4}],
    },
    {
        "key": 1001,
        "prompt": "Answer in capital letters.",
        "instruction_id_list": ["change_case:english_capital"],
        "kwargs": [{}],
    },
]


def write(folder, *rows):
    path = folder / "ifeval" / "train.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_row_is_a_problem(tmp_path):
    task = IfEval(path=str(write(tmp_path, *ROWS)))
    first, second = task.problems("test")
    answer = json.dumps({name: ROWS[0][name] for name in ("instruction_id_list", "kwargs")})
    assert first == Problem(
        id="ifeval/1000", prompt=ROWS[0]["prompt"], answer=answer, source="ifeval"
    )
    assert second.id == "ifeval/1001" and task.problems("train") == []
    assert task.score(first, Response(text="one two three four")).value == 1.0


def test_the_benchmark_reads_the_folder(tmp_path):
    path = write(tmp_path, *ROWS)
    bench = benchmark("ifeval", data=tmp_path)
    assert (bench.origin, bench.split, bench.kind, bench.votes) == (
        str(path),
        "train",
        "own",
        False,
    )
    assert [problem.id for problem in bench.problems] == ["ifeval/1000", "ifeval/1001"]
    score = bench.reward(bench.problems[0], Response(text="Sure,\none two three four"))
    assert score.verdict is Verdict.WRONG
    assert score.parts == {"strict": 0.0, "loose": 1.0, "strict_share": 0.5, "loose_share": 1.0}


def test_a_row_that_cannot_be_checked_is_named(tmp_path):
    path = write(tmp_path, *ROWS, {**ROWS[1], "key": 1002, "instruction_id_list": ["a:b"]})
    with pytest.raises(ValueError, match=f"{path}, line 3: unknown instruction 'a:b'"):
        benchmark("ifeval", data=tmp_path)
    write(tmp_path, {"key": 1, "prompt": "?"})
    with pytest.raises(ValueError, match=r"line 1: no field 'instruction_id_list'"):
        benchmark("ifeval", data=tmp_path)
