"""The labelled answers are graded as they are labelled: what was mended stays mended."""

from benchmarks.reward_math import LABELS, blind_rows, graded, rates, read_rows


def test_our_own_labels_hold():
    rows = read_rows(LABELS)
    assert len(rows) == 709
    assert [row for row in rows if graded(row) != row["right"]] == []


def test_labels_written_without_sight_of_the_grader_hold_but_for_what_is_known():
    rows = blind_rows(None)  # those whose problem is ours to give
    found = rates("math", rows, [graded(row) for row in rows])
    assert len(rows) > 2000
    assert found["math_false_negative_frac"] <= 0.01
    assert found["math_false_positive_frac"] == 0.0
