"""Completions that trainers wrote down, read from files in the forms that these trainers write."""

import importlib.util
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy
import pandas
import pytest
import zstandard
from pyarrow import parquet

from eval.judged import Sample
from recipes.dump_rows import Fields, LeftOut
from recipes.dumps import open_dump
from rewards.problem import Problem, Response, Score, Verdict
from rollouts.records import encode_groups
from rollouts.rollout import Group, Rollout
from tests.conftest import write_tiny_model

ASK = [{"role": "system", "content": "Think."}, {"role": "user", "content": "3 + 5?"}]


def trl_table(folder: Path, step: int, rows: dict[str, list]) -> Path:
    """As GRPOTrainer.log writes it: a DataFrame with the step first and the advantage last."""
    size = len(rows["prompt"])
    table = {"step": [step] * size, **rows, "advantage": [0.0] * size}
    path = folder / "completions" / f"completions_{step:05d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pandas.DataFrame(table).to_parquet(path)
    return path


def verl_file(folder: Path, step: int, *rows: dict) -> Path:
    """As RayPPOTrainer._write_generations does: a JSON object a line, not ASCII."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{step}.jsonl"
    with path.open("w") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    return path


def round_file(folder: Path, index: int, *members: tuple[str, Score, str]) -> Path:
    problem = Problem(id=f"sum/{index}", prompt="3 + 5?", answer="8", source="sum")
    rollouts = tuple(
        Rollout(
            token_ids=(1, 2),
            sampled=(False, True),
            logprobs=(0.0, -0.5),
            response=Response(text=text, num_tokens=1, max_tokens=8, finish=finish),
            score=score,
            versions=((0, 1, 2),),
        )
        for text, score, finish in members
    )
    path = folder / "rollouts" / f"round-{index:06d}.jsonl.zst"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_groups([Group(problem=problem, rollouts=rollouts)]))
    return path


def read(path: Path, **fields) -> list[Sample | LeftOut]:
    return list(open_dump(path).read(Fields(**fields)))


def test_a_run_folder_of_ours(tmp_path):
    right = Score(value=1.5, verdict=Verdict.CORRECT, parts={"accuracy": 1.0, "format": 0.5})
    failed = Score(value=0.0, verdict=Verdict.GRADER_ERROR)
    round_file(tmp_path, 0, ("8", right, "stop"), ("9", failed, "length"))
    round_file(tmp_path, 12, ("8", right, "stop"))
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    first, second, third = read(tmp_path)
    assert open_dump(tmp_path).format == "groupwise"
    assert (first.step, first.row, third.step) == (0, 1, 12)
    assert first.response.text == "8"
    assert first.problem.id == "sum/0"
    assert (first.grade, first.rewards, first.is_truncated) == (1.0, {"value": 1.5}, False)
    assert (second.grade, second.rewards, second.is_truncated) == (None, {"value": None}, True)
    assert read(tmp_path, theirs="format")[0].grade == 0.5
    assert len(read(tmp_path / "rollouts")) == 3
    assert len(read(tmp_path / "rollouts" / "round-000012.jsonl.zst")) == 1


def test_trls_tables(tmp_path):
    trl_table(
        tmp_path,
        20,
        {
            "prompt": [ASK, ASK],
            "completion": [
                [{"role": "assistant", "content": "It is 8."}],
                [{"role": "assistant", "content": "So 9."}, {"role": "tool", "content": "8"}],
            ],
            "accuracy_reward": [1.0, float("nan")],
            "format_reward": [0.0, 1.0],
            "solution": ["8", "8"],
        },
    )
    trl_table(
        tmp_path,
        30,
        {"prompt": ["3 + 5? <think>\n"], "completion": ["8"], "accuracy_reward": [0.0]},
    )
    first, second, third = read(tmp_path)
    assert open_dump(tmp_path).format == "trl"
    assert first.prompt == tuple(ASK)
    assert [s.response.text for s in (first, second, third)] == ["It is 8.", "So 9.", "8"]
    assert [s.grade for s in (first, second, third)] == [1.0, None, 0.0]
    assert second.rewards == {"accuracy_reward": None, "format_reward": 1.0}
    assert [s.answer for s in (first, second, third)] == ["8", "8", None]
    assert [s.step for s in (first, second, third)] == [20, 20, 30]
    assert first.is_truncated is None
    assert (first.response.prefill, third.response.prefill) == ("", "<think>\n")
    assert read(tmp_path, theirs="format_reward")[0].grade == 0.0


def test_a_table_that_was_logged_twice_counts_once(tmp_path):
    rows = {"prompt": ["a", "a"], "completion": ["8", "9"], "reward": [1.0, 0.0]}
    for step in (99_998, 99_999):
        trl_table(tmp_path, step, rows)
    trl_table(tmp_path, 100_000, rows | {"completion": ["8", "10"]})
    found = read(tmp_path)
    assert [item.step for item in found if isinstance(item, Sample)] == [
        99_998,
        99_998,
        100_000,
        100_000,
    ]
    assert [isinstance(item, Sample) for item in found] == [True, True, False, True, True]
    assert found[2].reason == "the table before it again"
    assert not found[2].is_fault


def test_a_parquet_file_that_is_no_table_of_trls(tmp_path):
    pandas.DataFrame({"prompt": ["a"], "question": ["b"]}).to_parquet(tmp_path / "a.parquet")
    message = (
        r"a\.parquet has no column 'completion'; its columns are \['prompt', 'question'\]; known"
    )
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.parquet")


def test_a_table_without_rewards_has_no_grade(tmp_path):
    trl_table(tmp_path, 1, {"prompt": ["a"], "completion": ["8"]})
    (found,) = read(tmp_path)
    assert (found.grade, found.grade_field, found.rewards) == (None, "", {})


def test_two_rewards_of_which_neither_is_called_right_or_wrong(tmp_path):
    rows = {"prompt": ["a"], "completion": ["8"], "brevity": [1.0], "format": [1.0]}
    trl_table(tmp_path, 1, rows)
    with pytest.raises(ValueError, match=r"has the rewards \['brevity', 'format'\].*--theirs NAME"):
        read(tmp_path)
    assert read(tmp_path, theirs="brevity")[0].grade == 1.0


TRAIN = """
import sys
from pathlib import Path
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer
def accuracy_reward(completions, answer, log_extra, **columns):
    log_extra("answer", list(answer))
    return [float(a in c[0]["content"]) for c, a in zip(completions, answer)]
def format_reward(completions, **columns):
    return [None for _ in completions]
rows = [{"prompt": [{"role": "user", "content": f"{n} + 1?"}], "answer": str(n + 1)} for n in (3, 4)]
args = GRPOConfig(output_dir="out", max_steps=2, logging_steps=1, num_generations=4, save_strategy="no",
    per_device_train_batch_size=8, max_completion_length=8, log_completions=True, report_to=[],
    use_cpu=True, bf16=False)
rewards = [accuracy_reward, format_reward]
GRPOTrainer(model="model", reward_funcs=rewards, train_dataset=Dataset.from_list(rows), args=args).train()
"""


@pytest.mark.slow
def test_what_trl_itself_writes(tmp_path):
    write_tiny_model(tmp_path / "model", tied=True)
    subprocess.run([sys.executable, "-c", TRAIN], cwd=tmp_path, check=True, capture_output=True)
    found = read(tmp_path / "out")
    assert open_dump(tmp_path / "out").format == "trl"
    assert [item.step for item in found] == [1] * 8 + [2] * 8
    assert {item.prompt[0]["content"] for item in found} == {"3 + 1?", "4 + 1?"}
    for item in found:
        right = float(item.answer in item.response.text)
        assert item.rewards == {"accuracy_reward": right, "format_reward": None}
        assert (item.grade_field, item.grade, item.answer_field) == (
            "accuracy_reward",
            right,
            "answer",
        )


def test_trl_still_writes_such_tables():
    """The lines of GRPOTrainer.log that `trl_table` stands for."""
    folder = importlib.util.find_spec("trl").submodule_search_locations[0]
    source = (Path(folder) / "trainer" / "grpo_trainer.py").read_text()
    for line in (
        '"step": [self.state.global_step] * len(self._logs["prompt"])',
        '**self._logs["rewards"],',
        '**self._logs["extra"],',
        '"advantage": self._logs["advantages"],',
        'f"completions_{self.state.global_step:05d}.parquet"',
    ):
        assert line in source, line


def test_verls_dumps_in_the_order_of_steps(tmp_path):
    row = {"input": "user\n3 + 5?\nassistant\n", "output": "\u516b: 8", "score": 1.0, "step": 2}
    verl_file(tmp_path, 10, row | {"step": 10, "gts": ["8"], "acc": False, "pred": "9"})
    verl_file(tmp_path, 2, row, row | {"gts": None, "score": -1.0})
    found = read(tmp_path)
    assert open_dump(tmp_path).format == "verl"
    assert [s.step for s in found] == [2, 2, 10]
    assert [s.grade for s in found] == [1.0, -1.0, 0.0]
    assert [s.rewards for s in found] == [{"score": 1.0}, {"score": -1.0}, {"score": 1.0}]
    assert [s.answer for s in found] == [None, None, "8"]
    assert found[0].response.text == "\u516b: 8"
    assert read(tmp_path, theirs="score")[2].grade == 1.0
    assert read(tmp_path, answer="pred")[2].answer == "9"
    only = tmp_path / "only"
    verl_file(only, 3, {key: row[key] for key in ("input", "output", "score")})
    assert read(only)[0].step == 3  # of the file's name


def test_plain_rows(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": "a?", "answer": 8, "response": "12", "reward": True, "step": 3},
        {"prompt": ASK, "completion": "12"},
    ]
    file.write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    first, second = read(file)
    assert (first.answer, first.grade, first.step) == ("8", 1.0, 3)
    assert (second.answer, second.grade, second.step) == (None, None, 0)
    assert open_dump(tmp_path).format == "rows"


def test_logprobs_of_both(tmp_path):
    row = {"input": "a", "output": "b", "score": 1.0}
    pair = {"rollout_log_probs": [-1.0, None], "old_log_probs": [-1.5, -2.0]}
    verl_file(
        tmp_path,
        1,
        row | pair,
        row | {"mu": [-1.0], "pi": [-2.0]},
        row | pair | {"old_log_probs": []},
    )
    first, second, third = read(tmp_path)
    assert first.sampler_logprobs[0] == -1.0
    assert math.isnan(first.sampler_logprobs[1])
    assert first.trainer_logprobs == (-1.5, -2.0)
    assert first.response.num_tokens == 2
    assert second.sampler_logprobs == ()
    assert third.reason == "rollout_log_probs has 2 numbers and old_log_probs 0"
    assert read(tmp_path, logprobs=("mu", "pi"))[1].trainer_logprobs == (-2.0,)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"input": "a", "outp', r"not valid JSON \(.*half-written"),
        ("[1]\n", "a JSON list; an object is needed"),
        ("[" * 100_000 + "\n", "not valid JSON"),
        ('{"input": "a", "score": 1}\n', "no field 'output'; the fields are 'input', 'score'"),
        ('{"input": "a", "output": 8, "score": 1}\n', "8 is neither a text nor a list of messages"),
        ('{"input": "a", "output": "b", "score": "yes"}\n', "the grade is 'yes'; a number is"),
        (
            '{"input": "a", "output": "b", "score": [1]}\n',
            r"the grade is \[1\]; a number is needed",
        ),
        (f'{{"input": "a", "output": "b", "score": 1{"0" * 400}}}\n', "the grade is 1000"),
        ('{"input": "a", "output": "b", "score": 1, "step": "x"}\n', "the step is 'x'; a whole"),
        ('{"input": "a", "output": "b", "score": 1, "step": NaN}\n', "the step is nan; a whole"),
        (
            '{"input": "a", "output": "b", "score": 1, "old_log_probs": 1, "rollout_log_probs": 2}\n',
            "rollout_log_probs is 2; a list of numbers is needed",
        ),
    ],
)
def test_a_row_that_cannot_be_read_is_left_out_by_its_place(tmp_path, line, reason):
    row = {"input": "a", "output": "b", "score": 1.0}
    path = verl_file(tmp_path, 1, row)
    path.write_text(path.read_text() + line)
    good, bad = read(tmp_path)
    assert isinstance(good, Sample)
    assert bad.place.endswith(("1.jsonl, line 2", "1.jsonl, row 2"))
    assert bad.is_fault
    assert re.match(reason, bad.reason), bad.reason


def test_numpys_values_as_verl_writes_them(tmp_path):
    """`json.dumps(row, default=str)` makes a text of each."""
    rows = [
        {"input": "a", "output": "b", "score": numpy.float32(0.5), "acc": numpy.bool_(right)}
        for right in (True, False)
    ]
    path = verl_file(tmp_path, 7, *rows)
    assert '"acc": "True"' in path.read_text()
    first, second = read(tmp_path)
    assert (first.grade, second.grade) == (1.0, 0.0)
    assert (first.grade_field, first.rewards, first.step) == ("acc", {"score": 0.5}, 7)


def test_it_says_which_fields_it_took(tmp_path):
    row = {"input": "a", "output": "b", "gts": "8", "score": 1.0}
    verl_file(tmp_path, 1, row, row | {"acc": 1}, row | {"gts": None})
    found = read(tmp_path)
    assert [item.grade_field for item in found] == ["score", "acc", "score"]
    assert [item.answer_field for item in found] == ["gts", "gts", "gts"]
    assert [item.answer for item in found] == ["8", "8", None]


def test_a_part_that_a_run_of_ours_does_not_have(tmp_path):
    right = Score(value=1.0, verdict=Verdict.CORRECT, parts={"accuracy": 1.0})
    round_file(tmp_path, 0, ("8", right, "stop"))
    (found,) = read(tmp_path, theirs="acuracy")
    assert found.reason == "no part 'acuracy'; the parts are accuracy"
    assert found.place.endswith("round-000000.jsonl.zst, row 1")


@pytest.mark.parametrize(
    "text", ["[1]\n", '{"problem": 1, "rollouts": []}\n', "[" * 100_000, '{"problem": {}}', "\xff"]
)
def test_a_round_file_that_holds_something_else(tmp_path, text):
    (tmp_path / "rollouts").mkdir()
    content = zstandard.compress(text.encode("latin-1"))
    (tmp_path / "rollouts" / "round-000000.jsonl.zst").write_bytes(content)
    (found,) = read(tmp_path)
    assert found.reason.startswith("no whole round file")


def test_a_table_that_is_damaged_inside(tmp_path):
    """The rewards' column chunk is overwritten; prompts, completions and the footer are whole."""
    rows = {"prompt": ["a"] * 9, "completion": ["8"] * 9, "reward": [1.0, *range(8)]}
    path = trl_table(tmp_path, 1, rows)
    chunk = parquet.ParquetFile(path).metadata.row_group(0).column(3)
    assert chunk.path_in_schema == "reward"
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)
    (found,) = read(tmp_path)
    assert found.reason.startswith("no whole parquet file")


def test_files_that_are_cut_off(tmp_path):
    right = Score(value=1.0, verdict=Verdict.CORRECT)
    path = round_file(tmp_path / "run", 0, ("8", right, "stop"))
    path.write_bytes(path.read_bytes()[:-8])
    (found,) = read(tmp_path / "run")
    assert found.reason.startswith("no whole round file")
    path = trl_table(tmp_path, 1, {"prompt": ["a"], "completion": ["8"], "reward": [1.0]})
    path.write_bytes(path.read_bytes()[:-8])
    (found,) = read(tmp_path)
    assert found.reason.startswith("no whole parquet file")


def test_what_holds_no_completions_is_refused(tmp_path):
    (tmp_path / "run" / "rollouts").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.bin").write_bytes(b"")
    (tmp_path / "blank").mkdir()
    (tmp_path / "blank" / "1.jsonl").write_text("\n")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "1.jsonl").write_text('{"inp')
    (tmp_path / "odd.jsonl").write_text('{"question": "a", "\\u202e": 1}\n')
    (tmp_path / "a.csv").write_text("a\n")
    for name, message in {
        "absent": "absent is not there: name a file or folder",
        "run": "run holds no rollouts yet",
        "empty": r"empty holds nothing; known are a run folder of ours",
        "other": r"other holds model.bin; known are",
        "blank": "blank holds no rows",
        "half": "half holds no rows; .*1.jsonl, line 1: not valid JSON",
        "odd.jsonl": r"its first row has the fields \['question', '\\u202e'\]; known are",
        "a.csv": "ends in .csv; known are",
    }.items():
        with pytest.raises(ValueError, match=message):
            open_dump(tmp_path / name)
