import json
from collections import Counter
from itertools import pairwise

import pytest

from rewards.problem import Problem, Response, Verdict
from rewards.requirements import CHECKS, words
from rollouts.tasks.instructions import EXCLUSIVE, VALUES, Instructions
from rollouts.tasks.splits import split_of
from rollouts.tasks.topics import TOPICS

TASK = Instructions()
PROBLEMS = [p for split in ("train", "validation", "test") for p in TASK.problems(split)]


def test_a_problem_is_what_the_docstring_says():
    assert (
        Problem(
            id="instructions/one/rain/sentences=2",
            prompt='Write a sentence or more about rain. The word "rain" must be in it, and at '
            "least five different words. Write exactly two sentences.",
            answer='[["includes", "rain"], ["different_words", 5], ["sentences", 2]]',
            source="instructions/one",
        )
        in PROBLEMS
    )


def test_there_are_as_many_as_stated_each_once():
    # One wish: 24 topics, and of them 3 + 2 + 2 + 1 + 1 + 1 + 3 + 4 + 4 = 21 wishes.
    assert len(TOPICS) * sum(map(len, VALUES.values())) == 504
    counts = Counter(problem.source for problem in PROBLEMS)
    assert counts["instructions/two"] == 1000 and 490 <= counts["instructions/one"] <= 504
    assert len({problem.id for problem in PROBLEMS}) == len(PROBLEMS)
    assert len({problem.prompt for problem in PROBLEMS}) == len(PROBLEMS)


def test_a_split_is_a_hash_of_the_id():
    for split in ("train", "validation", "test"):
        assert all(split_of(problem.id) == split for problem in TASK.problems(split))
        assert len(TASK.problems(split)) > 100


def test_the_worked_text_follows_every_wish():
    for problem in PROBLEMS:
        text = TASK.worked(problem)
        assert TASK.score(problem, Response(text=text)).value == 1.0, (problem, text)
        thought, told = text.removeprefix("<think>\n").split("\n</think>\n")
        assert thought and told and "<" not in thought + told


def test_another_problems_text_mostly_does_not():
    compared = 0
    for problem, other in pairwise(PROBLEMS):
        text, topic = TASK.worked(other), json.loads(problem.answer)[0][1]
        if topic not in words(text):
            score = TASK.score(problem, Response(text=text))
            assert (score.value, score.verdict) == (0.0, Verdict.WRONG)
            compared += 1
    assert compared > 1000


@pytest.mark.parametrize("text", ["", "<think>rain</think>", "<think>Rain falls. It is wet."])
def test_nothing_told_is_no_answer(text):
    score = TASK.score(PROBLEMS[0], Response(text=text))
    assert (score.value, score.verdict) == (0.0, Verdict.NO_ANSWER)


def test_every_kind_of_wish_is_asked_and_none_with_its_contrary():
    asked = [[name for name, _ in json.loads(problem.answer)[2:]] for problem in PROBLEMS]
    assert {name for names in asked for name in names} == set(VALUES) <= set(CHECKS)
    assert not any(pair <= set(names) for pair in EXCLUSIVE for names in asked)
    assert {len(set(names)) for names in asked} == {1, 2}


def test_topics_are_as_their_docstring_says():
    for topic, sentences in TOPICS.items():
        assert len(sentences) == 3
        assert topic.split()[-1] in words(sentences[0])
        for sentence in sentences:
            assert "," not in sentence and 5 <= len(words(sentence)) <= 7
            assert sentence[0].isupper() and sentence[-1] == "." and sentence.count(".") == 1
        assert len(set(words(sentences[0]))) >= 5


def test_the_seed_and_the_size_choose_the_problems():
    some = Instructions(num_problems=50, max_wishes=1)
    assert {problem.source for problem in some.problems("train")} == {"instructions/one"}
    other = Instructions(num_problems=50, max_wishes=1, seed=1)
    assert some.problems("train") != other.problems("train")
    for values in ({"num_problems": 3}, {"max_wishes": 3}):
        with pytest.raises(ValueError, match=next(iter(values))):
            Instructions(**values)
