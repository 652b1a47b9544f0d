"""From a config to a finished run: build the parts, gate, evaluate, train, evaluate, keep.

Wiring only: what each part does stands in its own package.
"""

import contextlib
import json
import logging
import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from eval.evaluate import EvalConfig, EvalResult, evaluate
from eval.voting import Equality
from recipes.baseline import best_prompt
from recipes.config import RunConfig, to_yaml
from recipes.control import ShuffledCollector
from recipes.data import Data, load_data, make_ledger
from recipes.decontamination import keep_record
from recipes.engines import check_rollouts, open_engine, per_engine, split_of
from recipes.noise import quiet
from recipes.preflight import check_config, check_reference, check_room
from recipes.progress import Progress, show_result
from recipes.scoring import pooled
from recipes.stopping import Stopper, parse_duration
from recipes.tracking import Tracking
from recipes.versions import changed_versions, versions
from rewards.problem import Problem
from rl.checkpoint import RunState, load_checkpoint
from rl.clock import Clock, Reporter
from rl.lora import adapter_size
from rl.ranked_folder import RankedFolder
from rl.ranks import ALONE, Ranks, find_ranks
from rl.rounds import synchronise
from rl.run_folder import AtomicFolder, RunFolder
from rl.split_sampling import SplitCollector, SplitSampler
from rl.train import restore, train
from rl.trainer import Trainer
from rl.watchdog import Watchdog
from rollouts.collect import Collector
from rollouts.model_config import policy_fault, read_model_config, sharing_fault
from rollouts.models import resolve_model
from rollouts.process import uses_gpu

logger = logging.getLogger(__name__)


def launch(config: RunConfig, path: Path, *, resume: bool, recipe: str) -> None:
    """Start or continue a run in a folder, to its end or to where it is asked to stop.

    `recipe` is the module that a person typed, for the command that continues.
    """
    check_config(config)
    check_rollouts(config)
    if config.end_after is not None:
        parse_duration(config.end_after, "end_after")
    ranks = replace(find_ranks(), per_engine=per_engine(config))
    path = ranks.from_first(lambda: path)
    stopper = Stopper(config.stop_after)
    progress = Progress(config.train.num_rounds)
    model = resolve_model(config.model)
    ranks.from_first(partial(_check_model, config, model))
    check_reference(config, model)
    if config.policy.lora.rank:
        _check_adapters(config, model)
    data = load_data(config, model)
    scored = pooled(config, data.score, data.problems["train"])
    watched = Watchdog(ranks, path, progress.now)
    with watched, scored as score, Equality(config.scoring) as same:
        folder = open_folder(config, path, model, ranks, resume=resume)
        try:
            if ranks.is_first:
                keep_record(folder.path, data.contamination)
            with stopper, progress, _tracking(config, path, progress, ranks) as report:
                data = replace(data, score=score, same=same)
                ended = partial(_ended, config, path, ranks)
                should_stop = partial(_any_asked, ranks, stopper, ended)
                run = build(config, model, data, folder, report, should_stop, ranks)
                state = restore(run)
                report.begin(state.round)
                _start(config, run, data, state)
                state = state if ended() else train(run, state)
            if state.round < config.train.num_rounds and not ended():
                command = f"python -m recipes.{recipe} --resume {shlex.quote(str(folder.path))}"
                print(f"stopped after round {state.round}; continue with\n  {command}")
                return
            _finish(config, run, data, state)
        finally:
            folder.close()


def _check_model(config: RunConfig, model: Path) -> None:
    """Raise ValueError if a model of this kind cannot be trained on this machine."""
    fields, lora = read_model_config(str(model)), config.policy.lora.rank > 0
    fault = policy_fault(fields, lora=lora, cuda=uses_gpu(os.environ))
    if fault := fault or sharing_fault(fields, config.engine.tensor_parallel):
        raise ValueError(f"model {config.model!r}: {fault}")


def _check_adapters(config: RunConfig, model: Path) -> None:
    """Raise ValueError if the model has no such layers to adapt, or its engine knows no adapters."""
    adapter_size(model, config.policy.lora)
    with quiet():
        from rollouts.engine import adapter_fault

        fault = adapter_fault(model, config.engine.dtype)
    if fault:
        raise ValueError(f"policy.lora.rank is {config.policy.lora.rank}, but {fault}")


def _tracking(config: RunConfig, path: Path, progress: Progress, ranks: Ranks) -> Tracking:
    values = yaml.safe_load(to_yaml(config))
    return Tracking(config.track, path, values, progress, is_first=ranks.is_first)


def _any_asked(ranks: Ranks, stopper: Stopper, ended: Callable[[], bool]) -> bool:
    return ranks.any(stopper.asked()) or ended()


def _ended(config: RunConfig, path: Path, ranks: Ranks) -> bool:
    """Whether the rounds so far, of earlier starts too, took as long as `end_after`."""
    if config.end_after is None:
        return False
    lines = (path / "metrics.jsonl").read_text().splitlines() if ranks.is_first else ()
    spent = sum(json.loads(line)["time/round_s"] for line in lines)
    return ranks.any(ranks.is_first and spent >= parse_duration(config.end_after))


def open_folder(
    config: RunConfig, path: Path, model: Path, ranks: Ranks, *, resume: bool
) -> RunFolder | RankedFolder:
    """The run's folder, new or taken up again; under several processes the first one's."""
    if ranks.count > 1:
        folder = open_folder(config, path, model, ALONE, resume=resume) if ranks.is_first else None
        return RankedFolder(folder, path, ranks)
    check_room(config, model, path)
    if not resume:
        return RunFolder.create(path, to_yaml(config), versions())
    folder = RunFolder(path)
    for line in changed_versions(json.loads((path / "versions.json").read_text()), versions()):
        logger.warning("this run was started with %s; its numbers may change", line)
    return folder


def build(
    config: RunConfig,
    model: Path,
    data: Data,
    folder: RunFolder | RankedFolder,
    report: Reporter,
    should_stop: Callable[[], bool],
    ranks: Ranks = ALONE,
) -> Trainer:
    """Engine, policy, collector and ledger, put together."""
    ledger = make_ledger(config, data)
    report.phase("load")
    with quiet():
        from rl.policy import Policy

        seed = config.train.seed
        policy = Policy(model, config.policy, config.optimizer, seed=seed, ranks=ranks)
        engine = open_engine(config, model, data.max_tokens, policy.adapter, ranks, folder.path)
        if policy.adapter:
            engine.prove_base(policy.weights())
    sampler, split = split_of(engine, ranks)
    collector = Collector(
        sampler=sampler,
        render=data.renderer.ids,
        score=data.score,
        group_size=config.train.group_size,
        seed=config.train.seed,
        prefill=config.prompts.prefill,
    )
    if ranks.count > 1 and not config.train.max_staleness:  # ahead, the first collects for all
        collector = SplitCollector(collector=collector, ranks=split)
    if config.control == "shuffled_rewards":
        collector = ShuffledCollector(collector)
    return Trainer(
        config=config.train,
        packing=config.packing,
        loss=config.loss,
        policy=policy,
        engine=engine,
        collector=collector,
        ledger=ledger,
        folder=folder,
        report=report,
        evaluate=partial(_validate, config, engine, data, folder, ranks),
        should_stop=should_stop,
    )


def _start(config: RunConfig, run: Trainer, data: Data, state: RunState) -> None:
    """Publish, pass the gate, and measure the base if that is not done."""
    from recipes.gating import pass_adapter_gate, pass_gate

    synchronise(run, state.updates, Clock(report=run.report))
    run.report.phase("gate")
    print(pass_gate(config, run, data), flush=True)
    if run.policy.adapter:
        print(pass_adapter_gate(config, run, data), flush=True)
        synchronise(run, state.updates, Clock(report=run.report))
    if state.round == 0 and config.measured:
        measure(config.test, run, data, "base")
        if config.best_prompt and run.folder.read_eval("base-best-prompt") is None:
            run.report.phase("base, best prompt")
            sample = partial(_sampled, run.engine, data, run.policy.ranks)
            base = EvalResult.from_json(run.folder.read_eval("base"))
            result = best_prompt(config, data, sample, base)
            run.folder.write_eval("base-best-prompt", result.to_json())


def _finish(config: RunConfig, run: Trainer, data: Data, state: RunState) -> None:
    """Measure the result, write it as a plain checkpoint, and show before and after."""
    result = result_of(config, run, state)
    if config.measured:
        synchronise(run, result.updates, Clock(report=run.report))
        measure(config.test, run, data, "trained")
    final, ranks = run.folder.path / "final", run.policy.ranks
    if not ranks.from_first(final.exists):
        place = AtomicFolder(final) if ranks.is_first else contextlib.nullcontext()
        with place as folder, quiet():
            run.policy.save_pretrained(folder)
            if folder:
                data.renderer.tokenizer.save_pretrained(folder)
    if config.measured:
        show_result(run.folder, state)


def result_of(config: RunConfig, run: Trainer, last: RunState) -> RunState:
    """The state that the run results in; the policy then holds its weights."""
    if config.train.final == "last":
        return last
    best = run.folder.best_checkpoint(config.train.best_by)
    if best is None:
        print(
            f"no round has {config.train.best_by} on the validation split: the last is the result"
        )
        return last
    state = load_checkpoint(run.folder.path / "checkpoints" / best, run.policy)
    print(f"the result is {best}, the best on the validation split by {config.train.best_by}")
    return state


def measure(config: EvalConfig, run: Trainer, data: Data, label: str) -> None:
    """Evaluate on the test split under a label, once a run."""
    if run.folder.read_eval(label) is None:
        run.report.phase(f"evaluate {label}")
        problems = data.selected(config)
        result = _sampled(run.engine, data, run.policy.ranks, config, problems, label)
        run.folder.write_eval(label, result.to_json())


def _validate(
    config: RunConfig, engine: Any, data: Data, folder: Any, ranks: Ranks, label: str
) -> None:
    rows = data.selected(config.validation)
    result = _sampled(engine, data, ranks, config.validation, rows, label)
    folder.write_eval(label, result.to_json())


def _sampled(
    engine: Any,
    data: Data,
    ranks: Ranks,
    config: EvalConfig,
    problems: list[Problem],
    label: str,
    render: Callable[[Problem], tuple[int, ...]] | None = None,
) -> EvalResult:
    """Sampled by all processes, graded by the first, known to all."""
    engine.reset_prefix_cache()
    sampler, split = split_of(engine, ranks)
    sampler = SplitSampler(sampler=sampler, ranks=split)
    if not ranks.is_first:
        sampler.help()
    measured = partial(
        evaluate,
        sampler,
        problems,
        render=render or data.renderer.ids,
        sampling=config.sampling,
        num_samples=config.num_samples,
        seed=config.seed,
        score=data.score,
        same=data.same,
        k=config.k,
        prefill=data.renderer.config.prefill,
        label=label,
        split=config.split,
    )
    return ranks.from_first(measured)
