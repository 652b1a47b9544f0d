"""Files that only grow: whole lines, an incomplete last one dropped, and what is kept in memory."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest

from rewards.problem import Score, Verdict
from rollouts.completions import COMPLETIONS, GRADES, JsonLines, Saved, Store, Texts

SAVED = Saved(
    problem="p/1", sample=0, seed=7, num_tokens=2, finish="stop", text="8", token_ids=(40, 2)
)
RIGHT = Score(value=1.0, verdict=Verdict.CORRECT, parts={"accuracy": 1.0})


def filled(folder: Path) -> Store:
    """Two completions of one problem, the first of them graded."""
    store = Store(folder)
    store.save(SAVED)
    store.save(replace(SAVED, sample=1, text="nine\u2028\ud800\x1b[31m"))
    store.grade(("p/1", 0), RIGHT, answer="8", formatted=True)
    store.close()
    return store


def test_what_is_written_is_read_again(tmp_path: Path):
    before, after = filled(tmp_path), Store(tmp_path)
    assert after.completions == before.completions
    assert after.grades == before.grades
    assert after.notes == ()
    # The text of what is graded is let go of; a line separator, a lone surrogate and an escape stay.
    assert [saved.text for saved in after.completions.values()] == ["", "nine\u2028\ud800\x1b[31m"]
    assert after.grades[("p/1", 0)].answer == "8"
    assert after.grades[("p/1", 0)].formatted is True
    assert after.grades[("p/1", 0)].parts == {"accuracy": 1.0}
    lines = (tmp_path / COMPLETIONS).read_bytes().splitlines()
    assert json.loads(lines[0])["token_ids"] == [40, 2]


def test_texts_of_graded_completions_are_read_from_the_file(tmp_path: Path):
    filled(tmp_path)
    texts = Texts(tmp_path)
    second = replace(SAVED, sample=1, text="nine\u2028\ud800\x1b[31m")
    assert list(texts) == [SAVED, second]
    assert (texts["p/1", 1], texts["p/1", 0]) == (second, SAVED)
    file = tmp_path / COMPLETIONS
    file.write_bytes(file.read_bytes()[:-1])
    assert list(Texts(tmp_path)) == [SAVED]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_an_incomplete_last_line_is_dropped_and_written_again(tmp_path: Path, cut: int):
    filled(tmp_path)
    file = tmp_path / COMPLETIONS
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    store = Store(tmp_path)
    assert list(store.completions) == [("p/1", 0)]
    assert len(store.notes) == 1
    assert f"{file}: its last line was incomplete" in store.notes[0]
    store.save(replace(SAVED, sample=1, text="nine\u2028\ud800\x1b[31m"))
    store.close()
    assert file.read_bytes() == whole
    assert Store(tmp_path).notes == ()


def test_a_grade_without_its_completion_and_a_failure_of_ours_are_made_again(tmp_path: Path):
    filled(tmp_path)
    store = Store(tmp_path)
    store.grade(("p/1", 1), Score(value=0.0, verdict=Verdict.GRADER_ERROR), answer=None)
    assert len(store.grades) == 2  # in this process it counts as ungraded
    store.close()
    assert list(Store(tmp_path).grades) == [("p/1", 0)]
    (tmp_path / COMPLETIONS).write_bytes(b"")
    assert Store(tmp_path).grades == {}


@pytest.mark.parametrize(
    "line", ["no JSON", "[1]", '{"problem": "p/1"}', '{"problem": "p/1", "verdict": "great"}']
)
@pytest.mark.parametrize("name", [COMPLETIONS, GRADES])
def test_a_line_that_is_not_ours_is_named(tmp_path: Path, name: str, line: str):
    filled(tmp_path)
    file = tmp_path / name
    file.write_text(f"{file.read_text()}{line}\n")
    number = len(file.read_text().splitlines())
    with pytest.raises(
        ValueError, match=f"{name}, line {number}: not a line that was written here"
    ):
        Store(tmp_path)


def test_a_full_disk_is_an_error_and_loses_no_line_before_it(tmp_path: Path):
    lines = JsonLines(tmp_path / "f.jsonl", lambda row: None)
    lines.append({"a": 1})
    lines.close()

    class Full:
        def write(self, data: bytes) -> int:
            return len(data) - 1

    lines._file = Full()
    with pytest.raises(OSError) as caught:
        lines.append({"a": 2})
    assert caught.value.errno == errno.ENOSPC
    rows = []
    JsonLines(tmp_path / "f.jsonl", rows.append)
    assert rows == [{"a": 1}]
