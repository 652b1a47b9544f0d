"""Filters by what each removes, and which of a problem's samples are kept."""

from dataclasses import replace

import pytest

from rewards.problem import Verdict
from rollouts.rejection import (
    FILTERS,
    FilterConfig,
    Sample,
    Selection,
    at_most,
    digest_of,
    items,
    quota,
    removed_by,
)

GOOD = Sample(
    text="<think>\nThree and five are eight.\n</think>\n\nIt is \\boxed{8}.",
    verdict=Verdict.CORRECT,
    finish="stop",
    num_tokens=20,
)


def thinking(trace: str, summary: str = "\\boxed{8}") -> Sample:
    return replace(GOOD, text=f"<think>{trace}</think>{summary}")


LONG = " ".join(f"word{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(300))


@pytest.mark.parametrize(
    ("sample", "config", "name"),
    [
        (GOOD, {}, None),
        (replace(GOOD, verdict=None), {}, None),  # taken as right
        (replace(GOOD, verdict=Verdict.WRONG), {}, "wrong"),
        (replace(GOOD, verdict=Verdict.TIMEOUT), {}, "wrong"),
        (replace(GOOD, verdict=Verdict.GRADER_ERROR), {}, "ungraded"),
        (replace(GOOD, finish="length"), {}, "unfinished"),
        (replace(GOOD, finish="content_filter"), {}, "unfinished"),
        (replace(GOOD, text="It is \\boxed{8}."), {}, "format"),
        (replace(GOOD, text="It is \\boxed{8}."), {"format": "none"}, None),
        (GOOD, {"format": "r1_zero"}, "format"),
        (
            replace(GOOD, text="<think>a</think><answer>8</answer>"),
            {"format": "r1_zero", "language": ""},
            None,
        ),
        (thinking("three 加上五等于八"), {}, "language"),
        (thinking("three 加上五等于八"), {"language": ""}, None),
        (thinking("three 加 five are eight"), {"language_share": 0.8}, None),  # 4 of 5
        (thinking("three 加 five are eight"), {"language_share": 0.81}, "language"),
        (thinking("three and five", "答案是八 \\boxed{8}"), {}, "language"),  # the summary counts
        (thinking("3 + 5 = 8"), {}, None),  # no word, so none in another language
        # 3 + 5 = 8 . four times: 24 items with 19 6-grams, 6 of them distinct: 1 - 6/19 = 0.68.
        # With <, think, >, ... around there are more; 12 repeated of 34 items: still above 0.3.
        (thinking("3 + 5 = 8. " * 4), {"max_repeated": 0.3}, "repetition"),
        (thinking("3 + 5 = 8. " * 40), {}, "repetition"),
        (thinking("3 + 5 = 8. " * 40), {"max_repeated": 1.0}, None),
        (GOOD, {"min_tokens": 20, "max_tokens": 20}, None),
        (GOOD, {"min_tokens": 21}, "length"),
        (GOOD, {"max_tokens": 19}, "length"),
        (replace(GOOD, num_tokens=None), {"max_tokens": 19}, None),
        (thinking("a sum:\n```python\n3 + 5\n```\n"), {}, "code"),
        (thinking("a sum:\n```python\n3 + 5\n```\n"), {"code_blocks": True}, None),
        (thinking("a sum", "```python\n3 + 5\n```\n\\boxed{8}"), {}, None),  # for the reader
        (thinking(LONG), {"max_paragraph": 299}, "paragraph"),
        (thinking(LONG), {"max_paragraph": 302}, None),  # and the tag's name, twice
        (thinking(LONG.replace("wordag", "\n\nwordag")), {"max_paragraph": 200}, None),
        (thinking("a sum", LONG + "\n\n\\boxed{8}"), {"max_paragraph": 299}, "paragraph"),
        (thinking(LONG), {"max_paragraph": 0}, None),
    ],
)  # fmt: skip
def test_the_first_filter_that_removes_a_sample(sample: Sample, config: dict, name: str | None):
    assert removed_by(sample, FilterConfig(**config)) == name


def test_the_filters_stand_in_order():
    assert list(FILTERS) == [
        "ungraded", "wrong", "unfinished", "format", "language", "repetition", "length", "code",
        "paragraph",
    ]  # fmt: skip
    worst = Sample(text="八```", verdict=Verdict.WRONG, finish="length", num_tokens=1)
    assert removed_by(worst, FilterConfig(min_tokens=2)) == "wrong"
    worst = replace(worst, verdict=None)
    assert removed_by(worst, FilterConfig(min_tokens=2)) == "unfinished"
    worst = replace(worst, finish="stop")
    assert removed_by(worst, FilterConfig(min_tokens=2)) == "format"
    assert removed_by(worst, FilterConfig(min_tokens=2, format="none")) == "language"
    config = FilterConfig(min_tokens=2, format="none", language="")
    assert removed_by(worst, config) == "length"


def test_languages_of_one_script_are_told_apart_by_sentence():
    sample = thinking("Drei und fünf sind zusammen acht, das ist doch ganz einfach.")
    assert removed_by(sample, FilterConfig()) is None
    pytest.importorskip("lingua")
    assert removed_by(sample, FilterConfig(language_against=("de",))) == "language"


def test_what_has_the_final_form_need_not_have_the_samples_form():
    config = FilterConfig(format="r1_zero")
    assert removed_by(GOOD, config, is_final_form=True) is None
    assert removed_by(replace(GOOD, text="8"), config, is_final_form=True) == "format"


def test_items_are_words_numbers_and_signs():
    assert items("3 + 5, so 8.5x") == ["3", "+", "5", ",", "so", "8", ".", "5", "x"]
    assert items("设两个 Ünder") == ["设", "两", "个", "ünder"]


@pytest.mark.parametrize(
    ("pass_rate", "count"), [(0.0, 4), (0.25, 4), (0.5, 3), (0.75, 2), (0.9, 2), (1.0, 1)]
)
def test_hard_problems_keep_more(pass_rate: float, count: int):
    # 1 + ceil(3 (1 - rate)): 4, 1 + ceil(2.25), 1 + ceil(1.5), 1 + ceil(0.75), 1 + ceil(0.3), 1.
    assert quota(pass_rate, FilterConfig()) == count
    assert quota(pass_rate, FilterConfig(min_per_problem=4)) == 4


def add(selection: Selection, problem: str, texts: list[str], wrong: int = 0) -> None:
    for i, text in enumerate(texts):
        selection.add((problem, i), thinking(text))
    for i in range(len(texts), len(texts) + wrong):
        selection.add((problem, i), replace(GOOD, verdict=Verdict.WRONG))


def test_counts_add_up_and_every_problem_is_told():
    selection = Selection(config=FilterConfig(), seed=0)
    add(selection, "easy", ["a one", "a two", "a three", "a four"])
    add(selection, "hard", ["b one", "B  one", "b two"], wrong=9)
    add(selection, "never", [], wrong=4)
    selection.add(("easy", 4), replace(GOOD, verdict=Verdict.GRADER_ERROR))
    selection.add(("easy", 5), replace(GOOD, text="8"))
    kept = selection.balanced()
    assert {problem: len(samples) for problem, samples in kept.items()} == {"easy": 1, "hard": 2}
    assert selection.removed == {
        "wrong": 13, "ungraded": 1, "format": 1, "duplicate": 1, "balance": 3
    }  # fmt: skip
    assert 3 + sum(selection.removed.values()) == 4 + 3 + 9 + 4 + 2
    rates = {problem: tally.pass_rate for problem, tally in selection.tallies.items()}
    assert rates == {"easy": 1.0, "hard": 3 / 12, "never": 0.0}  # the ungraded one counts nowhere
    assert selection.balanced() == kept  # asked again it counts the same
    assert sum(selection.removed.values()) == 19


def test_which_are_kept_hangs_on_the_seed_and_not_on_the_order():
    texts = [f"word {chr(97 + i)}" for i in range(10)]

    def kept(seed: int, order: list[int]) -> dict:
        selection = Selection(config=FilterConfig(min_per_problem=4), seed=seed)
        for i in order:
            selection.add(("p", i), thinking(texts[i % 9]))  # the tenth repeats the first
        return selection.balanced()

    forwards = kept(0, list(range(10)))
    assert forwards == kept(0, list(range(9, -1, -1)))
    assert len({str(kept(seed, list(range(10)))) for seed in range(20)}) > 10
    for seed in range(20):
        assert not {0, 9} <= set(kept(seed, list(range(10)))["p"])


def test_so_many_rows_and_each_problem_first_once():
    kept = {"a": (3, 1, 2), "b": (0,), "c": (5, 4)}
    assert set(at_most(kept, 3, seed=0)) == {("a", 3), ("b", 0), ("c", 5)}
    assert set(at_most(kept, 5, seed=0)) - {("a", 3), ("b", 0), ("c", 5)} == {("a", 1), ("c", 4)}
    assert len(at_most(kept, 99, seed=0)) == 6
    assert len({tuple(at_most(kept, 1, seed=seed)) for seed in range(20)}) == 3


def test_texts_that_count_as_one():
    assert digest_of("It  is\n8") == digest_of("it is 8 ") != digest_of("it is 9")
    assert digest_of("\ud800") != digest_of("\udc00")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"language": "xx"}, "filters.language is 'xx': use one of ar, "),
        ({"language_share": 1.5}, "filters.language_share is 1.5: use 0 to 1"),
        ({"max_repeated": -0.1}, "filters.max_repeated is -0.1"),
        ({"min_tokens": 9, "max_tokens": 8}, "nothing is that long"),
        ({"max_per_problem": 0}, "use 1 or more"),
        ({"min_per_problem": 5}, "not fewer at most than at least"),
    ],
)
def test_filters_that_say_nothing_are_refused(fields: dict, said: str):
    with pytest.raises(ValueError, match=said):
        FilterConfig(**fields)
