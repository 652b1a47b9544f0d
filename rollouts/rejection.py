"""Which samples become supervised data: the correct ones that are worth reading, balanced.

DeepSeek-R1 (arXiv 2501.12948v2, supplement B.3) keeps correct samples and drops mixed languages,
repetition, long paragraphs and code blocks; it gives no thresholds, and does not speak of
duplicates and balance: those are ours. Leaves out the sampling (rollouts/trials.py) and R1's form
(rollouts/cold_start.py).
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import ceil
from typing import Literal

from rewards.answers import after_thinking
from rewards.language import LANGUAGES, chain_of_thought, share_by_script, share_by_sentence, words
from rewards.length import MAX_WORDS, repeated_share
from rewards.problem import Verdict
from rewards.tags import has_think_answer_format
from rollouts.cold_start import has_r1_form
from rollouts.completions import Key
from rollouts.seeds import request_seed

NGRAM = 6
"""Items of an n-gram whose share of repetitions is taken: words, numbers and signs."""

_ITEM = re.compile(r"\d+|[^\W\d_]+|[^\w\s]")
_PARAGRAPH_END = re.compile(r"\n\s*\n")


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """What a sample must be like, and how many of a problem are kept."""

    format: Literal["think_summary", "r1_zero", "none"] = "think_summary"
    """think_summary: R1's form, a trace in <think> and a summary with the answer in a box; r1_zero:
    <think> and <answer>; none: any."""
    language: str = "en"
    """ISO 639-1 code of the language that thinking and answer are in; empty for any."""
    language_share: float = 0.95
    """Words in it at least. A text without words passes."""
    language_against: tuple[str, ...] = ()
    """Languages of the same script that it is told from, sentence by sentence (needs lingua)."""
    max_repeated: float = 0.5
    """Largest share of 6-grams that stood there before."""
    min_tokens: int = 1
    """Shortest completion."""
    max_tokens: int | None = None
    """Longest completion; left out: as it was sampled. What was cut off is never kept."""
    code_blocks: bool = False
    """Whether fenced code may stand in the thinking, or anywhere where there is no thinking."""
    max_paragraph: int = 500
    """Words and numbers of the longest paragraph; 0 for no bound."""
    max_per_problem: int = 4
    """Kept of a problem that is hardly ever solved."""
    min_per_problem: int = 1
    """Kept of a problem that is always solved; in between by the share of wrong samples."""

    def __post_init__(self) -> None:
        """Refuse what would keep nothing or says nothing."""
        for code in filter(None, (self.language, *self.language_against)):
            if code not in LANGUAGES:
                raise ValueError(
                    f"filters.language is {code!r}: use one of {', '.join(LANGUAGES)}, or nothing"
                )
        for name in ("language_share", "max_repeated"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"filters.{name} is {getattr(self, name)}: use 0 to 1")
        if self.max_tokens is not None and self.max_tokens < max(self.min_tokens, 1):
            raise ValueError(
                f"filters.max_tokens is {self.max_tokens} and min_tokens {self.min_tokens}: nothing "
                "is that long"
            )
        if not 1 <= self.min_per_problem <= self.max_per_problem:
            raise ValueError(
                f"filters.min_per_problem is {self.min_per_problem} and max_per_problem "
                f"{self.max_per_problem}: use 1 or more, and not fewer at most than at least"
            )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A text that may become a row.

    Example: `Sample(text="<think>3 + 5</think>\\boxed{8}", verdict=Verdict.CORRECT,
    finish="stop", num_tokens=12)`.

    Attributes:
        text: From its first character, prefill included.
        verdict: None where it was not graded and is taken as right.
        num_tokens: With the end token; None if unknown.
    """

    text: str
    verdict: Verdict | None
    finish: str
    num_tokens: int | None


def removed_by(sample: Sample, config: FilterConfig, *, is_final_form: bool = False) -> str | None:
    """The first filter that a sample does not pass, in the order of `FILTERS`; None if all.

    `is_final_form` lets R1's form pass whatever form samples must have.
    """
    for name, removes in FILTERS.items():
        if name == "format" and is_final_form and has_r1_form(sample.text):
            continue
        if removes(sample, config):
            return name
    return None


def _is_misformatted(sample: Sample, config: FilterConfig) -> bool:
    forms = {"think_summary": has_r1_form, "r1_zero": has_think_answer_format}
    return config.format in forms and not forms[config.format](sample.text)


def _is_mixed(sample: Sample, config: FilterConfig) -> bool:
    if not config.language or next(words(sample.text), None) is None:
        return False
    if config.language_against:
        share = share_by_sentence(sample.text, config.language, config.language_against)
    else:
        share = share_by_script(sample.text, config.language)
    return share < config.language_share


def _is_repetitive(sample: Sample, config: FilterConfig) -> bool:
    return repeated_share(items(sample.text)[-MAX_WORDS:], NGRAM) > config.max_repeated


def _is_out_of_length(sample: Sample, config: FilterConfig) -> bool:
    if sample.num_tokens is None:
        return False
    longest = sample.num_tokens if config.max_tokens is None else config.max_tokens
    return not config.min_tokens <= sample.num_tokens <= longest


def _has_code(sample: Sample, config: FilterConfig) -> bool:
    return not config.code_blocks and "```" in chain_of_thought(sample.text)


def _has_long_paragraph(sample: Sample, config: FilterConfig) -> bool:
    parts = (chain_of_thought(sample.text), after_thinking(sample.text))
    most = config.max_paragraph
    return most > 0 and any(
        sum(item.isalnum() for item in items(paragraph)) > most
        for part in parts
        for paragraph in _PARAGRAPH_END.split(part)
        if len(paragraph) > most  # a word has at least one character
    )


FILTERS: dict[str, Callable[[Sample, FilterConfig], bool]] = {
    "ungraded": lambda sample, _: sample.verdict is not None and sample.verdict.is_ours,
    "wrong": lambda sample, _: sample.verdict not in (None, Verdict.CORRECT),
    "unfinished": lambda sample, _: sample.finish != "stop",
    "format": _is_misformatted,
    "language": _is_mixed,
    "repetition": _is_repetitive,
    "length": _is_out_of_length,
    "code": _has_code,
    "paragraph": _has_long_paragraph,
}
"""What removes a sample, by name, in order."""


def items(text: str) -> list[str]:
    """Words, numbers and signs, in lower case; a character is one where no spaces part words.

    Example: "3 + 5, so 8" has 3, +, 5, a comma, so, 8.
    """
    found: list[str] = []
    for item in _ITEM.findall(text.lower()):
        found += [item] if item.isascii() else ([word for word, _ in words(item)] or [item])
    return found


@dataclass(kw_only=True)
class Tally:
    """One problem's samples: graded, correct, and those that passed every filter by digest.

    Example: of 8 samples 2 correct, both with one text: `num_graded` 8, `num_correct` 2, and
    `passed` {0: b"..", 5: b".."} with equal digests.
    """

    num_graded: int = 0
    num_correct: int = 0
    passed: dict[int, bytes] = field(default_factory=dict)

    @property
    def pass_rate(self) -> float:
        """Correct among graded."""
        return self.num_correct / max(self.num_graded, 1)


@dataclass(kw_only=True)
class Selection:
    """What comes of all samples: tallies by problem, and how many each filter removed."""

    config: FilterConfig
    seed: int
    tallies: dict[str, Tally] = field(default_factory=dict)
    removed: Counter[str] = field(default_factory=Counter)

    def add(self, key: Key, sample: Sample, *, is_final_form: bool = False) -> None:
        """Filter one sample; of what passes only a digest is kept."""
        tally = self.tallies.setdefault(key[0], Tally())
        name = removed_by(sample, self.config, is_final_form=is_final_form)
        tally.num_graded += name != "ungraded"
        tally.num_correct += name not in ("ungraded", "wrong")
        if name is None:
            tally.passed[key[1]] = digest_of(sample.text)
        else:
            self.removed[name] += 1

    def balanced(self) -> dict[str, tuple[int, ...]]:
        """Problem by problem, the samples that are kept: no text twice, at most `quota` of them.

        Which they are is drawn by the seed, whatever the order in which they finished.
        """
        self.removed.pop("duplicate", None)
        self.removed.pop("balance", None)
        kept = {}
        for problem, tally in self.tallies.items():
            drawn = sorted(tally.passed, key=lambda i, p=problem: request_seed(self.seed, p, i))
            first_with: dict[bytes, int] = {}
            for i in drawn:
                first_with.setdefault(tally.passed[i], i)
            distinct = list(first_with.values())
            chosen = distinct[: quota(tally.pass_rate, self.config)]
            self.removed["duplicate"] += len(drawn) - len(distinct)
            self.removed["balance"] += len(distinct) - len(chosen)
            if chosen:
                kept[problem] = tuple(chosen)
        return kept


def quota(pass_rate: float, config: FilterConfig) -> int:
    """How many of a problem are kept: from `max_per_problem` at 0 evenly to `min_per_problem` at 1.

    Example: with 4 and 1, a problem solved in a quarter of its samples has ceil(1 + 3 * 0.75) = 4.
    """
    span = config.max_per_problem - config.min_per_problem
    return config.min_per_problem + ceil(span * (1 - pass_rate) - 1e-9)


def at_most(kept: Mapping[str, Sequence[int]], num_rows: int, seed: int) -> list[Key]:
    """So many of the kept: the first of each problem, then the second, ...; ties by the seed."""
    ranked = [
        (rank, request_seed(seed, problem, sample), (problem, sample))
        for problem, samples in kept.items()
        for rank, sample in enumerate(samples)
    ]
    return [key for *_, key in sorted(ranked)[:num_rows]]


def digest_of(text: str) -> bytes:
    """Of a text in lower case with single spaces: equal for texts that count as one."""
    plain = " ".join(text.lower().split())
    return blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest()
