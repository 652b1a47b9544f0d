"""Training problems that share ten words in a row with a benchmark problem, as DeepSeek-R1 sought.

    found = overlaps(train, benchmark("math500").problems)
    train = without_overlaps(train, found)

DeepSeek-R1 (Nature 645, 2025, Methods and supplement) removed what shared a 10-gram with
evaluation data. It names no tokens: words are here runs of letters or digits in lower case, so
that spaces in formulas and punctuation do not matter. Paraphrases and translations are not found.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rewards.problem import Problem

NGRAM_WORDS = 10

TEMPLATE_SHARE = 0.5
"""Words in a row that more than so many of a benchmark's problems have are its instruction."""

MIN_TEMPLATE_PROBLEMS = 5
"""Problems that must share them, at least."""

CHUNK_PROBLEMS = 4096
"""Training problems looked at together; bounds the memory of the matches."""

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """A training problem and a benchmark problem with words in common.

    Example: `Overlap(training="math12k/3f...", benchmark="math500/9a...", num_words=12,
    words="what is the smallest prime whose digits sum to 19 and which")`.

    Attributes:
        words: The longest run of words that both have, lower case, single spaces.
        num_words: In that run; at least 10, or all words of a shorter benchmark problem.
    """

    training: str
    benchmark: str
    words: str
    num_words: int


def words_of(problem: Problem) -> list[str]:
    """The words of a problem's prompt: "Find $x^2$." is find, x, 2."""
    prompt = problem.prompt
    text = prompt if isinstance(prompt, str) else "\n".join(turn["content"] for turn in prompt)
    return _WORD.findall(text.lower())


def overlaps(
    training: Sequence[Problem], benchmark: Sequence[Problem], *, num_words: int = NGRAM_WORDS
) -> list[Overlap]:
    """Every pair of a training and a benchmark problem that share `num_words` words in a row.

    In the order of the training problems, then of the benchmark's. A benchmark problem of fewer
    words is shared if a training problem has exactly its words and no others. What more than
    `TEMPLATE_SHARE` of the problems of one benchmark (the first part of their ids) have in
    common is not counted. Time grows with the words of both, not with their product.
    """
    vocabulary: dict[str, int] = {}
    asked = _Texts.of(benchmark, vocabulary, num_words)
    index = _index(asked, _names(benchmark))
    found: list[Overlap] = []
    for start in range(0, len(training), CHUNK_PROBLEMS):
        chunk = training[start : start + CHUNK_PROBLEMS]
        texts = _Texts.of(chunk, vocabulary, num_words)
        for row, other, first, length in _longest_runs(texts, asked, index):
            words = texts.words[row][first : first + length]
            # A collision of hashes is next to impossible, and would drop a sound problem.
            if " ".join(words) in " ".join(asked.words[other]):
                found.append(
                    Overlap(
                        training=chunk[row].id,
                        benchmark=benchmark[other].id,
                        words=" ".join(words),
                        num_words=length,
                    )
                )
    return found


def without_overlaps(training: Sequence[Problem], found: Sequence[Overlap]) -> list[Problem]:
    """The training problems that are in none of the overlaps, in their order."""
    dropped = {overlap.training for overlap in found}
    return [problem for problem in training if problem.id not in dropped]


@dataclass(frozen=True, kw_only=True)
class _Texts:
    """Problems as words and hashed n-grams; a text of fewer than n words is one gram of all.

    Attributes:
        words: Of each problem.
        grams: [N] hashes, problem after problem.
        rows: [N] the problem of each gram.
        places: [N] its first word's place in the problem.
        num_words: n.
    """

    words: list[list[str]]
    grams: np.ndarray
    rows: np.ndarray
    places: np.ndarray
    num_words: int

    @classmethod
    def of(
        cls, problems: Sequence[Problem], vocabulary: dict[str, int], num_words: int
    ) -> "_Texts":
        words = [words_of(problem) for problem in problems]
        lengths = np.array([len(found) for found in words], dtype=np.int64)
        ids = np.fromiter(
            (vocabulary.setdefault(word, len(vocabulary) + 1) for found in words for word in found),
            dtype=np.uint64,
            count=int(lengths.sum()),
        )
        counts = np.where(lengths >= num_words, lengths - num_words + 1, np.minimum(lengths, 1))
        rows = np.repeat(np.arange(len(problems)), counts)
        places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        starts = (np.cumsum(lengths) - lengths)[rows] + places
        sizes = np.minimum(lengths[rows], num_words)
        grams = _hashes(ids, starts, sizes, num_words)
        return cls(words=words, grams=grams, rows=rows, places=places, num_words=num_words)


@dataclass(frozen=True, kw_only=True)
class _Index:
    """A benchmark's grams in the order of their hashes; [N] each."""

    grams: np.ndarray
    order: np.ndarray


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


def _names(problems: Sequence[Problem]) -> np.ndarray:
    """The benchmark of each problem, as a number."""
    names = [problem.id.partition("/")[0] for problem in problems]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def _index(texts: _Texts, names: np.ndarray) -> _Index:
    """The grams by hash, without those of instructions."""
    sizes = np.bincount(names) if names.size else np.zeros(0)
    pairs = np.unique(np.stack([texts.grams, texts.rows.astype(np.uint64)], axis=1), axis=0)
    owners = names[pairs[:, 1].astype(np.int64)].astype(np.uint64)
    kinds, counts = np.unique(np.stack([pairs[:, 0], owners], axis=1), axis=0, return_counts=True)
    limit = np.maximum(TEMPLATE_SHARE * sizes, MIN_TEMPLATE_PROBLEMS - 1)
    templates = kinds[counts > limit[kinds[:, 1].astype(np.int64)], 0]
    order = np.argsort(texts.grams, kind="stable")
    order = order[~np.isin(texts.grams[order], templates)]
    return _Index(grams=texts.grams[order], order=order)


def _longest_runs(texts: _Texts, asked: _Texts, index: _Index) -> list[tuple[int, int, int, int]]:
    """(training row, benchmark row, first word, words) of the longest run of each pair."""
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
        if count > best.get(pair, (0, 0))[1]:
            best[pair] = (int(place[i]), count)
    runs = []
    for (a, b), (start, count) in sorted(best.items()):
        size = min(texts.num_words, len(asked.words[b]))
        runs.append((a, b, start, count + size - 1))
    return runs
