"""Training problems that a benchmark asks are left out, named in a line, and recorded."""

import json

import pytest

from recipes.config import RunConfig, from_yaml, to_yaml
from recipes.decontamination import decontaminated, keep_record
from rewards.problem import Problem

QUESTION = "How many of the seven red apples did Tom give to his three sisters?"


def problems(*prompts: str) -> list[Problem]:
    return [Problem(id=f"t/{i}", prompt=p, answer="1", source="t") for i, p in enumerate(prompts)]


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A folder of data whose GSM8K asks one question."""
    (tmp_path / "gsm8k").mkdir()
    row = {"question": QUESTION, "answer": "#### 2"}
    (tmp_path / "gsm8k" / "test.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setenv("GROUPWISE_DATA", str(tmp_path))
    return tmp_path


def test_overlaps_are_left_out_named_and_recorded(asked, capsys):
    train = problems("Name a prime.", f"Again: {QUESTION}", "Name another prime.")
    kept, record = decontaminated(train, ["gsm8k"])
    assert [problem.id for problem in kept] == ["t/0", "t/2"]
    assert capsys.readouterr().out == (
        "train: 1 of 3 problems left out, they share 10 words in a row with gsm8k: t/1\n"
    )
    assert (record["num_train"], record["num_dropped"]) == (3, 1)
    [overlap] = record["overlaps"]
    assert (overlap["training"], overlap["num_words"]) == ("t/1", 14)
    assert overlap["words"] == QUESTION[:-1].lower()
    assert len(record["benchmarks"]["gsm8k"]) == 64


def test_nothing_to_leave_out_is_recorded_and_not_told(asked, capsys):
    kept, record = decontaminated(problems("Name a prime."), ["gsm8k"])
    assert (len(kept), record["num_dropped"], capsys.readouterr().out) == (1, 0, "")


def test_an_unknown_benchmark_is_refused():
    with pytest.raises(ValueError, match="unknown benchmark 'gsm8'; did you mean 'gsm8k'"):
        decontaminated([], ["gsm8"])


def test_the_record_stays_the_same_in_a_run(asked, tmp_path):
    _, record = decontaminated(problems(QUESTION), ["gsm8k"])
    keep_record(tmp_path, record)
    assert json.loads((tmp_path / "contamination.json").read_text()) == record
    keep_record(tmp_path, record)
    _, other = decontaminated(problems(QUESTION, "What else?"), ["gsm8k"])
    with pytest.raises(ValueError, match="changed since the run began"):
        keep_record(tmp_path, other)
    keep_record(tmp_path / "nowhere", {})  # nothing was compared


def test_the_field_goes_to_yaml_and_back():
    config = RunConfig(drop_contaminated=("math500", "gsm8k"))
    assert from_yaml(to_yaml(config), "x").drop_contaminated == ("math500", "gsm8k")
    assert RunConfig().drop_contaminated == ()
