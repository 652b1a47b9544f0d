"""From what is asked to kept.jsonl and counts.json: sample, grade, filter, balance, write."""

import gc
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recipes.measuring import Idle, build_engine, watched
from recipes.rejection_asking import Asked, make_asked
from recipes.rejection_config import RejectionConfig
from recipes.rejection_counts import Seen, counts_of, nothing_kept, show
from recipes.rejection_folder import COUNTS, KEPT, RejectionFolder
from recipes.rejection_rows import Finishing, Text, file_rows, sample_rows, worked_rows
from recipes.scoring import pooled, reward_of
from recipes.standings import say
from recipes.versions import changed_versions, versions
from rewards.answers import after_thinking
from rewards.problem import Messages, Verdict
from rewards.scorer import Inline, Scorer
from rollouts.cold_start import summary_messages, to_r1_form, with_summary
from rollouts.completions import Key, Store, Texts
from rollouts.endpoint import EndpointSampler
from rollouts.rejection import Sample, Selection, at_most
from rollouts.rollout import Request
from rollouts.trials import Samples, Trial, run_trials

logger = logging.getLogger(__name__)

REWRITTEN = "rewritten"


def reject(config: RejectionConfig, path: Path, *, resume: bool) -> None:
    """Sample what the folder does not hold yet, and write what comes of all of it.

    Raises:
        ValueError: What cannot be sampled, what changed since the folder was started, or no row.
        EndpointError: A server fails; what came is kept.
    """
    asked = make_asked(config)
    with pooled(config, Inline(reward_of(config)), asked.trial.problems) as score:
        folder = _open(asked, path, resume=resume)
        try:
            say(f"kept in {path}; after any end, python -m recipes.rejection --resume {path}")
            counts = _kept(asked, folder, score)
        finally:
            folder.close()
    if not counts["kept"]["rows"]:
        raise ValueError(nothing_kept(asked, counts, path))
    show(asked, counts)
    say(f"{counts['kept']['rows']} rows are in {path / KEPT}, the numbers in {path / COUNTS}")


def _open(asked: Asked, path: Path, *, resume: bool) -> RejectionFolder:
    described = asked.described()
    if not resume:
        return RejectionFolder.create(path, asked.config, described, versions())
    folder = RejectionFolder(path)
    try:
        folder.check(described)
    except ValueError:
        folder.close()
        raise
    for line in changed_versions(folder.versions(), versions()):
        logger.warning("this folder was started with %s; its samples may change", line)
    return folder


def _kept(asked: Asked, folder: RejectionFolder, score: Scorer) -> dict[str, Any]:
    """Sample, choose and write; what is written, counted."""
    config = asked.config
    store = _store(folder, asked.trial)
    _sample(asked, asked.trial, store, score)
    texts, seen = Texts(folder.path / asked.trial.name), Seen()
    selection = _selected(asked, store, texts, seen)
    kept = selection.balanced()
    available = sum(map(len, kept.values()))
    keys = at_most(kept, available if config.num_rows is None else config.num_rows, config.seed)
    selection.removed["surplus"] = available - len(keys)

    def text(key: Key) -> tuple[str, int | None]:
        saved = texts[key]
        # A summary by rule has other tokens, and a prefill more.
        is_whole = config.form == "as_sampled" and not config.prompts.prefill
        return config.prompts.prefill + saved.text, saved.num_tokens if is_whole else None

    if asked.rewriter and keys:
        text = _rewritten(asked, folder, score, {key: text(key)[0] for key in keys})
    finishing = Finishing(asked=asked, score=score, removed={"samples": selection.removed})
    rows = _rows(finishing, sample_rows(finishing, selection, keys, text), seen)
    return folder.write_results(rows, lambda: counts_of(asked, selection, finishing.removed, seen))


def _store(folder: RejectionFolder, trial: Trial) -> Store:
    store = folder.store(trial)
    for note in store.notes:
        print(note, file=sys.stderr, flush=True)
    return store


def _sample(
    asked: Asked, trial: Trial, store: Store, score: Scorer, sampler: Samples | None = None
) -> None:
    """Sample and grade what is missing; an engine is built only if something is."""
    missing = trial.num_requests - len(store.completions)
    if missing and sampler is None:
        if asked.endpoint:
            sampler = asked.sampler()
        else:
            say(f"{asked.name}: loading, then {missing} completions to sample")
            sampler = build_engine(
                asked.model, asked.config, max_tokens=trial.max_tokens, num_requests=missing
            )
    stream = run_trials(sampler if missing else Idle(), [trial], [store], score)
    watched(stream, trial.name, missing)
    del sampler, stream
    gc.collect()  # an engine's memory


def _selected(asked: Asked, store: Store, texts: Texts, seen: Seen) -> Selection:
    """Every sample through the filters."""
    config = asked.config
    selection = Selection(config=config.filters, seed=config.seed)
    for saved in texts:
        sample = Sample(
            text=config.prompts.prefill + saved.text,
            verdict=store.grades[saved.key].verdict,
            finish=saved.finish,
            num_tokens=saved.num_tokens,
        )
        seen.sampled.add(saved.num_tokens)
        if sample.verdict is Verdict.CORRECT:
            seen.correct.add(saved.num_tokens)
        selection.add(saved.key, sample)
    return selection


def _rewritten(
    asked: Asked, folder: RejectionFolder, score: Scorer, chosen: Mapping[Key, str]
) -> Text:
    """The chosen samples with summaries by the rewriter, which is asked once for each."""
    language = asked.config.filters.language
    formed = {key: to_r1_form(text, language=language) for key, text in chosen.items()}
    trial = replace(
        asked.trial,
        name=REWRITTEN,
        prompts=((),) * len(asked.trial.problems),
        sampling=asked.config.rewrite_sampling,
        prefill="",
        counted=after_thinking,
        only=frozenset(key for key, text in formed.items() if text is not None),
    )

    def messages(request: Request) -> Messages:
        key = trial.key_of(request.id)
        return summary_messages(trial.by_id[key[0]], formed[key])

    store = _store(folder, trial)
    _sample(asked, trial, store, score, EndpointSampler(asked.rewriter, messages))
    told = {saved.key: saved for saved in Texts(folder.path / REWRITTEN)}

    def text(key: Key) -> tuple[str | None, None]:
        if key not in told or told[key].finish != "stop":
            return None, None
        return with_summary(formed[key], told[key].text), None

    return text


def _rows(
    finishing: Finishing, samples: Iterator[dict[str, Any]], seen: Seen
) -> Iterator[dict[str, Any]]:
    """Samples, then worked solutions of a file, then as many of the generator as are missing."""
    config = finishing.asked.config
    yield from seen.watched(samples)
    missing = None if config.num_rows is None else config.num_rows - seen.num_rows
    if config.solutions.path:
        yield from seen.watched(file_rows(finishing, missing))
    if config.num_rows is not None and config.fill_up and seen.num_rows < config.num_rows:
        missing = config.num_rows - seen.num_rows
        yield from seen.watched(worked_rows(finishing, missing, set(seen.problems)))
