from random import Random

import pytest

from rewards.length import (
    repeated_share,
    repetition_reward,
    soft_overlong,
    soft_overlong_reward,
)
from rewards.problem import Problem, Response, Verdict

PROBLEM = Problem(id="p", prompt="?", answer="8", source="s")


@pytest.mark.parametrize(
    ("num_tokens", "value"),
    [
        (0, 0.0),
        (16_384, 0.0),
        (16_385, -1 / 4096),
        (18_432, -0.5),
        (20_480, -1.0),
        (20_481, -1.0),
        (10**9, -1.0),
    ],
)
def test_daposs_own_limits(num_tokens, value):
    # L_max 20,480 and L_cache 4,096: the penalty starts above 16,384.
    assert soft_overlong(num_tokens, max_tokens=20_480, cache_tokens=4_096) == value


def test_the_limit_is_the_one_that_was_in_force_unless_it_is_given():
    response = Response(text="", num_tokens=90, max_tokens=100)
    score = soft_overlong_reward(20)(PROBLEM, response)
    assert (score.value, score.verdict, score.parts) == (
        -0.5,
        Verdict.TOO_LARGE,
        {"overlong": -0.5},
    )
    score = soft_overlong_reward(20, max_tokens=200)(PROBLEM, response)
    assert (str(score.value), score.verdict) == ("0.0", Verdict.CORRECT)


@pytest.mark.parametrize(("cache", "limit"), [(0, None), (-1, 10), (11, 10)])
def test_limits_that_cannot_be_are_refused(cache, limit):
    with pytest.raises(ValueError, match=f"cache_tokens is {cache} and max_tokens {limit}"):
        soft_overlong_reward(cache, max_tokens=limit)


@pytest.mark.parametrize(
    ("items", "ngram", "share"),
    [
        ("ababab", 2, 0.6),  # ab ba ab ba ab
        ("abcabc", 3, 0.25),  # abc bca cab abc
        ("aaaa", 1, 0.75),
        ("abcd", 2, 0.0),
        ("abc", 4, 0.0),
        ("", 1, 0.0),
    ],
)
def test_repeated_shares_by_hand(items, ngram, share):
    assert repeated_share(list(items), ngram) == pytest.approx(share)


def test_repeated_shares_against_counting_one_by_one():
    random = Random(3)
    for _ in range(200):
        items = [random.randrange(3) for _ in range(random.randrange(12))]
        ngram = random.randrange(1, 4)
        every = [tuple(items[i : i + ngram]) for i in range(len(items) - ngram + 1)]
        again = sum(gram in every[:i] for i, gram in enumerate(every))
        assert repeated_share(items, ngram) == pytest.approx(again / max(len(every), 1))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("wait let me see wait let me see", -1 / 5),  # 5 four-grams, the last is the first
        ("Wait let me see, wait LET me see!", -1 / 5),
        ("我们计算我们计算", -1 / 5),
        ("every word is another one", 0.0),
        ("", 0.0),
    ],
)
def test_repetition_of_words(text, value):
    score = repetition_reward()(PROBLEM, Response(text=text))
    assert score.value == pytest.approx(value)
    assert score.parts == {"repetition": score.value}
    assert (score.verdict is Verdict.CORRECT) == (value == 0)


def test_a_text_that_says_one_thing_for_ever_loses_nearly_one():
    score = repetition_reward()(PROBLEM, Response(text="so it is " * 400_000))
    assert -1 < score.value < -0.99
    with pytest.raises(ValueError, match="ngram is 0; use 1 or more"):
        repetition_reward(0)
