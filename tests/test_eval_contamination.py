"""Shared runs of ten words: by hand, against every pair compared slowly, and in real data."""

import json
import time
from dataclasses import replace
from random import Random

import pytest

from eval.benchmarks import benchmark
from eval.contamination import Overlap, overlaps, without_overlaps, words_of
from rewards.problem import Problem
from rollouts.tasks.arithmetic import Arithmetic
from rollouts.tasks.countdown import Countdown
from rollouts.tasks.dataset import Dataset

ELEVEN = "Tom buys seven red apples and three green pears at Oak"


def problem(id_: str, prompt) -> Problem:
    return Problem(id=id_, prompt=prompt, answer="1", source=id_.partition("/")[0])


def found(training: list[str], asked: list[str], **options) -> list[tuple[int, int, str]]:
    pairs = overlaps(
        [problem(f"train/{i}", text) for i, text in enumerate(training)],
        [problem(f"bench/{i}", text) for i, text in enumerate(asked)],
        **options,
    )
    return [
        (int(p.training.partition("/")[2]), int(p.benchmark.partition("/")[2]), p.words)
        for p in pairs
    ]


def test_words_are_runs_of_letters_or_digits():
    assert words_of(problem("a", r"Find $x^2 + \frac{1}{10}$, Zoë_B!")) == [
        "find", "x", "2", "frac", "1", "10", "zoë", "b",
    ]  # fmt: skip
    turns = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"})
    assert words_of(problem("a", turns)) == ["be", "brief", "why"]


def test_ten_words_in_a_row_are_shared_and_nine_are_not():
    ten = "tom buys seven red apples and three green pears at"
    pairs = found([f"Yesterday, {ten} home."], [f"In Rome {ten}, maybe."])
    assert pairs == [(0, 0, ten)]
    nine = ten.rpartition(" ")[0]
    assert found([f"Yesterday, {nine} home."], [f"In Rome {nine}, maybe."]) == []
    assert found([f"a {nine} b"], [f"c {nine} d"], num_words=9) == [(0, 0, nine)]


def test_case_spaces_and_punctuation_do_not_matter():
    pairs = found(["TOM buys, seven   red (apples) and three GREEN pears at $Oak$"], [ELEVEN])
    assert pairs == [(0, 0, ELEVEN.lower())]


def test_the_longest_shared_run_is_told():
    start, rest = "a b c d e f g h i j", "k l m n o p q r s t u v"
    [pair] = overlaps(
        [problem("train/0", f"{start} 1 {rest}")], [problem("bench/0", f"{start} 2 {rest} 3")]
    )
    assert pair == Overlap(training="train/0", benchmark="bench/0", words=rest, num_words=12)


def test_a_short_problem_is_shared_only_whole():
    assert found(["What is 3 + 5?"], ["what is 3+5", "What is 3 + 5 in binary?"]) == [
        (0, 0, "what is 3 5")
    ]
    assert found(["So what is 3 + 5? Tell me."], ["What is 3 + 5?"]) == []
    assert found([""], ["", "!"]) == []
    assert found([], ["x"]) == found(["x"], []) == []


def test_the_instruction_of_a_benchmark_is_not_counted():
    ask = "Give the whole program in one block and nothing else at all please."
    asked = [f"{word} things. {ask}" for word in ("Sort", "Count", "Add", "Drop", "Join", "Find")]
    assert found([f"Write a poem. {ask}"], asked) == []
    whole = found([f"Sort things. {ask}"], asked)
    assert [pair[:2] for pair in whole] == [(0, 0)]
    # Two problems with the same words are no instruction.
    assert [pair[:2] for pair in found([ELEVEN], [ELEVEN, f"{ELEVEN} Road"])] == [(0, 0), (0, 1)]


def test_ten_words_of_the_statement_and_not_of_template_and_statement_together():
    ask = "Give the whole program in one block please."
    asked = [
        f"{word} a given list. {ask}" for word in ("Sort", "Count", "Add", "Drop", "Join", "Find")
    ]
    assert found([f"Print each part of a given list. {ask}"], asked) == []
    assert found([f"Sort a given list. {ask}"], asked) == [(0, 0, "sort")]


@pytest.mark.parametrize(
    "task", [Arithmetic(), Countdown(), Countdown(num_numbers=4)], ids=["sums", "three", "four"]
)
def test_the_splits_of_a_generated_task_do_not_overlap_but_the_same_problem_does(task):
    train, test = task.problems("train"), task.problems("test")
    assert overlaps(train, test) == []
    planted = [*train[:50], replace(test[7], id=f"{task.name}/planted"), *train[50:]]
    [pair] = overlaps(planted, test)
    assert (pair.training, pair.benchmark) == (f"{task.name}/planted", test[7].id)


def test_a_question_that_most_training_problems_ask_is_no_template():
    training = [f"{ELEVEN} {name}." for name in "abcdef"]
    assert [pair[0] for pair in found(training, [f"{ELEVEN} Road"])] == [*range(6)]


def test_signs_count_in_a_problem_of_few_words():
    assert found(["What is 8 - 5?", "What is 8 * 5?"], ["What is 8 + 5?", "what is 8*5"]) == [
        (1, 1, "what is 8 5")
    ]


def test_a_phrase_of_several_problems_of_a_benchmark_tells_of_none():
    phrase = "where m and n are relatively prime positive integers find m n"
    asked = [f"The {word} is m/n, {phrase}" for word in ("area", "chance", "ratio")]
    training = [f"A line has slope m/n {phrase}"]
    assert found(training, asked) == []
    assert found(training, asked[:2]) == [(0, 0, f"m n {phrase}"), (0, 1, f"m n {phrase}")]
    assert found([asked[1]], asked) == [(0, 1, "the chance is m n where m and n are relatively")]


def test_what_overlaps_is_dropped_and_the_rest_keeps_its_order():
    train = [problem("t/0", "a"), problem("t/1", ELEVEN), problem("t/2", "b")]
    shared = overlaps(train, [problem("b/0", f"{ELEVEN} x"), problem("b/1", f"{ELEVEN} y")])
    assert len(shared) == 2
    assert [p.id for p in without_overlaps(train, shared)] == ["t/0", "t/2"]


def longest_run(a: list[str], b: list[str], least: int) -> int:
    """Words of the longest common run; 0 below `least`. Slow on purpose."""
    sizes = [0] * (len(b) + 1)
    best = 0
    for word in a:
        sizes = [0] + [sizes[j] + 1 if word == other else 0 for j, other in enumerate(b)]
        best = max(best, *sizes)
    return best if best >= least else 0


def test_every_pair_compared_slowly_gives_the_same():
    random = Random(0)
    texts = [" ".join(random.choices("abc", k=random.randint(4, 40))) for _ in range(60)]
    train = [problem(f"t{i}/{i}", text) for i, text in enumerate(texts[:40])]
    asked = [problem(f"b{i}/{i}", text) for i, text in enumerate(texts[40:])]
    expected = {}
    for mine in train:
        for other in asked:
            a, b = words_of(mine), words_of(other)
            size = longest_run(a, b, 5) if len(b) >= 5 else len(b) * (a == b)
            if size:
                expected[mine.id, other.id] = size
    pairs = overlaps(train, asked, num_words=5)
    assert {(p.training, p.benchmark): p.num_words for p in pairs} == expected
    assert len(expected) > 100
    for pair in pairs:
        assert len(pair.words.split()) == pair.num_words


NEAR_DUPLICATES = (
    "test/prealgebra/1687.json", "train/algebra/2835.json", "train/algebra/374.json",
    "train/geometry/1000.json", "train/geometry/181.json", "train/geometry/721.json",
    "train/number_theory/998.json", "train/prealgebra/1013.json", "train/precalculus/172.json",
    "train/precalculus/208.json", "train/precalculus/787.json",
)  # fmt: skip
"""Rows of math12k that share 0.8 of their word 8-grams with a problem of MATH-500."""


def test_the_near_duplicates_of_math500_in_math12k(data):
    task = Dataset(path=str(data / "math12k"), prompt_column="problem", id_column="unique_id")
    train = task.problems("train") + task.problems("validation") + task.problems("test")
    asked = benchmark("math500", data=data).problems
    found = overlaps(train, asked)
    near = {f"math12k/{name}" for name in NEAR_DUPLICATES}
    assert near <= {pair.training for pair in found}
    kept = without_overlaps(train, found)
    assert not near & {p.id for p in kept}
    assert len(kept) > 0.9 * len(train)  # it does not throw the data away
    # A benchmark overlaps itself everywhere.
    assert {(p.training, p.benchmark) for p in overlaps(asked, asked)} >= {
        (p.id, p.id) for p in asked
    }


def test_gsm8k_and_planted_rows(data):
    rows = (data / "gsm8k" / "test.jsonl").read_text().splitlines()
    asked = benchmark("gsm8k", data=data).problems
    train = [problem(f"t/{i}", f"Number {i} of my own sums: {i} + {i}?") for i in range(200)]
    planted = {}
    for i in range(0, 200, 50):
        question = json.loads(rows[i])["question"]
        planted[f"t/{i}"] = asked[i].id
        train[i] = problem(f"t/{i}", f"Read this. {question.upper()} Think!")
    assert {(p.training, p.benchmark) for p in overlaps(train, asked)} >= set(planted.items())
    assert {p.training for p in overlaps(train, asked)} == set(planted)


@pytest.mark.slow
def test_a_hundred_thousand_problems_against_ten_thousand():
    random = Random(1)
    words = [f"w{i}" for i in range(20_000)]
    texts = [" ".join(random.choices(words, k=60)) for _ in range(110_000)]
    train = [problem(f"t/{i}", text) for i, text in enumerate(texts[:100_000])]
    asked = [problem(f"b/{i}", text) for i, text in enumerate(texts[100_000:])]
    train[77] = problem("t/77", asked[5].prompt)
    start = time.process_time()
    assert [(p.training, p.benchmark) for p in overlaps(train, asked)] == [("t/77", "b/5")]
    assert time.process_time() - start < 60
