"""Language consistency: the share of a chain of thought's words that are in one language.

DeepSeek-R1 (Nature, 2025, Methods; arXiv 2501.12948v2, Sec. 2.3): Reward_language =
Num(Words_target) / Num(Words), over the chain of thought, added to the final reward as it is.
The paper does not say what a word is, nor how its language is told; `words` and `LANGUAGES`
are ours. Leaves out romanised text: pinyin counts as English.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

from rewards.problem import Problem, Response, RewardFn, Score, Verdict
from rewards.purity import pure

LANGUAGES = {
    "ar": ("ARABIC",),
    "de": ("LATIN",),
    "el": ("GREEK",),
    "en": ("LATIN",),
    "es": ("LATIN",),
    "fr": ("LATIN",),
    "he": ("HEBREW",),
    "hi": ("DEVANAGARI",),
    "it": ("LATIN",),
    "ja": ("HIRAGANA", "KATAKANA", "CJK"),
    "ko": ("HANGUL",),
    "nl": ("LATIN",),
    "pt": ("LATIN",),
    "ru": ("CYRILLIC",),
    "th": ("THAI",),
    "tr": ("LATIN",),
    "uk": ("CYRILLIC",),
    "vi": ("LATIN",),
    "zh": ("CJK",),
}
"""ISO 639-1 code of a language, and the scripts that it is written in."""

UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI")
"""Scripts without spaces between words; a character counts as one."""

_NO_WORDS = re.compile(
    r"```.*?(?:```|\Z)"  # code
    r"|\\[A-Za-z]+"  # a command of LaTeX
    r"|</?[A-Za-z]{1,20}>",  # a tag
    re.DOTALL,
)
_LETTERS = re.compile(r"[^\W\d_]+")
_SENTENCE_END = re.compile(r"(?<=[.!?;:\n])\s+|\n+")
_MAX_SENTENCE = 400
"""Characters that are told apart at once."""


def language_reward(language: str, *, against: Sequence[str] = ()) -> RewardFn:
    """R1's language consistency for one target language, between 0 and 1.

    Without `against`, a word is in the target language if it is in its script, which tells
    Chinese from English. Languages that share the script and are to be told from it are named in
    `against`; then each sentence is identified by the package lingua.

    A text without words has the value 0. The verdict is correct from 1 up.

    Example: `language_reward("zh")` gives "<think>我们 need 计算</think>8" 4/5: four Chinese
    characters and one English word.

    Raises:
        ValueError: An unknown language, or `against` without lingua installed.
    """
    for code in (language, *against):
        if code not in LANGUAGES:
            raise ValueError(f"unknown language {code!r}; known are {', '.join(LANGUAGES)}")
    if against:
        _detector((language, *against))
    return partial(_consistency, language, tuple(against))


def chain_of_thought(text: str) -> str:
    """What stands before the last `</think>`; all of the text if there is none."""
    before, closed, _ = text.rpartition("</think>")
    return before if closed else text


def words(text: str) -> Iterator[tuple[str, str]]:
    """(word, script) of a text, in order, without code, commands of LaTeX and tags.

    A word is a run of letters of one script, or one character of a script that is written without
    spaces. A single letter of any other script is no word: it is the x of an equation.

    Example: "设 x 为 two" is ("设", "CJK"), ("为", "CJK"), ("two", "LATIN").
    """
    for run in _LETTERS.findall(_NO_WORDS.sub(" ", text)):
        if run.isascii():
            if len(run) > 1:
                yield run, "LATIN"
            continue
        start = 0
        for end in range(1, len(run) + 1):
            script = _script(run[start])
            if end < len(run) and _script(run[end]) == script and script not in UNSPACED:
                continue
            if end - start > 1 or script in UNSPACED:
                yield run[start:end], script
            start = end


def share_by_script(text: str, language: str) -> float:
    """The share of words in a language's scripts; 0 without words."""
    scripts = [script for _, script in words(text)]
    return sum(script in LANGUAGES[language] for script in scripts) / max(len(scripts), 1)


def share_by_sentence(text: str, language: str, against: tuple[str, ...]) -> float:
    """The share of words that are in sentences of a language; 0 without words.

    A word in a script that none of the languages is written in is in none of them.
    """
    total = found = 0
    scripts = LANGUAGES[language]
    detector = _detector((language, *against))
    for sentence in _sentences(_NO_WORDS.sub(" ", text)):
        all_words = list(words(sentence))
        total += len(all_words)
        own = [word for word, script in all_words if script in scripts]
        if own:
            detected = detector.detect_language_of(" ".join(own))
            is_target = detected is not None and detected.iso_code_639_1.name.lower() == language
            found += len(own) * is_target
    return found / max(total, 1)


@pure(version="1", reads=("text", "prefill"))
def _consistency(
    language: str, against: tuple[str, ...], problem: Problem, response: Response
) -> Score:
    thought = chain_of_thought(response.full_text)
    if against:
        value = share_by_sentence(thought, language, against)
    else:
        value = share_by_script(thought, language)
    verdict = Verdict.CORRECT if value == 1.0 else Verdict.WRONG
    return Score(value=value, verdict=verdict, parts={"language": value})


@lru_cache(maxsize=1 << 16)
def _script(letter: str) -> str:
    """The first word of the character's Unicode name, which for letters is the script's."""
    return unicodedata.name(letter, "UNKNOWN").partition(" ")[0]


def _sentences(text: str) -> Iterator[str]:
    for sentence in _SENTENCE_END.split(text):
        for start in range(0, len(sentence), _MAX_SENTENCE):
            yield sentence[start : start + _MAX_SENTENCE]


@lru_cache(maxsize=8)
def _detector(codes: tuple[str, ...]) -> Any:
    try:
        from lingua import IsoCode639_1, LanguageDetectorBuilder
    except ImportError as error:
        raise ValueError(
            f"telling {', '.join(codes)} apart needs the package lingua-language-detector: "
            "pip install 'groupwise[language]', or name no languages that share a script"
        ) from error
    known = [IsoCode639_1.from_str(code) for code in codes]
    return LanguageDetectorBuilder.from_iso_codes_639_1(*known).build()
