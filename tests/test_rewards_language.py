import sys
import time

import pytest

from rewards.language import chain_of_thought, language_reward, words
from rewards.problem import Problem, Response, Verdict

PROBLEM = Problem(id="p", prompt="?", answer="8", source="s")


def share(language: str, text: str, **options) -> float:
    return language_reward(language, **options)(PROBLEM, Response(text=text)).value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("First, add 3 and 5.", [("First", "LATIN"), ("add", "LATIN"), ("and", "LATIN")]),
        ("设 x 为 two", [("设", "CJK"), ("为", "CJK"), ("two", "LATIN")]),
        ("等于x时 n2 ab", [("等", "CJK"), ("于", "CJK"), ("时", "CJK"), ("ab", "LATIN")]),
        ("это да", [("это", "CYRILLIC"), ("да", "CYRILLIC")]),
        ("naïve Straße", [("naïve", "LATIN"), ("Straße", "LATIN")]),
        ("걸음 です", [("걸음", "HANGUL"), ("で", "HIRAGANA"), ("す", "HIRAGANA")]),
        (r"$\frac{a}{b} \times 4$ so \boxed{8}", [("so", "LATIN")]),
        ("<think>so</think>```python\nprint(1)\n```then", [("so", "LATIN"), ("then", "LATIN")]),
        ("```never closed", []),
        ("x = 3, 4 + y_1", []),
        ("", []),
    ],
)
def test_words_by_hand(text, expected):
    assert list(words(text)) == expected


@pytest.mark.parametrize(
    ("text", "in_chinese", "in_english"),
    [
        ("<think>我们 need 计算</think>8", 4 / 5, 1 / 5),
        ("<think>我们计算</think>the answer", 1, 0),  # after the thought nothing counts
        ("we compute the sum", 0, 1),
        (r"我们计算 \frac{x}{y} + n", 1, 0),  # formulas are in no language
        ("да we", 0, 1 / 2),
        ("3 + 5 = 8", 0, 0),
        ("", 0, 0),
    ],
)
def test_the_share_by_hand(text, in_chinese, in_english):
    assert (share("zh", text), share("en", text)) == (in_chinese, in_english)


def test_a_score_says_what_it_is():
    reward = language_reward("en")
    whole = reward(PROBLEM, Response(text="all right</think>8", prefill="<think>"))
    assert (whole.value, whole.verdict, whole.parts) == (1.0, Verdict.CORRECT, {"language": 1.0})
    half = reward(PROBLEM, Response(text="all 对</think>8", prefill="<think>"))
    assert (half.value, half.verdict) == (0.5, Verdict.WRONG)


def test_the_chain_of_thought_ends_at_the_last_closing_tag():
    assert chain_of_thought("a</think>b</think>c") == "a</think>b"
    assert chain_of_thought("never closed") == "never closed"


def test_languages_of_one_script_are_told_apart_by_sentence():
    pytest.importorskip("lingua", reason="the extra 'language' is not installed")
    text = "We have to add the two numbers. La somme des deux nombres est huit. 然后我们计算"
    # 7 English words, 7 French, 6 Chinese characters.
    assert share("en", text, against=("fr",)) == pytest.approx(7 / 20)
    assert share("fr", text, against=("en",)) == pytest.approx(7 / 20)
    assert share("en", text) == pytest.approx(14 / 20)  # by script alone


def test_what_cannot_be_told_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="unknown language 'english'; known are ar, de, "):
        language_reward("english")
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        language_reward("en", against=("xx",))
    monkeypatch.setitem(sys.modules, "lingua", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"telling de, en apart needs the package lingua"):
        language_reward("de", against=("en",))


@pytest.mark.parametrize(
    "piece", ["word ", "字", "```", "\\a", "<a", "\ud800", "é\u0301", "\n", "aé字"]
)
def test_a_megabyte_comes_back_soon(piece):
    began = time.monotonic()
    assert 0 <= share("en", piece * (1_000_000 // len(piece))) <= 1
    assert time.monotonic() - began < 5
