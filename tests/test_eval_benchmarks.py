"""Every benchmark from a folder and from the hub's cache, its graders on what the data hold."""

import json
import logging
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from eval.benchmarks import benchmark, benchmark_names, data_folder
from rewards.problem import Response, Verdict

ROOT = Path(__file__).parents[1]

SIZES = {
    "math500": 500, "aime_2024": 30, "aime_2025": 30, "amc23": 40, "gsm8k": 1319,
    "minervamath": 272, "olympiadbench": 675, "math": 5000, "svamp": 1000, "humaneval": 164,
    "mbpp": 499, "mbpp_sanitized": 257,
}  # fmt: skip
"""Problems of each in the folder of data; MBPP's task 367 needs a class of its solution."""

GENERATED = {"arithmetic": 240, "countdown": 408, "instructions": 139, "steps": 975}


def write(path: Path, *rows: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def graded(bench, index: int, text: str) -> Verdict:
    return bench.reward(bench.problems[index], Response(text=text)).verdict


def row_of(data: Path, name: str, index: int) -> dict:
    split = benchmark(name, data=data).split
    return json.loads((data / name / f"{split}.jsonl").read_text().splitlines()[index])


@pytest.mark.parametrize("name", SIZES)
def test_a_benchmark_of_the_folder(data, name):
    bench = benchmark(name, data=data)
    assert len(bench.problems) == SIZES[name]
    ids = [problem.id for problem in bench.problems]
    assert len(set(ids)) == len(ids)
    assert all(id_.startswith(f"{name}/") for id_ in ids)
    assert bench.origin == str(data / name / f"{bench.split}.jsonl")
    pickle.dumps(bench.reward)
    first = bench.problems[0]
    assert bench.reward(first, Response(text="")).verdict is Verdict.NO_ANSWER
    assert bench.reward(first, Response(text="\\boxed{zzz}")).value == 0.0


@pytest.mark.parametrize("name", SIZES)
def test_the_kind_and_samples_follow_the_protocol(data, name):
    bench = benchmark(name, data=data)
    assert bench.num_samples == {30: 64, 40: 64, 1319: 8}.get(len(bench.problems), 16)
    assert bench.votes == (bench.kind == "mathematics")


@pytest.mark.parametrize(
    "name", [n for n in SIZES if n not in ("humaneval", "mbpp", "mbpp_sanitized", "math")]
)
def test_every_reference_is_right_and_stays_when_it_is_read_again(data, name):
    bench = benchmark(name, data=data)
    assert not any("not even their reference" in note for note in bench.notes)
    assert benchmark(name, data=data).digest() == bench.digest()


@pytest.mark.parametrize("name", GENERATED)
def test_the_generated_ones(name):
    bench = benchmark(name)
    assert (len(bench.problems), bench.split, bench.origin) == (
        GENERATED[name], "test", "generated",
    )  # fmt: skip
    assert bench.kind == "own"


COLUMNS = {
    "math500": ("HuggingFaceH4/MATH-500", "default", "problem solution answer subject level unique_id"),
    "aime_2024": ("HuggingFaceH4/aime_2024", "default", "id problem solution answer url year"),
    "aime_2025": ("MathArena/aime_2025", "default", "problem_idx problem answer"),
    "amc23": ("math-ai/amc23", "default", "id question answer url"),
    "gsm8k": ("openai/gsm8k", "main", "question answer"),
    "minervamath": ("math-ai/minervamath", "default", "question answer"),
    "olympiadbench": (
        "Hothan/OlympiadBench", "OE_TO_maths_en_COMP",
        "id subfield context question solution final_answer is_multiple_answer unit answer_type error",
    ),
    "math": ("DigitalLearningGmbH/MATH-lighteval", "default", "problem level type solution"),
    "svamp": ("ChilleD/SVAMP", "default", "ID Body Question Equation Answer Type question_concat"),
    "humaneval": (
        "openai/openai_humaneval", "openai_humaneval",
        "task_id prompt canonical_solution test entry_point",
    ),
    "mbpp": (
        "google-research-datasets/mbpp", "full",
        "task_id text code test_list test_setup_code challenge_test_list",
    ),
    "mbpp_sanitized": (
        "google-research-datasets/mbpp", "sanitized",
        "source_file task_id prompt code test_imports test_list",
    ),
}  # fmt: skip
"""Of each: the hub's id, configuration and columns, without what the folder's files add."""

FROM_THE_HUB = """
import json, os, sys
from pathlib import Path
import datasets
import pyarrow
from datasets.naming import camelcase_to_snakecase, filename_prefix_for_split
from eval.benchmarks import benchmark

data, cache = Path(sys.argv[1]), Path(os.environ["HF_DATASETS_CACHE"])
for name, (path, config, columns) in json.loads(sys.argv[2]).items():
    folder = benchmark(name, data=data)
    lines = (data / name / f"{folder.split}.jsonl").read_text().splitlines()
    rows = [{column: json.loads(line)[column] for column in columns.split()} for line in lines]
    owner, _, last = path.partition("/")
    place = cache / f"{owner}___{camelcase_to_snakecase(last)}" / config / "0.0.0" / "1"
    place.mkdir(parents=True)
    table = datasets.Dataset.from_list(rows)
    prefix = filename_prefix_for_split(last, folder.split)
    arrow = table.data.table
    with pyarrow.OSFile(str(place / f"{prefix}.arrow"), "wb") as file:
        with pyarrow.ipc.new_stream(file, arrow.schema) as stream:
            stream.write_table(arrow)
    split = datasets.SplitInfo(name=folder.split, num_examples=len(rows), dataset_name=last)
    datasets.DatasetInfo(
        features=table.features, splits=datasets.splits.SplitDict({folder.split: split}),
        config_name=config, dataset_name=last, version=datasets.Version("0.0.0"),
    ).write_to_directory(str(place))
    hub = benchmark(name)
    print(name, hub.problems == folder.problems, hub.digest() == folder.digest(), hub.origin)
"""


def test_the_hub_gives_the_same_problems_and_ids(data, tmp_path):
    environ = {name: value for name, value in os.environ.items() if name != "GROUPWISE_DATA"}
    done = subprocess.run(
        [sys.executable, "-c", FROM_THE_HUB, str(data), json.dumps(COLUMNS)],
        cwd=ROOT,
        env={
            **environ,
            "PYTHONPATH": str(ROOT),
            "HF_HOME": str(tmp_path),
            "HF_DATASETS_CACHE": str(tmp_path / "datasets"),
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    expected = {
        f"{name} True True {path}{'' if config in ('default', 'openai_humaneval') else '/' + config}"
        for name, (path, config, _) in COLUMNS.items()
    }
    assert set(done.stdout.splitlines()) == expected


def test_aime_with_and_without_leading_zeros(data):
    bench = benchmark("aime_2024", data=data)
    [padded] = [i for i, p in enumerate(bench.problems) if p.answer == "025"]
    assert graded(bench, padded, "so \\boxed{25}") is Verdict.CORRECT
    assert graded(bench, padded, "so \\boxed{025}") is Verdict.CORRECT
    assert graded(bench, padded, "so \\boxed{250}") is Verdict.WRONG
    later = benchmark("aime_2025", data=data)  # its answers are whole numbers in JSON
    assert later.problems[0].answer == "70"
    assert graded(later, 0, "so \\boxed{070}") is Verdict.CORRECT


def test_amc_in_both_spellings_of_its_copies(data, tmp_path):
    rows = [row_of(data, "amc23", i) for i in range(3)]
    write(
        tmp_path / "amc23" / "test.jsonl",
        *[{**row, "answer": f"{row['answer']}.0"} for row in rows],
    )
    ours, other = benchmark("amc23", data=data), benchmark("amc23", data=tmp_path)
    for i, row in enumerate(rows):
        assert ours.problems[i].id == other.problems[i].id
        for bench in (ours, other):
            assert graded(bench, i, f"\\boxed{{{row['answer']}}}") is Verdict.CORRECT
            assert graded(bench, i, f"\\boxed{{{row['answer']}.0}}") is Verdict.CORRECT
            assert graded(bench, i, f"\\boxed{{{row['answer']}1}}") is Verdict.WRONG


def test_svamp_with_floats(tmp_path):
    row = {"question_concat": "Jack has 8.0 and 6.0 apples. How many?", "Answer": 14.0}
    write(tmp_path / "svamp" / "test.jsonl", row, {**row, "question_concat": "2?", "Answer": "0.5"})
    bench = benchmark("svamp", data=tmp_path)
    assert [problem.answer for problem in bench.problems] == ["14.0", "0.5"]
    assert graded(bench, 0, "He has 14 apples.") is Verdict.CORRECT
    assert graded(bench, 0, "He has 14.5 apples.") is Verdict.WRONG
    assert graded(bench, 1, "\\boxed{1/2}") is Verdict.CORRECT


def test_math_takes_the_box_of_the_solution(data):
    bench = benchmark("math", data=data)
    assert graded(bench, 0, row_of(data, "math", 0)["solution"]) is Verdict.CORRECT
    assert graded(bench, 0, "\\boxed{3}") is Verdict.WRONG


def test_olympiad_lists_and_tolerances(data):
    bench = benchmark("olympiadbench", data=data)
    places = {problem.answer: i for i, problem in enumerate(bench.problems)}
    pair = places["$69$,$84$"]
    assert graded(bench, pair, "\\boxed{84, 69}") is Verdict.CORRECT
    assert graded(bench, pair, "\\boxed{69}") is Verdict.WRONG
    bound = places['{"answer": "4.2", "tolerance": "1e-1"}']
    for answer, verdict in {
        "4.2": Verdict.CORRECT, "4.1": Verdict.CORRECT, "4.3": Verdict.CORRECT,
        "4.2\\%": Verdict.CORRECT, "4.31": Verdict.WRONG, "4.09": Verdict.WRONG, "x": Verdict.MALFORMED,
    }.items():  # fmt: skip
        assert graded(bench, bound, f"\\boxed{{{answer}}}") is verdict, answer
    assert graded(bench, bound, "no idea") is Verdict.NO_ANSWER


def test_olympiad_answers_in_several_items(tmp_path):
    row = {"question": "Roots?", "subfield": "Algebra", "final_answer": ["1", "-1"], "error": None}
    other = {**row, "question": "Set?", "final_answer": ["\\{1, 2\\}"]}
    write(tmp_path / "olympiadbench" / "train.jsonl", row, other)
    bench = benchmark("olympiadbench", data=tmp_path)
    assert bench.problems[0].answer == "1, -1"
    assert bench.problems[0].source == "olympiadbench/Algebra"
    assert graded(bench, 0, "\\boxed{-1, 1}") is Verdict.CORRECT
    assert graded(bench, 0, "\\boxed{1}") is Verdict.WRONG
    assert graded(bench, 1, "\\boxed{\\{2, 1\\}}") is Verdict.CORRECT


@pytest.mark.parametrize("error", ["about 1", "1e-1,1e-2"])
def test_olympiad_tolerances_that_are_no_number_are_refused(tmp_path, error):
    row = {"question": "Q", "subfield": "A", "final_answer": ["4"], "error": error}
    write(tmp_path / "olympiadbench" / "train.jsonl", row)
    with pytest.raises(ValueError, match=r"train\.jsonl, line 1: field 'error' is"):
        benchmark("olympiadbench", data=tmp_path)


def test_mbpp_with_carriage_returns(data):
    bench, row = benchmark("mbpp", data=data), row_of(data, "mbpp", 0)
    assert "\r\n" in row["code"]
    assert graded(bench, 0, f"```python\r\n{row['code']}\r\n```") is Verdict.CORRECT
    assert graded(bench, 0, "```python\r\ndef f():\r\n    return 1\r\n```") is not Verdict.CORRECT
    assert any("1 of 500 rows left out" in note and "367" in note for note in bench.notes)


def test_humaneval_runs_its_tests(data):
    bench, row = benchmark("humaneval", data=data), row_of(data, "humaneval", 0)
    program = f"```python\n{row['prompt']}{row['canonical_solution']}\n```"
    assert graded(bench, 0, program) is Verdict.CORRECT
    assert (bench.kind, bench.votes) == ("program", False)
    sanitized = benchmark("mbpp_sanitized", data=data)
    code = row_of(data, "mbpp_sanitized", 0)["code"]
    assert graded(sanitized, 0, f"```python\n{code}\n```") is Verdict.CORRECT


def test_any_file_with_named_columns(tmp_path):
    rows = [{"key": f"r{i}", "question": f"{i} + 1?", "gold": i + 1} for i in range(3)]
    path = write(tmp_path / "sums.jsonl", *rows, {"key": "r9", "question": "0 + 1?", "gold": 1})
    bench = benchmark(f"{path}:prompt=question:answer=gold")
    assert [problem.prompt for problem in bench.problems] == [
        *(f"{i} + 1?" for i in range(3)),
        "0 + 1?",
    ]
    assert bench.problems[3].id == f"{bench.problems[0].id}#2"  # no row is lost
    assert (bench.name, bench.origin) == ("sums", str(path))
    assert graded(bench, 1, "\\boxed{2}") is Verdict.CORRECT
    named = benchmark(f"{path}:prompt=question:answer=gold:id=key:name=mine:reward=numeric")
    assert [problem.id for problem in named.problems] == [f"mine/r{i}" for i in (0, 1, 2, 9)]
    assert graded(named, 2, "3.0") is Verdict.CORRECT


def test_a_file_says_what_is_wrong(tmp_path):
    path = write(tmp_path / "sums.jsonl", {"prompt": "1 + 1?", "answer": "2"})
    with pytest.raises(
        ValueError, match=r"'promt=x' is not understood; did you mean prompt=\.\.\.\?"
    ):
        benchmark(f"{path}:promt=x")
    with pytest.raises(ValueError, match="reward is 'maths'; it is one of math, numeric"):
        benchmark(f"{path}:reward=maths")
    with pytest.raises(ValueError, match=r"line 1: no field 'question'; the fields are 'prompt'"):
        benchmark(f"{path}:prompt=question")
    with pytest.raises(ValueError, match=r"none\.jsonl' is not a file"):
        benchmark(str(tmp_path / "none.jsonl"))
    with pytest.raises(ValueError, match="has no problem that can be graded"):
        benchmark(str(write(tmp_path / "empty.jsonl")))


@pytest.mark.parametrize("answer", [None, "", "  ", [], {"a": 1}])
def test_a_row_without_an_answer_is_named_with_file_and_line(tmp_path, answer):
    good = {"question": "1?", "answer": "#### 1"}
    path = write(tmp_path / "gsm8k" / "test.jsonl", good, {"question": "2?", "answer": answer})
    with pytest.raises(ValueError, match=rf"^{path}, line 2: field 'answer' is"):
        benchmark("gsm8k", data=tmp_path)
    path = write(tmp_path / "gsm8k" / "test.jsonl", good, {"question": "2?"})
    with pytest.raises(ValueError, match=rf"^{path}, line 2: no field 'answer'"):
        benchmark("gsm8k", data=tmp_path)


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_a_program_without_tests_is_named_with_file_and_line(data, tmp_path, name):
    row = row_of(data, name, 0)
    column = "test" if name == "humaneval" else "test_list"
    bad = {key: value for key, value in row.items() if key != column}
    path = write(tmp_path / name / "test.jsonl", row, bad)
    with pytest.raises(ValueError, match=rf"^{path}, line 2: no field '{column}'"):
        benchmark(name, data=tmp_path)


def test_a_reference_that_cannot_be_graded_stays_and_is_told(tmp_path):
    good = {"question": "1?", "answer": "#### 1"}
    write(tmp_path / "gsm8k" / "test.jsonl", good, {"question": "2?", "answer": "#### many"})
    bench = benchmark("gsm8k", data=tmp_path)
    assert len(bench.problems) == 2
    [note] = bench.notes
    assert note.startswith("1 of 2 rows kept, though not even their reference scores 1: gsm8k/")


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [("gsmk8", "gsm8k"), ("aime24", "aime_2024"), ("MATH500", "math500"), ("x", "")],
)
def test_an_unknown_name_gets_the_nearest(asked, nearest):
    with pytest.raises(ValueError, match=rf"unknown benchmark '{asked}'; did you mean '{nearest}"):
        benchmark(asked)


def test_a_hub_that_cannot_be_reached_says_which_file_would_serve(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    where = rf"Its rows as {tmp_path}/gpqa_diamond/train\.jsonl would serve, with --data {tmp_path}"
    with pytest.raises(ValueError, match=where) as caught:
        benchmark("gpqa_diamond", data=tmp_path)
    assert "terms are accepted" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"FOLDER/aime_2025/train\.jsonl would serve"):
        benchmark("aime_2025")
    assert logging.getLogger("huggingface_hub").level != logging.ERROR


def test_the_folder_of_data(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUPWISE_DATA", str(tmp_path))
    assert data_folder(None) == tmp_path
    assert data_folder(tmp_path / ".") == tmp_path
    with pytest.raises(ValueError, match=r"--data is '.*nothing', which is no folder"):
        data_folder(tmp_path / "nothing")
    monkeypatch.setenv("GROUPWISE_DATA", str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"GROUPWISE_DATA is '.*gone', which is no folder"):
        data_folder(None)
    monkeypatch.delenv("GROUPWISE_DATA")
    assert data_folder(None) is None


def test_some_of_the_problems_are_the_same_ones_each_time():
    whole = benchmark("arithmetic")
    some = whole.sample(20)
    assert some.problems == benchmark("arithmetic").sample(20).problems
    assert len(some.problems) == 20
    assert set(some.problems) < set(whole.problems)
    places = [whole.problems.index(problem) for problem in some.problems]
    assert places == sorted(places)
    assert set(whole.sample(10).problems) < set(some.problems)
    assert some.digest() != whole.digest()
    assert whole.sample(10_000) is whole
    assert some.notes == ("20 of its 240 problems, drawn once for all runs",)
    with pytest.raises(ValueError, match="ask for 1 or more"):
        whole.sample(0)


def test_the_digest_sees_prompt_answer_id_and_order():
    bench = benchmark("arithmetic")
    first, *rest = bench.problems
    for changed in (
        (replace(first, prompt="x"), *rest),
        (replace(first, answer="x"), *rest),
        (replace(first, id="x"), *rest),
        (*rest, first),
    ):
        assert replace(bench, problems=changed).digest() != bench.digest()


def test_the_names():
    assert set(benchmark_names()) == {
        *SIZES, *GENERATED, "gpqa_diamond", "livecodebench", "ifeval",
    }  # fmt: skip
