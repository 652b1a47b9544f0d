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
        "train: 1 of 3 problems left out, they share 10 words in a row with gsm8k, 1 of them "
        f'"{QUESTION[:-1].lower()}": t/1; each is in contamination.json\n'
    )
    assert (record["num_train"], record["num_dropped"]) == (3, 1)
    [overlap] = record["overlaps"]
    assert (overlap["training"], overlap["num_words"]) == ("t/1", 14)
    assert overlap["words"] == QUESTION[:-1].lower()
    assert len(record["benchmarks"]["gsm8k"]) == 64


def test_nothing_to_leave_out_is_recorded_and_told(asked, capsys):
    kept, record = decontaminated(problems("Name a prime."), ["gsm8k"])
    assert (len(kept), record["num_dropped"]) == (1, 0)
    assert capsys.readouterr().out == (
        "train: none of 1 problems shares 10 words in a row with gsm8k\n"
    )


def test_many_are_counted_and_some_are_named(asked, capsys):
    train = problems("Name a prime.", *(f"{QUESTION} Ask {name}." for name in "abcdefg"))
    kept, record = decontaminated(train, ["gsm8k"])
    assert (len(kept), len(record["overlaps"])) == (1, 7)
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("train: 7 of 8 problems left out")
    assert '7 of them "how many of' in line
    assert ": t/1, t/2, t/3, t/4, t/5 and 2 more; each is in contamination.json" in line


def test_training_data_that_are_the_benchmark_are_refused(asked):
    with pytest.raises(ValueError, match=r"leaves no training problem: all 2 share 10 words") as e:
        decontaminated(problems(QUESTION, f"{QUESTION} Quick!"), ["gsm8k"])
    assert "\n" not in str(e.value)


def test_an_unknown_benchmark_is_refused():
    with pytest.raises(ValueError, match="unknown benchmark 'gsm8'; did you mean 'gsm8k'"):
        decontaminated([], ["gsm8"])


def test_the_record_stays_the_same_in_a_run(asked, tmp_path):
    _, record = decontaminated(problems(QUESTION, "What?"), ["gsm8k"])
    keep_record(tmp_path, record)
    assert json.loads((tmp_path / "contamination.json").read_text()) == record
    keep_record(tmp_path, record)
    keep_record(tmp_path, {**record, "benchmarks": {"gsm8k": "read another way"}})
    assert json.loads((tmp_path / "contamination.json").read_text()) == record
    _, other = decontaminated(problems(QUESTION, "What?", "What else?"), ["gsm8k"])
    with pytest.raises(ValueError, match="changed since the run began"):
        keep_record(tmp_path, other)
    with pytest.raises(ValueError, match="changed since the run began"):
        keep_record(tmp_path, {**record, "overlaps": []})
    keep_record(tmp_path / "nowhere", {})  # nothing was compared


def test_the_field_goes_to_yaml_and_back():
    config = RunConfig(drop_contaminated=("math500", "gsm8k"))
    assert from_yaml(to_yaml(config), "x").drop_contaminated == ("math500", "gsm8k")
    assert RunConfig().drop_contaminated == ()
