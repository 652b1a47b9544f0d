"""Shaping by length and by repetition: penalties between -1 and 0, to be added with `weighted`.

What happens to completions that were cut off (scored, zeroed or masked) is decided where
advantages are computed, `packing.truncated`.
"""

from collections.abc import Hashable, Sequence
from functools import partial
from itertools import islice

from rewards.language import words
from rewards.problem import Problem, Response, RewardFn, Score, Verdict
from rewards.purity import pure

MAX_WORDS = 100_000
"""Of a text that is looked at for repetition; the rest is left out."""


def soft_overlong_reward(
    cache_tokens: int | None = None, *, max_tokens: int | None = None
) -> RewardFn:
    """DAPO's soft overlong punishment (arXiv 2503.14476, Sec. 3.4, Eq. 13).

    0 up to L_max - L_cache tokens, then falling evenly to -1 at L_max, and -1 beyond it. L_max is
    `max_tokens`, or else the limit under which the response was sampled; L_cache is
    `cache_tokens`, or else a fifth of L_max, as DAPO has 4,096 of 20,480.

    Raises:
        ValueError: `cache_tokens` is not from 1 to `max_tokens`.
    """
    if cache_tokens is not None and not 1 <= cache_tokens <= (max_tokens or cache_tokens):
        raise ValueError(
            f"cache_tokens is {cache_tokens} and max_tokens {max_tokens}: the penalty falls over the "
            "last cache_tokens of max_tokens, so use 1 or more, and not above max_tokens"
        )
    return partial(_soft_overlong, cache_tokens, max_tokens)


def soft_overlong(num_tokens: int, *, max_tokens: int, cache_tokens: int) -> float:
    """Eq. 13: 0, or (L_max - L_cache - length) / L_cache, or -1.

    Example: `soft_overlong(90, max_tokens=100, cache_tokens=20)` is (100 - 20 - 90) / 20 = -0.5.
    """
    over = num_tokens - (max_tokens - cache_tokens)
    return -min(max(over, 0) / cache_tokens, 1.0)


def repetition_reward(ngram: int = 4) -> RewardFn:
    """Minus the share of the response's n-grams of words that stood there before.

    Over the words of `rewards.language.words`, so that a Chinese character is one. After the
    n-gram penalty of "Demystifying Long Chain-of-Thought Reasoning" (arXiv 2502.03373, App. C),
    which is given to single tokens; ours is one number for the response.

    Raises:
        ValueError: `ngram` is below 1.
    """
    if ngram < 1:
        raise ValueError(f"ngram is {ngram}; use 1 or more")
    return partial(_repetition, ngram)


def repeated_share(items: Sequence[Hashable], ngram: int) -> float:
    """1 - distinct n-grams / n-grams; 0 if there are fewer than `ngram` items.

    Example: a b a b a b with n = 2 has ab, ba, ab, ba, ab: 1 - 2/5 = 0.6.
    """
    ngrams = list(zip(*[items[start:] for start in range(ngram)], strict=False))
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


@pure(version="1", reads=("num_tokens", "max_tokens"))
def _soft_overlong(
    cache_tokens: int | None, max_tokens: int | None, problem: Problem, response: Response
) -> Score:
    limit = response.max_tokens if max_tokens is None else max_tokens
    cache = max(1, limit // 5) if cache_tokens is None else cache_tokens
    value = soft_overlong(response.num_tokens, max_tokens=limit, cache_tokens=cache)
    return _penalty(value, "overlong", Verdict.TOO_LARGE)


@pure(version="1", reads=("text", "prefill"))
def _repetition(ngram: int, problem: Problem, response: Response) -> Score:
    seen = [word.lower() for word, _ in islice(words(response.full_text), MAX_WORDS)]
    return _penalty(-repeated_share(seen, ngram), "repetition", Verdict.WRONG)


def _penalty(value: float, part: str, verdict: Verdict) -> Score:
    value += 0.0  # no minus zero
    return Score(
        value=value, verdict=verdict if value < 0 else Verdict.CORRECT, parts={part: value}
    )
