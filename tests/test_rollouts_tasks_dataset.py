"""Data sets from every kind of file, verl's and TRL's columns, own test rows, bad rows."""

import csv
import json
import logging
from pathlib import Path

import pytest

from rewards.problem import Response
from rollouts.tasks.dataset import Competition, Dataset, Gsm8k
from rollouts.tasks.rows import read_rows

SPLITS = ("train", "validation", "test")
ROWS = [{"prompt": f"{i} + 1?", "answer": str(i + 1)} for i in range(40)]


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def everything(task: Dataset) -> list:
    return [problem for split in SPLITS for problem in task.problems(split)]


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
def test_each_kind_of_file_gives_the_same_problems(tmp_path, ending):
    task = Dataset(path=str(write(tmp_path / f"sums{ending}", ROWS)))
    found = {(p.prompt, p.answer, p.source) for p in everything(task)}
    assert found == {(f"{i} + 1?", str(i + 1), "sums") for i in range(40)}
    assert all(task.problems(split) for split in SPLITS)


def test_verls_parquet(tmp_path):
    rows = [
        {
            "data_source": f"school/{i % 2}",
            "prompt": [{"role": "user", "content": f"{i} + 1?"}],
            "reward_model": {"style": "rule", "ground_truth": str(i + 1)},
        }
        for i in range(20)
    ]
    task = Dataset(
        path=str(write(tmp_path / "verl.parquet", rows)),
        answer_column="reward_model.ground_truth",
        source_column="data_source",
        instruction="not for conversations",
    )
    problems = everything(task)
    assert len(problems) == 20
    first = next(p for p in problems if p.answer == "1")
    assert first.prompt == ({"role": "user", "content": "0 + 1?"},)
    assert first.source == "verl/school/0"
    assert task.score(first, Response(text="so 1")).value == 1.0
    assert task.score(first, Response(text="so 2")).value == 0.0


def test_verls_parquet_as_pandas_writes_it(tmp_path):
    pandas, numpy = pytest.importorskip("pandas"), pytest.importorskip("numpy")
    truths = {
        "text": [str(i + 1) for i in range(20)],
        "int": [i + 1 for i in range(20)],
        "list": [numpy.array([str(i + 1)], dtype=object) for i in range(20)],
    }
    for kind, answers in truths.items():
        rows = [
            {
                "data_source": "school",
                "prompt": numpy.array([{"content": f"{i} + 1?", "role": "user"}], dtype=object),
                "ability": "math",
                "reward_model": {"ground_truth": answer, "style": "rule"},
                "extra_info": {"index": i, "split": "train"},
            }
            for i, answer in enumerate(answers)
        ]
        path = tmp_path / f"{kind}.parquet"
        pandas.DataFrame(rows).to_parquet(path)
        task = Dataset(path=str(path), answer_column="reward_model.ground_truth")
        problems = everything(task)
        assert sorted(int(p.answer) for p in problems) == list(range(1, 21))
        for problem in problems:
            [turn] = problem.prompt
            assert turn == {"role": "user", "content": f"{int(problem.answer) - 1} + 1?"}
            assert task.score(problem, Response(text=problem.answer)).value == 1.0


def test_trls_parquet_as_datasets_writes_it(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [
        {
            "prompt": [
                {"role": "system", "content": "Think."},
                {"role": "user", "content": f"{i} + 1?"},
            ],
            "solution": f"It is \\boxed{{{i + 1}}}",
        }
        for i in range(20)
    ]
    path = tmp_path / "trl.parquet"
    datasets.Dataset.from_list(rows).to_parquet(path)
    task = Dataset(path=str(path), answer_column="solution")
    problems = everything(task)
    assert len(problems) == 20
    assert all(len(p.prompt) == 2 and p.prompt[0]["role"] == "system" for p in problems)
    first = next(p for p in problems if p.prompt[1]["content"] == "6 + 1?")
    assert task.score(first, Response(text="So 7.")).value == 1.0


def test_trls_conversations_with_a_solution(tmp_path):
    rows = [{"prompt": [{"role": "user", "content": "1 + 1?"}], "solution": r"so \boxed{2}"}]
    task = Dataset(path=str(write(tmp_path / "trl.jsonl", rows)), answer_column="solution")
    [problem] = everything(task)
    assert task.score(problem, Response(text="It is 2.")).value == 1.0


def test_own_test_rows_are_the_test_split_and_leave_training(tmp_path):
    folder = tmp_path / "own"
    write(folder / "train.jsonl", [*ROWS, {"prompt": "7  plus 7?", "answer": "14"}])
    write(folder / "test.jsonl", [{"prompt": "7 plus 7?", "answer": "14"}, *ROWS[:2]])
    task = Dataset(path=str(folder), test_split="test")
    test = task.problems("test")
    assert [p.prompt for p in test] == ["7 plus 7?", "0 + 1?", "1 + 1?"]
    others = {p.prompt for split in ("train", "validation") for p in task.problems(split)}
    assert others == {f"{i} + 1?" for i in range(2, 40)}
    assert 0 < len(task.problems("validation")) < 12


def test_bad_answers_are_counted_and_named_or_left_out(tmp_path, caplog):
    rows = [*ROWS, *({"prompt": f"which {i}?", "answer": f"none {i}x"} for i in "abcd")]
    path = str(write(tmp_path / "some.jsonl", rows))
    with pytest.raises(
        ValueError, match=r"^4 of 44 answers in field 'answer' cannot be"
    ) as refused:
        Dataset(path=path, reward="numeric").problems("train")
    message = str(refused.value)
    assert "line 41: 'none ax'; " in message
    assert "none dx" not in message
    assert message.endswith("leave them out with --task.bad-answers skip")
    with caplog.at_level(logging.WARNING, logger="rollouts.tasks.dataset"):
        assert len(everything(Dataset(path=path, reward="numeric", bad_answers="skip"))) == 40
    assert [r.getMessage() for r in caplog.records] == [
        f"{path}: left out 4 rows whose answer cannot be graded"
    ]


def test_rows_without_an_answer_are_counted_and_named_with_the_bad_ones(tmp_path):
    answers = [None, "", ["3", "4"], [], {"a": 1}, True, "none x"]
    rows = [*ROWS, *({"prompt": f"which {a}?", "answer": a} for a in answers), {"prompt": "alone?"}]
    path = str(write(tmp_path / "some.jsonl", rows))
    with pytest.raises(ValueError, match=r"^8 of 48 answers in field 'answer' cannot") as refused:
        Dataset(path=path, reward="numeric").problems("train")
    assert "line 41: field 'answer' is None; give a text or a number; " in str(refused.value)
    assert len(everything(Dataset(path=path, reward="numeric", bad_answers="skip"))) == 40
    alone = str(write(tmp_path / "alone.jsonl", [{"prompt": "1?", "anwser": "1"}] * 3))
    with pytest.raises(ValueError, match=r"line 1: no field 'answer'; .* did you mean 'anwser'\?$"):
        Dataset(path=alone).problems("train")


def test_what_is_not_there_is_said_in_one_line(tmp_path):
    write(tmp_path / "train.jsonl", ROWS)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"no file of the split 'test'; it holds train\.jsonl$"):
        Dataset(path=str(tmp_path), test_split="test").problems("train")
    with pytest.raises(ValueError, match=r"notes\.txt' is none of \.jsonl, \.json, \.csv, \.parq"):
        Dataset(path=str(tmp_path / "notes.txt")).problems("train")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"cut\.parquet: no whole parquet file"):
        Dataset(path=str(tmp_path / "cut.parquet")).problems("train")
    with pytest.raises(ValueError, match=r"no field 'reward_model.truth'; the fields are 'trut'"):
        row = {"prompt": "1?", "reward_model": {"trut": "1"}}
        Dataset(
            path=str(write(tmp_path / "deep.jsonl", [row])), answer_column="reward_model.truth"
        ).problems("train")


def test_an_unreachable_hub_is_one_line(monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setattr(
        "datasets.load_dataset", lambda *a, **k: (_ for _ in ()).throw(OSError("x\ny"))
    )
    with pytest.raises(
        ValueError, match=r"^the data set 'a/b/main' cannot be had \(OSError: x y\)"
    ):
        list(read_rows("a/b", "main", "train"))


def test_gsm8k_from_a_folder(data):
    task = Gsm8k(path=str(data / "gsm8k"))
    sizes = {split: len(task.problems(split)) for split in SPLITS}
    assert sizes["test"] == 1319
    assert sizes["train"] + sizes["validation"] == 7473
    assert 0.09 < sizes["validation"] / 7473 < 0.11
    problems = everything(task)
    assert sum(task.score(p, Response(text=p.answer)).value for p in problems) == 8792


def test_competition_mathematics_from_a_folder(data):
    task = Competition(path=str(data / "math"))
    assert len(task.problems("test")) == 5000
    problem = task.problems("test")[0]
    assert problem.source.startswith("competition/")
    assert task.score(problem, Response(text=problem.answer)).value == 1.0


@pytest.mark.parametrize(
    ("name", "prompt", "answer", "num_rows"),
    [
        ("math500/test", "problem", "answer", 500),
        ("minervamath/test", "question", "answer", 272),
        ("aime_2024/train", "problem", "answer", 30),
        ("simplerl_math_8k/train", "problem", "answer", 8513),
    ],
)
def test_each_reference_scores_itself(data, name, prompt, answer, num_rows):
    path = str(data / f"{name}.jsonl")
    task = Dataset(path=path, prompt_column=prompt, answer_column=answer, name="x")
    assert len(everything(task)) >= 0.98 * num_rows  # repeated questions are kept once
