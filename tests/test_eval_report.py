"""The table as a reader sees it, the paired line under it, and eval.json."""

import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from eval.evaluate import EvalResult, ProblemCount
from eval.report import before_after_table, eval_json, paired_difference
from rollouts.rollout import Sampling


def result(correct: list[int], **changes) -> EvalResult:
    """Eight samples of each problem, of which so many are correct."""
    counts = tuple(
        ProblemCount(id=f"p/{i}", num_graded=8, num_correct=c) for i, c in enumerate(correct)
    )
    fields = {
        "label": "",
        "split": "test",
        "num_problems": len(correct),
        "num_samples": 8,
        "k": 8,
        "sampling": Sampling(temperature=1.0, max_tokens=64),
        "seed": 0,
        "counts": counts,
        "pass_at_1": sum(correct) / 8 / len(correct),
        "pass_at_1_interval": (0.125, 0.5),
        "pass_at_k": 0.75,
        "maj_at_k": 0.25,
        "verdict_fracs": {"correct": 0.25, "wrong": 0.75},
        "num_ungraded": 0,
        "truncated_frac": 0.031,
        "mean_tokens": 41.6,
    }
    return EvalResult(**{**fields, **changes})


def shown(results: dict[str, EvalResult], width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(before_after_table(results))
    return console.file.getvalue()


BASE = result([1, 2, 3, 2] * 5)
TRAINED = result([2, 4, 4, 4] * 5, pass_at_1_interval=(0.4, 0.475))


def test_the_table_holds_every_number():
    lines = shown({"base": BASE, "base, best prompt, lenient": BASE, "trained": TRAINED})
    cells = [re.split(r"  +", line.strip()) for line in lines.splitlines() if "%  " in line]
    assert [row[0] for row in cells] == ["base", "base, best prompt, lenient", "trained"]
    assert cells[0][1:] == ["25.0% [12.5, 50.0]", "75.0%", "25.0%", "3.1%", "42"]
    assert cells[2][1] == "43.8% [40.0, 47.5]"  # 14 of 32 correct
    for header in ("pass@1 [95% interval]", "pass@8*", "maj@8*", "truncated", "tokens"):
        assert header in lines


def test_the_table_fits_into_80_columns():
    rows = shown({"base": BASE, "base, best prompt": BASE, "trained": TRAINED}, width=80)
    assert "│" not in rows
    assert "base, best prompt     25.0% [12.5, 50.0]    75.0%" in rows
    assert "pass@1 [95% interval]  pass@8*  maj@8*  truncated  tokens" in rows


def test_the_caption_says_what_was_measured_and_the_difference():
    lines = shown({"base": BASE, "middle": BASE, "trained": TRAINED})
    assert "20 problems of the test split, 8 samples each at temperature 1" in lines
    assert "* a single draw at n=8" in lines
    # Gains of 1, 2, 1 and 2 samples in 8, five times each: mean 0.1875, sd 0.0625, standard
    # error 0.0625 / sqrt(20) = 0.01398, 1.96 of it 0.0274.
    difference = paired_difference(BASE, TRAINED)
    assert difference.mean == pytest.approx(0.1875)
    assert difference.interval == pytest.approx((0.1601, 0.2149), abs=3e-3)
    low, high = (100 * bound for bound in difference.interval)
    line = f"base to trained: +18.8 points [{low:+.1f}, {high:+.1f}], p = 1.9e-06, "
    line += "paired over 20 problems: 20 gained, 0 lost."  # all of 20 signs alike: 2 / 2^20
    assert line in " ".join(lines.split())  # the caption wraps at the table's width


def test_no_star_once_there_are_four_draws():
    lines = shown({"base": replace(BASE, k=2)})
    assert "pass@2" in lines
    assert "*" not in lines


def test_one_row_has_no_difference():
    assert "points" not in shown({"base": BASE})
    assert eval_json({"base": BASE})["difference"] is None


def test_labels_are_shown_and_not_interpreted():
    label = "[bold red]step [link=x]9[/link]"
    lines = shown({label: BASE, "[/]": TRAINED})
    assert label in lines
    assert f"{label} to [/]" in lines


def test_ungraded_samples_and_missing_estimates_are_visible():
    lines = shown({"base": replace(BASE, num_ungraded=3, maj_at_k=None, split="")})
    assert "base: 3 samples could not be graded and are left out." in lines
    assert " - " in lines
    assert "20 problems, 8 samples each" in lines


def test_the_difference_is_over_problems_graded_in_both():
    lost = (ProblemCount(id="p/0", num_graded=0, num_correct=0), *TRAINED.counts[1:])
    difference = paired_difference(BASE, replace(TRAINED, counts=lost))
    assert difference.num_problems == 19
    assert difference.mean == pytest.approx((20 * 0.1875 - 0.125) / 19)


def test_eval_json_survives_a_file():
    written = eval_json({"base": BASE, "trained": TRAINED})
    read = json.loads(json.dumps(written, allow_nan=False))
    assert EvalResult.from_json(read["results"]["trained"]) == TRAINED
    assert (read["difference"]["before"], read["difference"]["after"]) == ("base", "trained")
    assert read["difference"]["mean"] == pytest.approx(0.1875)
    assert read["difference"]["interval"] == list(paired_difference(BASE, TRAINED).interval)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(TRAINED, split="train"), "split=test and 'trained' has split=train"),
        (replace(TRAINED, num_samples=4), "num_samples=8"),
        (replace(TRAINED, sampling=Sampling(temperature=0.6)), "temperature=0.6"),
        (replace(TRAINED, counts=TRAINED.counts[::-1]), "same problems in the same order"),
    ],
)
def test_rows_that_were_not_measured_alike_are_refused(other, message):
    with pytest.raises(ValueError, match=message):
        before_after_table({"base": BASE, "trained": other})
    with pytest.raises(ValueError, match=message):
        eval_json({"base": BASE, "trained": other})


def test_an_empty_report_is_refused():
    with pytest.raises(ValueError, match="no result"):
        before_after_table({})
