"""What n graded samples of one problem say about it: pass@k and maj@k. Pure functions.

Averages over problems are the caller's; their uncertainty is in eval/intervals.py.
"""

import math
from collections import Counter
from collections.abc import Sequence

from rewards.answers import after_thinking, final_answer
from rewards.numeric import parse_number


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """The chance that at least one of k samples is correct, estimated without bias.

    1 - C(n - c, k) / C(n, k), in the product form 1 - prod_{i=n-c+1..n} (1 - k / i), which
    needs no large binomials (Chen et al. 2021, "Evaluating Large Language Models Trained on
    Code", section 2.1). With k = n it is 0 or 1 and says nothing about its own spread.

    Raises:
        ValueError: If k is not in 1..n or c not in 0..n.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(
            f"pass@k needs 1 <= k <= num_samples, got k={k} and num_samples={num_samples}; "
            f"draw at least {k} samples a problem or ask for a k from 1 to {num_samples}"
        )
    if not 0 <= num_correct <= num_samples:
        raise ValueError(
            f"num_correct={num_correct} of num_samples={num_samples} is impossible; "
            "count the correct among these samples only"
        )
    if num_samples - num_correct < k:
        return 1.0
    failing = range(num_samples - num_correct + 1, num_samples + 1)
    return 1.0 - math.prod(1.0 - k / i for i in failing)


def majority_correct(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """1.0 if the answer given most often is correct, else 0.0: maj@n from a single draw.

    Equal answers are one class, so the caller normalises them first. None does not vote. A
    tie goes to the class whose first sample is earliest, and a class is as correct as its
    first sample, the one that would be handed in. If nobody votes the result is 0.0.

    Example: answers ("8", None, "7", "8") with correct (T, F, F, T) give 1.0.
    """
    _check_lengths(answers, correct)
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    # max keeps the first of equals, and a Counter iterates in order of first appearance.
    winner = max(votes, key=lambda answer: votes[answer])
    return float(correct[answers.index(winner)])


def majority_at_k(answers: Sequence[str | None], correct: Sequence[bool], k: int) -> float:
    """maj@k: the mean of `majority_correct` over the n // k disjoint draws of k samples.

    Draws are taken in sample order and the last n mod k samples are unused; every draw is k
    independent samples, so the mean has no bias. With k = n it is `majority_correct`.

    Raises:
        ValueError: If k is not in 1..n.
    """
    _check_lengths(answers, correct)
    if not 1 <= k <= len(answers):
        raise ValueError(
            f"maj@k needs 1 <= k <= the number of samples, got k={k} and {len(answers)} samples; "
            f"draw at least {k} samples a problem or lower k"
        )
    starts = range(0, len(answers) - k + 1, k)
    draws = [majority_correct(answers[i : i + k], correct[i : i + k]) for i in starts]
    return sum(draws) / len(draws)


def answer_key(text: str) -> str | None:
    """The final answer after thinking, the same text for the same number; None if none.

    "8", "8.0" and "16/2" are "8". What is not a number is compared by its characters without
    spaces, so equal formulas that are written differently split the vote.
    """
    answer = final_answer(after_thinking(text))
    if answer is None:
        return None
    number = parse_number(answer)
    return "".join(answer.split()) if number is None else str(number)


def _check_lengths(answers: Sequence[str | None], correct: Sequence[bool]) -> None:
    if len(answers) != len(correct):
        raise ValueError(
            f"got {len(answers)} answers but {len(correct)} verdicts; pass one of each a sample"
        )
