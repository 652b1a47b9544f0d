"""The loop: draw, collect, pack, update, publish, log, evaluate, save. Read it top to bottom.

Everything it needs is handed in; it leaves out, on purpose, how things are shown and built.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from random import Random
from typing import Literal, Protocol

import psutil

from rewards.problem import Problem
from rl.checkpoint import RunState, load_checkpoint, save_checkpoint
from rl.clock import Clock, Reporter
from rl.metrics import round_metrics
from rl.objective import LossConfig, penalised
from rl.optimizer import NonFiniteGradientError, learning_rate
from rl.packing import PackingConfig, pack
from rl.policy import Policy
from rl.recording import KeptLogprobs, Recording
from rl.run_folder import RunFolder
from rl.update import prepare, update
from rollouts.collect import Collector, collection_metrics, graded
from rollouts.ledger import Ledger
from rollouts.models import resolve_model
from rollouts.rollout import Group, Sampling
from rollouts.sampler import Sampler

EVALUATED = ("pass_at_1", "pass_at_k", "maj_at_k", "truncated_frac", "mean_tokens")
"""What of an evaluation stands in metrics.jsonl, as eval/NAME; what there is none of is left out."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, how much, how often. A round is one sampling; an update is one optimizer step."""

    num_rounds: int = 40
    """Rounds of the whole run."""
    problems_per_round: int = 16
    """Problems drawn for a round."""
    group_size: int = 16
    """Completions of each problem, G."""
    refills: int = 0
    """Dynamic sampling (DAPO): groups without signal are replaced by groups of further problems, at
    most so many times a round; 0 trains on what the round's problems gave."""
    updates_per_round: int = 1
    """Optimizer steps a round feeds; each takes an equal share of whole groups."""
    temperature: float = 1.0
    """Of sampling."""
    max_tokens: tuple[tuple[int, int], ...] = ((0, 64),)
    """(from this update on, limit of sampled tokens), in order; the first starts at 0."""
    seed: int = 0
    """Of the run: draws, requests and minibatches derive from it."""
    evaluate_every: int = 0
    """Rounds between evaluations on the validation split, each with a checkpoint; 0 for none."""
    best_by: Literal["pass_at_1", "pass_at_k", "maj_at_k"] = "pass_at_1"
    """The metric of the validation split by which the best checkpoint is kept."""
    final: Literal["last", "best"] = "last"
    """The run's result, the only one that the test split is read for: the last round's, or the best."""
    save_every: int = 10
    """Rounds between checkpoints: at most so many rounds of updates are repeated after a kill."""
    keep_last: int = 2
    """Checkpoints kept besides the best one."""
    keep_logprobs: KeptLogprobs = "update"
    """A second file a round for recipes.view: advantages, and the trainer's logprobs as its updates
    computed them, or `after` the round's last one (a forward pass more); or none."""


class Publisher(Sampler, Protocol):
    """A sampler in this process: versioned, with sleep and a prefix cache."""

    version: int

    def reset_prefix_cache(self) -> None: ...
    def sleep(self) -> None: ...
    def wake(self, *parts: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What a run is made of."""

    config: TrainConfig
    packing: PackingConfig
    loss: LossConfig
    policy: Policy
    engine: Publisher
    collector: Collector
    ledger: Ledger
    folder: RunFolder
    report: Reporter
    evaluate: Callable[[str], None]
    """Evaluates the engine's weights on the validation split and writes it under a label."""
    should_stop: Callable[[], bool]


def train(run: Trainer, state: RunState) -> RunState:
    """Run all rounds that are left; gives where it stopped (all rounds, or earlier if asked to).

    Rounds sampled before a kill are trained again from their files; only a round without one
    is sampled. Raises NonFiniteGradientError, naming the batch, with nothing written after it.
    """
    for index in range(state.round, run.config.num_rounds):
        clock = Clock(report=run.report)
        problems = run.ledger.draw(run.config.problems_per_round, updates=state.updates)
        groups = run.folder.read_round(index)
        if groups is None:
            synchronise(run, state.updates, clock)
            with clock("sample"):
                groups = sample_round(run, problems, index, state.updates)
            clock.timeline.take(run.collector.timeline)
            run.folder.write_round(index, groups)
        else:
            run.ledger.draw(len(groups) - len(problems), updates=state.updates)  # by refills
        recording = Recording(groups, run.config.keep_logprobs)
        with clock("update"):
            run.engine.sleep()
            chosen = trained_groups(run.config, groups)
            updates = train_on(run, chosen, index, state.updates, clock, recording)
            if recording.keep != "none":
                rows = recording.rows(run.policy, run.config.temperature)
                run.folder.write_trained(index, rows)
        state = RunState(
            round=index + 1, updates=state.updates + len(updates), drawn=dict(run.ledger.drawn)
        )
        metrics = collection_metrics(groups) | round_metrics(updates)
        metrics |= evaluate_round(run, state, clock)
        line = {"round": index, "updates": state.updates} | metrics | measured(clock)
        run.folder.log(line)
        run.report.round(line)
        if any(is_due(n, state.round) for n in (run.config.save_every, run.config.evaluate_every)):
            state = save(run, state)
        if run.should_stop():
            break
    return save(run, state)


def restore(run: Trainer) -> RunState:
    """The last checkpoint's state, in policy, ledger and metrics; or a fresh one."""
    checkpoints = run.folder.checkpoints()
    state = load_checkpoint(checkpoints[-1], run.policy) if checkpoints else RunState()
    run.ledger.drawn.update(state.drawn)
    run.folder.forget_metrics_from(state.round)
    if run.loss.kl_coefficient > 0 and run.policy.reference is None and not run.policy.adapter:
        if run.loss.reference_model:
            run.policy.read_reference(resolve_model(run.loss.reference_model))
        else:
            run.policy.refresh_reference()  # adapters have their base
    return state


def synchronise(run: Trainer, version: int, clock: Clock) -> None:
    """Give the engine the policy's weights if it holds others, and an empty prefix cache."""
    with clock("publish"):
        run.engine.wake("weights")
        if run.engine.version != version:
            run.engine.publish(run.policy.published(), version)
        run.engine.wake("kv_cache")
        run.engine.reset_prefix_cache()


def sample_round(
    run: Trainer, problems: Sequence[Problem], index: int, version: int
) -> list[Group]:
    """A round's groups in draw order; with refills, further ones until enough have signal.

    A refill draws as many problems as would fill the round at the share with signal so far, at
    most one round's worth at a time.
    """
    sampling, size = sampling_at(run.config, version), run.config.problems_per_round
    groups = run.collector.collect(problems, sampling, round_index=index, version=version)
    for _ in range(run.config.refills):
        found = sum(group.has_signal for group in graded(groups))
        if found >= size:
            break
        asked = min(size, ceil((size - found) * len(groups) / max(found, 1)))
        groups += run.collector.collect(
            run.ledger.draw(asked, updates=version),
            sampling,
            round_index=index,
            version=version,
            first_row=len(groups),
        )
    graded(groups)  # Raises here, so that a round that cannot be trained on is never kept.
    return groups


def trained_groups(config: TrainConfig, groups: Sequence[Group]) -> list[Group]:
    """What is trained on: all graded groups, or with refills the first with signal, a round's worth."""
    kept = graded(groups)
    if not config.refills:
        return kept
    return [group for group in kept if group.has_signal][: config.problems_per_round]


def sampling_at(config: TrainConfig, updates: int) -> Sampling:
    """The sampling parameters in force after so many updates."""
    limit = [tokens for start, tokens in config.max_tokens if start <= updates][-1]
    return Sampling(temperature=config.temperature, max_tokens=limit)


def train_on(
    run: Trainer,
    groups: Sequence[Group],
    index: int,
    updates_before: int,
    clock: Clock,
    recording: Recording | None = None,
) -> list[dict[str, float]]:
    """All updates of a round; gives each one's metrics."""
    temperature = run.config.temperature
    if run.loss.kl_coefficient > 0 and is_reference_due(run, updates_before):
        run.policy.refresh_reference()
    if run.loss.kl_coefficient > 0 and run.loss.kl == "k1_reward":
        every = replace(run.packing, truncated="score")  # masked ones are in their group's mean
        whole = pack(groups, every, keep_no_signal=True)
        reference = run.policy.reference_logprobs(whole, temperature)
        groups = penalised(groups, reference, whole, run.loss.kl_coefficient)
    shares = minibatches(groups, run.config, index)
    keep = run.loss.keeps_no_signal
    with clock("pack"):
        batches = [pack(share, run.packing, keep_no_signal=keep) for share in shares]
    done: list[dict[str, float]] = []
    prepared = prepare(run.policy, batches, run.loss, temperature)
    for share, batch in zip(shares, prepared, strict=True):
        settings = {"temperature": temperature, "rate": rate_at(run, updates_before + len(done))}
        try:
            seen = recording.begin(share, batch) if recording else None
            done.append(update(run.policy, batch, run.loss, **settings, seen=seen))
        except NonFiniteGradientError as error:
            raise NonFiniteGradientError(
                f"{error} in update {len(done)} of round {index} "
                f"({run.folder.round_path(index)}); the checkpoints before it are whole. "
                "Look at that file's rewards and logprobs, lower optimizer.learning_rate, and start anew"
            ) from error
    return done


def is_reference_due(run: Trainer, updates: int) -> bool:
    """True at the first round that starts at or after a multiple of `reference_every` updates.

    Never with a reference model of its own.
    """
    every = run.loss.reference_every
    if run.loss.reference_model:
        return False
    return updates >= every and updates % every < run.config.updates_per_round


def rate_at(run: Trainer, update_index: int) -> float:
    """The learning rate of an update."""
    total = run.config.num_rounds * run.config.updates_per_round
    return learning_rate(run.policy.optimizer.config, update_index, total)


def minibatches(groups: Sequence[Group], config: TrainConfig, index: int) -> list[list[Group]]:
    """A round's groups in shares of nearly equal size, one an update, shuffled if more than one."""
    groups = list(groups)
    count = max(1, min(config.updates_per_round, len(groups)))
    if count > 1:
        Random(f"{config.seed}/minibatches/{index}").shuffle(groups)
    return [groups[i * len(groups) // count : (i + 1) * len(groups) // count] for i in range(count)]


def evaluate_round(run: Trainer, state: RunState, clock: Clock) -> dict[str, float]:
    """Evaluate if it is due, once under the round's label: a resumed run finds the file."""
    if not is_due(run.config.evaluate_every, state.round):
        return {}
    label = f"round-{state.round:06d}"
    if run.folder.read_eval(label) is None:
        synchronise(run, state.updates, clock)
        with clock("evaluate"):
            run.evaluate(label)
    result = run.folder.read_eval(label)
    return {f"eval/{name}": result[name] for name in EVALUATED if result[name] is not None}


def save(run: Trainer, state: RunState) -> RunState:
    """Write a checkpoint (once a round), then remove what retention lets go."""
    path = run.folder.path / "checkpoints" / f"round-{state.round:06d}"
    if run.policy.ranks.from_first(path.exists):
        return state
    run.report.phase("save")
    state = save_checkpoint(path, run.policy, state)
    best = run.folder.best_checkpoint(run.config.best_by)
    run.folder.keep_checkpoints(run.config.keep_last, best)
    return state


def is_due(every: int, done: int) -> bool:
    """True when `done` rounds complete another `every`."""
    return every > 0 and done % every == 0


def measured(clock: Clock) -> dict[str, float]:
    """Times and memory: the only metrics that differ between equal runs."""
    return clock.metrics() | {"memory/resident_bytes": float(psutil.Process().memory_info().rss)}
