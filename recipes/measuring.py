"""From what is asked to results.json and the table: one engine after another, one a model."""

import gc
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from eval.benchmarks import Benchmark
from eval.protocols import Template
from eval.standings import Standing, standing_of
from eval.voting import Equality
from recipes.asking import make_asking
from recipes.evaluation import Asking, EvaluateConfig, Grader, Subject
from recipes.evaluation_folder import EvaluationFolder, described
from recipes.evaluation_report import report
from recipes.noise import quiet
from recipes.rejection_config import RejectionConfig
from recipes.standings import (
    comparisons,
    reading_notes,
    results_json,
    say,
    show,
    spread_lines,
    spreads,
)
from recipes.training_overlap import overlap_line, training_overlap
from recipes.versions import changed_versions, versions
from rewards.pool import RewardPool
from rewards.scorer import Scorer
from rollouts.completions import Store
from rollouts.rollout import Completion, Request
from rollouts.trials import Progress, Samples, Trial, run_trials

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Session:
    """What is at work: what is asked, the folder, the graders, and the seconds of each stream."""

    asking: Asking
    folder: EvaluationFolder
    score: Scorer
    same: Equality
    stores: dict[str, Store] = field(default_factory=dict)
    streams: list[dict[str, Any]] = field(default_factory=list)
    best_templates: dict[str, Any] = field(default_factory=dict)

    def store(self, trial: Trial) -> Store:
        """What is known of a trial, opened once; says aloud what was dropped."""
        if trial.name not in self.stores:
            self.stores[trial.name] = self.folder.store(trial)
            for note in self.stores[trial.name].notes:
                print(note, file=sys.stderr, flush=True)
        return self.stores[trial.name]

    def standing(self, trial: Trial, label: str) -> Standing:
        """What a finished trial comes to."""
        ks = self.asking.config.k
        return standing_of(trial, self.store(trial), label=label, ks=ks, same=self.same)


def evaluate(config: EvaluateConfig, path: Path, *, resume: bool) -> None:
    """Measure everything, keep it in the folder, and show the table."""
    asking = make_asking(config)
    asked = described(asking)
    reward = Grader(rewards={each.name: each.reward for each in asking.benchmarks}).score
    with RewardPool(reward, config.scoring) as pool, Equality(config.scoring) as same:
        for each in asking.benchmarks:
            pool.check(each.problems[0])
        folder = _open(config, path, asked, resume=resume)
        session = Session(asking=asking, folder=folder, score=pool, same=same)
        try:
            say(f"kept in {path}; after any end, python -m recipes.evaluate --resume {path}")
            standings = [s for subject in asking.subjects for s in measure(session, subject)]
            _conclude(session, standings, asked)
        finally:
            folder.close()
    say(f"everything is in {path}: report.md, results.json, and each completion under completions/")


def _conclude(session: Session, standings: Sequence[Standing], asked: dict[str, Any]) -> None:
    """Compare, write results.json and report.md, and show the tables."""
    made_with = versions()
    rows, spread = comparisons(standings), spreads(standings)
    overlap = {
        subject.label: training_overlap(subject.run, session.asking.benchmarks)
        for subject in session.asking.subjects
        if subject.run
    }
    results = results_json(
        standings,
        rows,
        asked=asked,
        spread=spread,
        templates=session.best_templates,
        training_overlap=overlap,
        streams=session.streams,
        versions=made_with,
        config=asdict(session.asking.config),
    )
    said = [*notes(session), *reading_notes(standings), *spread_lines(spread, rows)]
    lines = (overlap_line(s, overlap[s.subject]) for s in standings if s.subject in overlap)
    said += dict.fromkeys(line for line in lines if line)
    text = report(standings, rows, said, asked=asked, versions=made_with)
    session.folder.write_results(results, text)
    show(Console(), standings, rows, said)


def measure(session: Session, subject: Subject) -> list[Standing]:
    """Every benchmark by one model, in the order of the command line; `against` best ones too."""
    asking = session.asking
    own, probes = asking.trials(subject), asking.probe_trials(subject)
    wholes = [asking.trial(subject, asking.named(name), template) for name, template in probes]
    engine = LazyEngine(session, subject, [*own, *probes.values(), *wholes])
    try:
        engine.run([*own, *probes.values()])
        standings = [session.standing(t, f"{subject.label} ({subject.template})") for t in own]
        if probes:
            best = [_best(session, subject, each, probes) for each in asking.benchmarks]
            better = [
                (asking.trial(subject, each, template), template)
                for each, template in zip(asking.benchmarks, best, strict=True)
                if template != subject.template
            ]
            if better:
                engine.run([trial for trial, _ in better])
            standings += [
                session.standing(trial, f"{subject.label} (best: {template})")
                for trial, template in better
            ]
    finally:
        engine.close()
    return standings


class LazyEngine:
    """One model's engine, built when something has to be sampled; big enough for all its trials."""

    def __init__(self, session: Session, subject: Subject, trials: Sequence[Trial]):
        self._session = session
        self._subject = subject
        self._max_tokens = max(trial.max_tokens for trial in trials)
        self._num_requests = sum(trial.num_requests for trial in trials)
        self._engine: Samples = Idle()

    def run(self, trials: Sequence[Trial]) -> None:
        """Sample and grade what is missing of these."""
        stores = [self._session.store(trial) for trial in trials]
        missing = sum(
            t.num_requests - len(s.completions) for t, s in zip(trials, stores, strict=True)
        )
        if missing and isinstance(self._engine, Idle):
            say(f"{self._subject.name}: loading, then {missing} completions to sample")
            self._engine = build_engine(
                self._subject.path,
                self._session.asking.config,
                max_tokens=self._max_tokens,
                num_requests=self._num_requests,
            )
        stream = run_trials(self._engine, trials, stores, self._session.score)
        progress = watched(stream, self._subject.name, missing)
        names = [trial.name for trial in trials]
        self._session.streams.append({"trials": names, **asdict(progress)})

    def close(self) -> None:
        """Let go of the engine's memory, for the next model's."""
        self._engine = Idle()
        gc.collect()


class Idle:
    """An engine that is not asked for anything."""

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Nothing, of nothing."""
        assert not requests
        return iter(())


def build_engine(
    model: Path, config: EvaluateConfig | RejectionConfig, *, max_tokens: int, num_requests: int
) -> Samples:
    """The real engine on a checkpoint as it is: nothing is published to it."""
    with quiet():
        from rollouts.engine import Engine

        return Engine(model, config.engine, max_tokens=max_tokens, num_requests=num_requests)


def notes(session: Session) -> list[str]:
    """What a reader of the table must know: protocol, prompts, benchmarks, chosen templates."""
    asking = session.asking
    sampling = asking.protocol.sampling
    lines = [f"{subject.label} is {subject.name}" for subject in asking.subjects]
    lines += [
        f"Protocol {asking.protocol.name}{_changed(asking)}: temperature {sampling.temperature:g}, top-p "
        f"{sampling.top_p:g}, at most {sampling.max_tokens} tokens, seed {asking.config.seed}"
    ]
    lines += [f"{each.name}: {note}" for each in asking.benchmarks for note in each.notes]
    lines += [
        f"{name}: the best template of {found['model']} is {found['chosen']}, chosen on "
        f"{found['num_problems']} {found['chosen_on']}"
        for name, found in session.best_templates.items()
    ]
    return lines


def _changed(asking: Asking) -> str:
    """Says that a protocol is not as its name has it."""
    config = asking.config
    fields = (config.temperature, config.top_p, config.max_tokens, config.num_samples)
    changed = any(value is not None for value in fields) or config.template or config.system
    return ", with changes" if changed else ""


def _open(
    config: EvaluateConfig, path: Path, asked: dict[str, Any], *, resume: bool
) -> EvaluationFolder:
    if not resume:
        return EvaluationFolder.create(path, config, asked, versions())
    folder = EvaluationFolder(path)
    try:
        folder.check(asked)
    except ValueError:
        folder.close()
        raise
    for line in changed_versions(folder.versions(), versions()):
        logger.warning("this evaluation was started with %s; its numbers may change", line)
    return folder


def _best(
    session: Session, subject: Subject, each: Benchmark, probes: dict[tuple[str, Template], Trial]
) -> Template:
    """The template with the highest pass@1 on the probe, the subject's own if it is among them."""
    tried = {template: trial for (name, template), trial in probes.items() if name == each.name}
    scores = {
        template: session.standing(trial, template).pass_at_1 for template, trial in tried.items()
    }
    best = max(scores, key=lambda template: (scores[template], template == subject.template))
    measured = {problem.id for problem in each.problems}
    apart = not any(p.id in measured for p in session.asking.probes[each.name].problems)
    session.best_templates[each.name] = {
        "model": subject.label,
        "chosen": best,
        "pass_at_1": scores,
        "num_problems": len(next(iter(tried.values())).problems),
        "chosen_on": "other problems" if apart else "measured problems, which favours it",
    }
    return best


def watched(stream: Iterator[Progress], text: str, missing: int) -> Progress:
    """Let a stream run, with a bar in a terminal; gives its last word."""
    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        transient=True,
        disable=not sys.stdout.isatty(),
    )
    with bar:
        task = bar.add_task(text, total=missing)
        for progress in stream:
            bar.update(task, completed=progress.num_sampled)
    return progress
