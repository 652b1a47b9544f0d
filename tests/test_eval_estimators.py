"""pass@k against every subset, maj@k against counting by hand, and what eval imports."""

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from eval.estimators import answer_key, majority_at_k, majority_correct, pass_at_k

EVAL = Path(__file__).parents[1] / "eval"


def test_pass_at_k_equals_the_share_of_subsets_with_a_correct_sample():
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                subsets = list(combinations([True] * c + [False] * (n - c), k))
                share = sum(any(subset) for subset in subsets) / len(subsets)
                assert pass_at_k(n, c, k) == pytest.approx(share, abs=1e-12), (n, c, k)


def test_pass_at_k_by_hand():
    # 1 - C(7, 2) / C(10, 2) = 1 - 21 / 45 = 24 / 45.
    assert pass_at_k(10, 3, 2) == pytest.approx(24 / 45, abs=1e-12)


def test_pass_at_one_is_the_fraction_of_correct_samples():
    assert pass_at_k(8, 3, 1) == pytest.approx(3 / 8, abs=1e-12)


def test_pass_at_k_of_many_samples_does_not_overflow():
    # C(100_000, 1000) has thousands of digits. With c = 1 the chance is k / n = 0.01.
    assert pass_at_k(100_000, 1, 1000) == pytest.approx(0.01, abs=1e-9)
    # Only one sample fails, so any two hold a correct one; the bare product is inf * 0 here.
    assert pass_at_k(4000, 3999, 2000) == 1.0


def test_pass_at_k_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"k=9 and num_samples=8; draw at least 9"):
        pass_at_k(8, 3, 9)
    with pytest.raises(ValueError, match="k=0"):
        pass_at_k(8, 3, 0)
    with pytest.raises(ValueError, match="num_correct=9"):
        pass_at_k(8, 9, 1)


def test_majority_wins_though_a_wrong_answer_came_first():
    assert majority_correct(["7", "8", "8"], [False, True, True]) == 1.0
    assert majority_correct(["8", "7", "7"], [True, False, False]) == 0.0


def test_none_does_not_vote():
    # Two votes for "8" against one for "7"; three samples without an answer stay away.
    answers = [None, None, None, "7", "8", "8"]
    assert majority_correct(answers, [False, False, False, False, True, True]) == 1.0
    assert majority_correct([None, None], [True, True]) == 0.0
    assert majority_correct([], []) == 0.0


def test_a_tie_goes_to_the_class_seen_first():
    assert majority_correct(["8", "7", "7", "8"], [True, False, False, True]) == 1.0
    assert majority_correct(["7", "8", "8", "7"], [False, True, True, False]) == 0.0


def test_a_class_is_as_correct_as_its_first_sample():
    assert majority_correct(["8", "8", "8"], [True, False, False]) == 1.0
    assert majority_correct(["8", "8", "8"], [False, True, True]) == 0.0


def test_majority_at_k_is_the_mean_over_disjoint_draws():
    answers = ["8", "8", "7", "7", "8", "7", "8"]
    correct = [answer == "8" for answer in answers]
    # k = 2: (8, 8) right, (7, 7) wrong, (8, 7) tied and 8 came first; the seventh is unused.
    assert majority_at_k(answers, correct, 2) == pytest.approx(2 / 3)
    assert majority_at_k(answers, correct, 7) == majority_correct(answers, correct) == 1.0


def test_majority_says_what_is_wrong():
    with pytest.raises(ValueError, match="2 answers but 1 verdicts"):
        majority_correct(["8", "7"], [True])
    with pytest.raises(ValueError, match="k=3 and 2 samples"):
        majority_at_k(["8", "7"], [True, False], 3)


def test_answer_key_is_one_text_for_one_number():
    texts = [r"\boxed{8}", "so <answer>8.0</answer>", "#### 16/2", "it is 8", "7</think> 8"]
    assert [answer_key(text) for text in texts] == ["8"] * 5
    assert answer_key(r"\boxed{x + 1}") == answer_key(r"\boxed{x+1}") == "x+1"
    assert answer_key("no idea") is None


def test_answer_key_of_hostile_text_is_never_a_number():
    texts = ["\\boxed{" * 10_000, "9" * 100_000, r"\boxed{1e999999999}", "\x00", ""]
    assert [answer_key(text) for text in texts] == [None, "9" * 256, "1e999999999", None, None]


def test_importing_eval_loads_no_tensor_library():
    modules = sorted(f"eval.{path.stem}" for path in EVAL.glob("*.py") if path.stem != "__init__")
    assert "eval.report" in modules
    heavy = ("torch", "transformers", "vllm")
    code = (
        f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=EVAL.parent, capture_output=True, text=True, timeout=120
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
