"""What n graded samples of one problem say about it: pass@k and maj@k. Pure functions.

Averages over problems are the caller's; their uncertainty is in eval/intervals.py, and which
answers are equal in eval/voting.py. Shapes: P problems, K values of k.
"""

import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np

from rewards.answers import after_thinking, stated_answers
from rewards.maths.phrases import last_number
from rewards.numeric import parse_number

SINGLE_DRAW_FACTOR = 4
"""pass@k and maj@k from fewer than so many times k samples are labelled a single draw."""

TIE_RULE = "a tie is shared evenly by its answers; without any answer the majority is wrong"
"""Printed beside maj@k. For draws in random order this is the rule "the earliest answer wins"."""

MAX_EXACT_STEPS = 200_000
"""Vector operations of an exact maj@k, each of a few microseconds; above, it is resampled."""

MAX_LOG_SUBSETS = 700.0
"""Natural logarithm of the subsets that a float can count."""

_SPACES = re.compile(r" (?![A-Za-z])|(?<![A-Za-z.,:;)]) ")

RESAMPLES = 1_000
"""Draws of a resampled maj@k: its own error is at most 0.016, one standard deviation."""


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """The chance that at least one of k samples is correct, estimated without bias.

    1 - C(n - c, k) / C(n, k), in the product form 1 - prod_{i=n-c+1..n} (1 - k / i), which
    needs no large binomials (Chen et al. 2021, "Evaluating Large Language Models Trained on
    Code", section 2.1). With k = n it is 0 or 1 and says nothing about its own spread.

    Raises:
        ValueError: If k is not in 1..n or c not in 0..n.
    """
    _check_k("pass@k", num_samples, k)
    _check_correct(num_samples, num_correct)
    if num_samples - num_correct < k:
        return 1.0
    failing = range(num_samples - num_correct + 1, num_samples + 1)
    return 1.0 - math.prod(1.0 - k / i for i in failing)


def pass_at_every_k(num_samples: int, num_correct: Sequence[int] | np.ndarray) -> np.ndarray:
    """pass@k for k = 1..n at once: [P, n], for P problems with n samples and c correct each.

    C(n - c, k) / C(n, k) is the running product of (n - c - j) / (n - j) over j = 0..k-1, all
    factors in [0, 1]: nothing overflows and nothing cancels. Column k - 1 is `pass_at_k`.

    Raises:
        ValueError: If n is less than 1 or a c is not in 0..n.
    """
    correct = np.asarray(num_correct, dtype=np.int64)
    _check_k("pass@k", num_samples, 1)
    for worst in (correct.min(initial=0), correct.max(initial=0)):
        _check_correct(num_samples, int(worst))
    counts, places = np.unique(correct, return_inverse=True)  # at most n + 1 different ones
    drawn = np.arange(num_samples)
    left = np.maximum(num_samples - counts[:, None] - drawn, 0)
    none_correct = np.cumprod(left / (num_samples - drawn), axis=1)
    return (1.0 - none_correct)[places.reshape(-1)]


def majority_at_k(
    answers: Sequence[Hashable | None], correct: Sequence[bool], k: int, *, seed: int = 0
) -> float:
    """maj@k (cons@k): how often the majority of k of the n samples is right, without bias.

    The expectation over all C(n, k) draws without replacement. In a draw the answer with most
    votes wins, None does not vote, a tie is shared evenly, and nobody voting is wrong. An
    answer is as right as the share of its samples that are: one of them is handed in. With
    k = n it is a single draw.

    Computed exactly where `majority_method` says so, else as the mean over `RESAMPLES` draws
    from a generator of `seed`.

    Args:
        answers: The class of each sample's answer (`eval.voting.answer_classes`).
        correct: Whether each sample is right.

    Raises:
        ValueError: If k is not in 1..n or the lengths differ.
    """
    if len(answers) != len(correct):
        raise ValueError(
            f"got {len(answers)} answers but {len(correct)} verdicts; pass one of each a sample"
        )
    _check_k("maj@k", len(answers), k)
    sizes, shares = _classes(answers, correct)
    if not any(shares):
        return 0.0
    if k == len(answers):
        return float(_shared(np.array([sizes]), shares)[0])
    if majority_method(answers, k) == "resampled":
        return _resampled(sizes, shares, len(answers), k, seed)
    chances = [
        _chance_to_win(sizes, i, len(answers), k) if shares[i] else 0.0 for i in range(len(sizes))
    ]
    return min(1.0, float(np.dot(chances, shares)))


def majority_method(answers: Sequence[Hashable | None], k: int) -> Literal["exact", "resampled"]:
    """How `majority_at_k` computes these: exactly as long as n is below about a thousand.

    Resampled if the number of draws overflows a float or the work is above `MAX_EXACT_STEPS`.
    """
    sizes = Counter(answer for answer in answers if answer is not None).values()
    steps = sum(min(size, k) for size in sizes) * (len(answers) + len(sizes))
    fits = steps <= MAX_EXACT_STEPS and _log_subsets(len(answers), k) < MAX_LOG_SUBSETS
    return "exact" if fits or k == len(answers) else "resampled"


def is_single_draw(num_samples: int, k: int) -> bool:
    """True if n < 4k, where k > 1: such a pass@k or maj@k is too noisy to be compared."""
    return k > 1 and num_samples < SINGLE_DRAW_FACTOR * k


def default_ks(num_samples: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to n / 4, and n: what a report shows. 16 gives (1, 2, 4, 16)."""
    _check_k("pass@k", num_samples, 1)
    powers = [1 << i for i in range(num_samples.bit_length())]
    kept = [k for k in powers if not is_single_draw(num_samples, k)]
    return tuple(dict.fromkeys([*kept, num_samples]))


def answer_key(text: str) -> str | None:
    """The final answer after thinking, the same text for the same number; None if none.

    "8", "8.0" and "16/2" are "8". Other answers are their characters without the spaces that
    stand between no words; several that are stated side by side are one answer, "3,5", as the
    rewards grade them.
    """
    text = after_thinking(text)
    stated = stated_answers(text)
    answer = last_number(text) if stated is None else ", ".join(filter(None, stated))
    if not answer:
        return None
    number = parse_number(answer)
    return _SPACES.sub("", " ".join(answer.split())) if number is None else str(number)


def _classes(
    answers: Sequence[Hashable | None], correct: Sequence[bool]
) -> tuple[list[int], list[float]]:
    """Samples of each class of answers, and the share of them that is right."""
    sizes: dict[Hashable, int] = {}
    right: dict[Hashable, int] = {}
    for answer, is_right in zip(answers, correct, strict=True):
        if answer is not None:
            sizes[answer] = sizes.get(answer, 0) + 1
            right[answer] = right.get(answer, 0) + bool(is_right)
    return list(sizes.values()), [right[answer] / size for answer, size in sizes.items()]


def _chance_to_win(sizes: Sequence[int], winner: int, num_samples: int, k: int) -> float:
    """The expected share of the win that a class has, over all draws of k.

    Draws in which the winner has j votes, every other class has at most j, and t of them have j:
    sum over j, t of C(c_w, j) * [x^(k-j) y^t] prod_l (sum_{v<j} C(c_l, v) x^v + y C(c_l, j) x^j)
    * (1 + x)^abstained, divided by (1 + t) C(n, k). As 1 / (1 + t) is the integral of y^t over
    [0, 1], Gauss-Legendre nodes for y do the division: exactly, t being at most k / j - 1. All
    terms are positive.
    """
    others = [size for i, size in enumerate(sizes) if i != winner]
    abstained = num_samples - sum(sizes)
    draws = 0.0
    for j in range(1, min(sizes[winner], k) + 1):
        rest = k - j
        nodes, weights = np.polynomial.legendre.leggauss(rest // j // 2 + 1)
        y, weights = (nodes + 1.0) / 2.0, weights / 2.0
        ways = np.zeros((len(y), rest + 1))
        ways[:, 0] = 1.0
        for size in others:
            ways = _times(ways, size, j, y)
        ways = _times(ways, abstained, rest + 1, y)
        draws += math.comb(sizes[winner], j) * float(weights @ ways[:, rest])
    return draws / math.comb(num_samples, k)


def _times(ways: np.ndarray, size: int, j: int, y: np.ndarray) -> np.ndarray:
    """Polynomials in x, a row for each y, times that of a class of `size` with at most j votes."""
    top = ways.shape[1]
    product = ways.copy()
    for votes in range(1, min(size, j, top - 1) + 1):
        term = math.comb(size, votes) * ways[:, : top - votes]
        product[:, votes:] += y[:, None] * term if votes == j else term
    return product


def _resampled(
    sizes: Sequence[int], shares: Sequence[float], num_samples: int, k: int, seed: int
) -> float:
    rng = np.random.default_rng(seed)
    voters = [*sizes, num_samples - sum(sizes)]
    votes = rng.multivariate_hypergeometric(voters, k, size=RESAMPLES, method="marginals")[:, :-1]
    return float(_shared(votes, shares).mean())


def _shared(votes: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """How right the winners of each row of votes are, on average over those that tie."""
    most = votes.max(axis=1, keepdims=True)
    winners = (votes == most) & (most > 0)
    return (winners @ np.asarray(shares)) / np.maximum(winners.sum(axis=1), 1)


def _log_subsets(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _check_k(name: str, num_samples: int, k: int) -> None:
    if not 1 <= k <= num_samples:
        raise ValueError(
            f"{name} needs 1 <= k <= num_samples, got k={k} and num_samples={num_samples}; "
            f"draw at least {max(k, 1)} samples a problem or ask for a k from 1 to {num_samples}"
        )


def _check_correct(num_samples: int, num_correct: int) -> None:
    if not 0 <= num_correct <= num_samples:
        raise ValueError(
            f"num_correct={num_correct} of num_samples={num_samples} is impossible; "
            "count the correct among these samples only"
        )
