"""Training problems that share ten words in a row with a benchmark problem, as DeepSeek-R1 sought.

    found = overlaps(train, benchmark("math500").problems)
    train = without_overlaps(train, found)

DeepSeek-R1 (Nature 645, 2025, Methods and supplement) removed what shared a 10-gram with
evaluation data. It names no tokens: words are here runs of letters or digits in lower case, so
that spaces in formulas and punctuation do not matter. A benchmark's template (what most of its
problems say) and its phrases are no part of a problem and not counted. Paraphrases, translations
and reference solutions are not looked at.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from rewards.problem import Problem

NGRAM_WORDS = 10

TEMPLATE_WORDS = 3
"""Words in a row by which a template is known."""

TEMPLATE_SHARE = 0.5
"""What more than so many of a benchmark's problems say in a row is its template."""

PHRASE_SHARE = 0.1
"""Ten words in a row that more than so many of a benchmark's problems have tell of none of them:
8 of AIME 2024's 30 end in "m and n are relatively prime positive integers. Find m+n"."""

MIN_SHARING = {"template": 5, "phrase": 3}
"""Problems that must share them, at least."""

LOOKED_AT = 1_000
"""Problems of a benchmark, evenly spaced, in which its template is sought."""

CHUNK_PROBLEMS = 4096
"""Training problems looked at together; bounds the memory of the matches."""

_WORD = re.compile(r"[^\W_]+")
_SIGNS = re.compile(r"[-+*/^<>%\u00d7\u00f7\u2212]")


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """A training problem and a benchmark problem with words in common.

    Example: `Overlap(training="math12k/3f...", benchmark="math500/9a...", num_words=12,
    words="what is the smallest prime whose digits sum to 19 and which")`.

    Attributes:
        words: The longest run of words that both have, lower case, single spaces, templates
            left out.
        num_words: In that run; at least 10, or all words of a shorter benchmark problem.
    """

    training: str
    benchmark: str
    words: str
    num_words: int


def words_of(problem: Problem) -> list[str]:
    """The words of a problem's prompt: "Find $x^2$." is find, x, 2."""
    return _WORD.findall(_text(problem))


def overlaps(
    training: Sequence[Problem], benchmark: Sequence[Problem], *, num_words: int = NGRAM_WORDS
) -> list[Overlap]:
    """Every pair of a training and a benchmark problem that share `num_words` words in a row.

    In the order of the training problems, then of the benchmark's. `benchmark` may hold several,
    told apart by the first part of the ids. Their templates are left out of all problems: what
    most training problems say may be one question of the benchmark. A benchmark problem of fewer
    words is shared if a training problem has exactly its words, with the same signs between them,
    and no others: 3 + 5 is not 3 - 5. Time grows with the words of both, not with their product.
    """
    vocabulary: dict[str, int] = {}
    templates = _templates(benchmark, vocabulary)
    asked = _Texts.of(benchmark, vocabulary, templates, num_words)
    index = _index(asked, _owners(benchmark))
    spelled = list(vocabulary)  # words of the benchmark only: all that can be shared
    found: list[Overlap] = []
    for start in range(0, len(training), CHUNK_PROBLEMS):
        chunk = training[start : start + CHUNK_PROBLEMS]
        texts = _Texts.of(chunk, vocabulary, templates, num_words)
        for run in _longest_runs(texts, asked, index):
            mine, theirs = chunk[run.row], benchmark[run.other]
            words = texts.words[run.row][run.place : run.place + run.size]
            # A collision of hashes is next to impossible, and would drop a sound problem.
            if words != asked.words[run.other][run.other_place : run.other_place + run.size]:
                continue
            if run.size < num_words and _signs(mine, templates, vocabulary) != _signs(
                theirs, templates, vocabulary
            ):
                continue
            text = " ".join(spelled[number] for number in words)
            found.append(
                Overlap(training=mine.id, benchmark=theirs.id, words=text, num_words=run.size)
            )
    return found


def without_overlaps(training: Sequence[Problem], found: Sequence[Overlap]) -> list[Problem]:
    """The training problems that are in none of the overlaps, in their order."""
    dropped = {overlap.training for overlap in found}
    return [problem for problem in training if problem.id not in dropped]


def _text(problem: Problem) -> str:
    prompt = problem.prompt
    return (
        prompt if isinstance(prompt, str) else "\n".join(turn["content"] for turn in prompt)
    ).lower()


def _name(problem: Problem) -> str:
    return problem.id.partition("/")[0]


def _owners(problems: Sequence[Problem]) -> np.ndarray:
    """The benchmark of each problem, as a number."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(map(_name, problems)))}
    return np.array([numbers[_name(problem)] for problem in problems], dtype=np.int64)


def _numbers(problem: Problem, vocabulary: dict[str, int]) -> list[int]:
    """The words, as their numbers in a vocabulary that grows."""
    return [vocabulary.setdefault(word, len(vocabulary)) for word in words_of(problem)]


def _templates(problems: Sequence[Problem], vocabulary: dict[str, int]) -> set[tuple[int, ...]]:
    """The runs of `TEMPLATE_WORDS` that most problems of one benchmark have."""
    by_name: dict[str, list[Problem]] = {}
    for problem in problems:
        by_name.setdefault(_name(problem), []).append(problem)
    found: set[tuple[int, ...]] = set()
    for rows in by_name.values():
        rows = rows[:: -(-len(rows) // LOOKED_AT)]
        counts: Counter[tuple[int, ...]] = Counter()
        for problem in rows:
            counts.update(set(_runs(_numbers(problem, vocabulary), TEMPLATE_WORDS)))
        limit = max(TEMPLATE_SHARE * len(rows), MIN_SHARING["template"] - 1)
        found.update(run for run, count in counts.items() if count > limit)
    return found


def _runs(words: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    return zip(*(words[i:] for i in range(size)), strict=False)


def _kept(words: Sequence[int], templates: set[tuple[int, ...]]) -> list[int]:
    """The places of the words that stand in no run of a template."""
    keep = [True] * len(words)
    for i, run in enumerate(_runs(words, TEMPLATE_WORDS) if templates else ()):
        if run in templates:
            keep[i : i + TEMPLATE_WORDS] = [False] * TEMPLATE_WORDS
    return [i for i, kept in enumerate(keep) if kept]


def _signs(
    problem: Problem, templates: set[tuple[int, ...]], vocabulary: dict[str, int]
) -> list[str]:
    """The signs of arithmetic behind each word that is no template's."""
    _, *behind = _WORD.split(_text(problem))
    kept = _kept(_numbers(problem, vocabulary), templates)
    return ["".join(_SIGNS.findall(behind[i])) for i in kept]


@dataclass(frozen=True, kw_only=True)
class _Texts:
    """Problems as words and hashed n-grams; a text of fewer than n words is one gram of all.

    Attributes:
        words: Of each problem, as numbers, without templates.
        grams: [N] hashes, problem after problem.
        rows: [N] the problem of each gram.
        places: [N] its first word's place in the problem.
        num_words: n.
    """

    words: list[list[int]]
    grams: np.ndarray
    rows: np.ndarray
    places: np.ndarray
    num_words: int

    @classmethod
    def of(
        cls,
        problems: Sequence[Problem],
        vocabulary: dict[str, int],
        templates: set[tuple[int, ...]],
        num_words: int,
    ) -> "_Texts":
        words = []
        for problem in problems:
            numbers = _numbers(problem, vocabulary)
            words.append([numbers[i] for i in _kept(numbers, templates)])
        lengths = np.array([len(found) for found in words], dtype=np.int64)
        ids = np.fromiter(chain.from_iterable(words), dtype=np.uint64, count=int(lengths.sum()))
        counts = np.where(lengths >= num_words, lengths - num_words + 1, np.minimum(lengths, 1))
        rows = np.repeat(np.arange(len(problems)), counts)
        places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        starts = (np.cumsum(lengths) - lengths)[rows] + places
        sizes = np.minimum(lengths[rows], num_words)
        grams = _hashes(ids + np.uint64(1), starts, sizes, num_words)
        return cls(words=words, grams=grams, rows=rows, places=places, num_words=num_words)


@dataclass(frozen=True, kw_only=True)
class _Index:
    """A benchmark's grams in the order of their hashes; [N] each."""

    grams: np.ndarray
    order: np.ndarray


@dataclass(frozen=True, kw_only=True)
class _Run:
    """Words that a training problem (`row`) and a benchmark problem (`other`) share, and where."""

    row: int
    other: int
    place: int
    other_place: int
    size: int


def _hashes(ids: np.ndarray, starts: np.ndarray, sizes: np.ndarray, num_words: int) -> np.ndarray:
    """64-bit hashes of the words at starts..starts + sizes: sums of words' hashes by place."""
    factors = np.random.default_rng(10).integers(1, 2**63, size=num_words, dtype=np.uint64) * 2 + 1
    total = sizes.astype(np.uint64)  # a short text never equals the beginning of a long one
    for i, factor in enumerate(factors):
        inside = sizes > i
        word = ids[np.where(inside, starts + i, 0)] if ids.size else ids
        mixed = (word ^ (word >> np.uint64(7))) * factor
        mixed ^= mixed >> np.uint64(29)
        total += np.where(inside, mixed * np.uint64(0x9E3779B97F4A7C15), np.uint64(0))
    return total


def _index(texts: _Texts, names: np.ndarray) -> _Index:
    """The grams by hash, without those that are phrases of their benchmark."""
    order = np.argsort(texts.grams, kind="stable")
    grams, rows = texts.grams[order], texts.rows[order]
    once = np.ones(len(grams), dtype=bool)  # of each gram and problem; rows ascend in a gram
    once[1:] = (np.diff(grams) != 0) | (np.diff(rows) != 0)
    owners = names[rows] if len(rows) else rows
    sizes = np.bincount(names) if names.size else np.zeros(0)
    phrases = []
    for name, size in enumerate(sizes):
        kinds, counts = np.unique(grams[once & (owners == name)], return_counts=True)
        limit = max(PHRASE_SHARE * size, MIN_SHARING["phrase"] - 1)
        phrases.append(kinds[counts > limit])
    kept = ~np.isin(grams, np.concatenate(phrases)) if phrases else once
    return _Index(grams=grams[kept], order=order[kept])


def _longest_runs(texts: _Texts, asked: _Texts, index: _Index) -> list[_Run]:
    """The longest run of each pair, by training row, then benchmark row."""
    low = np.searchsorted(index.grams, texts.grams, side="left")
    times = np.searchsorted(index.grams, texts.grams, side="right") - low
    mine = np.repeat(np.arange(len(times)), times)
    if not mine.size:
        return []
    nth = np.arange(len(mine)) - np.repeat(np.cumsum(times) - times, times)
    theirs = index.order[low[mine] + nth]
    row, other = texts.rows[mine], asked.rows[theirs]
    place = texts.places[mine]
    diagonal = place - asked.places[theirs]
    order = np.lexsort((place, diagonal, other, row))
    row, other, place, diagonal = row[order], other[order], place[order], diagonal[order]
    new = np.ones(len(row), dtype=bool)  # where a run of matches begins
    new[1:] = (np.diff(row) | np.diff(other) | np.diff(diagonal) | (np.diff(place) - 1)) != 0
    first = np.flatnonzero(new)
    matches = np.diff(np.append(first, len(row)))
    best: dict[tuple[int, int], tuple[int, int]] = {}
    for i, count in zip(first.tolist(), matches.tolist(), strict=True):
        pair = (int(row[i]), int(other[i]))
        if count > best.get(pair, (0, 0))[0]:
            best[pair] = (count, i)
    return [
        _Run(
            row=mine,
            other=theirs,
            place=int(place[i]),
            other_place=int(place[i] - diagonal[i]),
            size=count - 1 + min(texts.num_words, len(asked.words[theirs])),
        )
        for (mine, theirs), (count, i) in sorted(best.items())
    ]
