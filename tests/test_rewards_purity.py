from dataclasses import dataclass, replace
from functools import partial

import pytest

from rewards.problem import Problem, Response, Score, Verdict
from rewards.purity import ScoreCache, cache_key, pure, purity_of

PROBLEM = Problem(id="p", prompt="?", answer="8", source="s")
RESPONSE = Response(text="8", num_tokens=3)
SCORES = [Score(value=1.0, verdict=Verdict.CORRECT)]


@pure(version="1", reads=("answer", "text"))
def exact(problem, response):
    return float(response.text == problem.answer)


def unmarked(problem, response):
    return 0.0


def scaled(scale, inner, problem, response):
    return scale * inner(problem, response)


@dataclass(frozen=True)
class Limit:
    size: int

    @pure(version="1", reads=("text",))
    def score(self, problem, response):
        return float(len(response.text) < self.size)


def key(reward=exact, problem=PROBLEM, *responses):
    return cache_key(purity_of(reward), problem, responses or (RESPONSE,))


def test_a_key_changes_with_all_that_is_read_and_with_nothing_else():
    assert key() == key(exact, replace(PROBLEM, id="q", prompt="!", source="t"))
    assert key() == key(exact, PROBLEM, replace(RESPONSE, num_tokens=4, prefill="x"))
    others = [
        key(exact, replace(PROBLEM, answer="9")),
        key(exact, PROBLEM, Response(text="9")),
        key(exact, PROBLEM, RESPONSE, RESPONSE),
        # What belongs to which field is never confused.
        key(exact, replace(PROBLEM, answer="88"), Response(text="")),
        key(exact, replace(PROBLEM, answer=""), Response(text="88")),
        key(exact, PROBLEM, Response(text="\ud800")),
        key(Limit(3).score),
    ]
    assert len({key(), *others}) == 1 + len(others)


def test_a_version_is_part_of_the_key():
    purity = purity_of(exact)
    assert purity.version.endswith(":exact 1")
    other = replace(purity, version=purity.version.replace("1", "2"))
    assert cache_key(purity, PROBLEM, [RESPONSE]) != cache_key(other, PROBLEM, [RESPONSE])


def test_methods_count_their_object_and_partials_their_arguments():
    assert key(Limit(3).score) == key(Limit(3).score) != key(Limit(4).score)
    marked = pure(version="1", reads=("num_tokens",))(scaled)
    twice, thrice = partial(marked, 2.0, exact), partial(marked, 3.0, exact)
    assert purity_of(twice).reads == ("num_tokens", "answer", "text")
    assert key(twice) != key(thrice)
    assert purity_of(partial(marked, 2.0, unmarked)) is None
    assert purity_of(partial(unmarked, 2.0)) is None
    assert purity_of(unmarked) is None


def test_a_field_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="a pure reward reads 'reference'; the fields are id, "):
        pure(version="1", reads=("reference",))


def test_the_cache_forgets_what_was_not_used_for_longest():
    cache = ScoreCache(2)
    cache.put(b"a", SCORES)
    cache.put(b"b", SCORES)
    assert cache.get(b"a") == SCORES
    cache.put(b"c", SCORES)
    assert [cache.get(name) for name in (b"a", b"b", b"c")] == [SCORES, None, SCORES]
