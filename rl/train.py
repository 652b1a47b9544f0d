"""The loop: draw, collect, pack, update, publish, log, evaluate, save. Read it top to bottom.

Everything it needs is handed in; it leaves out, on purpose, how things are shown and built.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import psutil

from rl.checkpoint import RunState, load_checkpoint, save_checkpoint
from rl.clock import Clock
from rl.metrics import ages_of, round_metrics, token_ages
from rl.objective import penalised
from rl.optimizer import NonFiniteGradientError, learning_rate
from rl.packing import pack
from rl.recording import Recording
from rl.rounds import rounds_of, synchronise
from rl.trainer import TrainConfig, Trainer
from rl.update import prepare, update
from rollouts.collect import graded
from rollouts.collection_metrics import collection_metrics
from rollouts.ledger import Fate
from rollouts.models import resolve_model
from rollouts.rollout import Group

FATES = (Fate.TRAINED, Fate.SPENT, Fate.SAMPLED)
"""What a round's problems come to in the end."""
EVALUATED = ("pass_at_1", "pass_at_k", "maj_at_k", "truncated_frac", "mean_tokens")
"""What of an evaluation stands in metrics.jsonl, as eval/NAME; what there is none of is left out."""


def train(run: Trainer, state: RunState) -> RunState:
    """Run all rounds that are left; gives where it stopped (all rounds, or earlier if asked to).

    Rounds sampled before a kill are trained again from their files; only a round without one
    is sampled. Raises NonFiniteGradientError, naming the batch, with nothing written after it.
    """
    with rounds_of(run, state) as rounds:
        for index in range(state.round, run.config.num_rounds):
            clock = Clock(report=run.report)
            sampled = rounds.take(index, state.updates, clock)
            ages = ages_of(sampled.groups, state.updates)
            recording = Recording(sampled.groups, run.config.keep_logprobs)
            with clock("update"):
                run.engine.sleep()
                chosen = trained_groups(run.config, sampled.groups)
                updates = train_on(run, chosen, index, state.updates, clock, recording)
                if recording.keep != "none":
                    rows = recording.rows(run.policy, run.config.temperature)
                    run.folder.write_trained(index, rows)
            done = state.updates + len(updates)
            state = RunState(round=index + 1, updates=done, drawn=sampled.drawn)
            rounds.updated(state, clock)
            settle(run, index, sampled.groups, chosen)
            metrics = collection_metrics(sampled.groups) | ages | round_metrics(updates)
            metrics |= run.ledger.counts()
            metrics |= evaluate_round(run, state, clock)
            line = {"round": index, "updates": state.updates} | metrics | measured(clock)
            run.folder.log(line)
            run.report.round(line)
            if any(
                is_due(n, state.round) for n in (run.config.save_every, run.config.evaluate_every)
            ):
                state = save(run, state)
            if run.should_stop():
                break
    return save(run, state)


def restore(run: Trainer) -> RunState:
    """The last checkpoint's state, in policy, ledger and metrics; or a fresh one."""
    checkpoints = run.folder.checkpoints()
    state = load_checkpoint(checkpoints[-1], run.policy) if checkpoints else RunState()
    run.ledger.drawn.update(state.drawn)
    run.folder.forget_rounds_from(state.round)
    for line in run.folder.fates():
        for fate in FATES:
            run.ledger.note(line[fate], fate)
    if run.loss.kl_coefficient > 0 and run.policy.reference is None and not run.policy.adapter:
        if run.loss.reference_model:
            run.policy.read_reference(resolve_model(run.loss.reference_model))
        else:
            run.policy.refresh_reference()  # adapters have their base
    return state


def settle(run: Trainer, index: int, groups: Sequence[Group], chosen: Sequence[Group]) -> None:
    """Tell the ledger, and its file, what became of a round's problems; `chosen` were trained on."""
    whole = {group.problem.id: group for group in graded(groups)}
    every = run.loss.keeps_no_signal
    trained = {group.problem.id for group in chosen if every or group.has_signal}
    ids = [group.problem.id for group in groups]
    left = {i for i in ids if i in whole and whole[i].has_signal and i not in trained}
    fates = {
        Fate.TRAINED: [i for i in ids if i in trained],
        Fate.SPENT: [i for i in ids if i not in trained and i not in left],
        Fate.SAMPLED: [i for i in ids if i in left],
    }
    for fate, which in fates.items():
        run.ledger.note(which, fate)
    run.folder.log_fates(index, fates)


def trained_groups(config: TrainConfig, groups: Sequence[Group]) -> list[Group]:
    """What is trained on: all graded groups, or with refills the first with signal, a round's worth."""
    kept = graded(groups)
    if not config.refills:
        return kept
    return [group for group in kept if group.has_signal][: config.problems_per_round]


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
    if run.config.max_staleness:
        per_round = run.config.updates_per_round
        batches = [
            replace(batch, ages=token_ages(batch, share, updates_before, per_round))
            for batch, share in zip(batches, shares, strict=True)
        ]
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
