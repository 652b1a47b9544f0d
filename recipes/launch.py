"""From a config to a finished run: build the parts, gate, evaluate, train, evaluate, keep.

Wiring only: what each part does stands in its own package.
"""

import contextlib
import json
import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from eval.evaluate import EvalConfig, EvalResult, evaluate
from recipes.baseline import best_prompt
from recipes.config import RunConfig, to_yaml
from recipes.control import ShuffledCollector
from recipes.demand import most_requests
from recipes.fitting import check_memory
from recipes.preflight import check_config, check_lengths, check_room, check_splits
from recipes.progress import Progress, show_result
from recipes.scoring import pooled, reward_of
from recipes.stopping import Stopper
from recipes.versions import changed_versions, versions
from rewards.problem import Problem
from rewards.scorer import Inline, Scorer
from rl.checkpoint import RunState
from rl.lora import adapter_size
from rl.run_folder import AtomicFolder, RunFolder
from rl.train import Clock, Reporter, Trainer, restore, synchronise, train
from rollouts.collect import Collector
from rollouts.ledger import Ledger
from rollouts.models import resolve_model
from rollouts.prompts import Renderer, fitting
from rollouts.sampler import Split
from rollouts.tasks.mixture import Mixture

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Data:
    """The problems of a run by split, with their renderer and reward."""

    problems: dict[Split, list[Problem]]
    renderer: Renderer
    score: Scorer
    """The reward, in this process or in others."""
    max_tokens: int
    """The longest sequence that the engine must hold."""

    def selected(self, config: EvalConfig) -> list[Problem]:
        """The problems of an evaluation: drawn once from its split, the same in every run."""
        rows = list(self.problems[config.split])
        Random("evaluation").shuffle(rows)
        return rows[: config.num_problems]


def launch(config: RunConfig, path: Path, *, resume: bool, recipe: str) -> None:
    """Start or continue a run in a folder, to its end or to where it is asked to stop.

    `recipe` is the module that a person typed, for the command that continues.
    """
    check_config(config)
    stopper = Stopper(config.stop_after)
    progress = Progress(config.train.num_rounds)
    model = resolve_model(config.model)
    if config.policy.lora.rank:
        _check_adapters(config, model)
    data = load_data(config, model)
    with pooled(config, data.score, data.problems["train"][0]) as score:
        folder = open_folder(config, path, model, resume=resume)
        try:
            with stopper, progress:
                data = replace(data, score=score)
                run = build(config, model, data, folder, progress, stopper.asked)
                state = restore(run)
                _start(config, run, data, state)
                state = train(run, state)
            if state.round < config.train.num_rounds:
                command = f"python -m recipes.{recipe} --resume {shlex.quote(str(folder.path))}"
                print(f"stopped after round {state.round}; continue with\n  {command}")
                return
            _finish(config, run, data, state)
        finally:
            folder.close()


def _check_adapters(config: RunConfig, model: Path) -> None:
    """Raise ValueError if the model has no such layers to adapt, or its engine knows no adapters."""
    adapter_size(model, config.policy.lora)
    with quiet():
        from rollouts.engine import adapter_fault

        fault = adapter_fault(model, config.engine.dtype)
    if fault:
        raise ValueError(f"policy.lora.rank is {config.policy.lora.rank}, but {fault}")


def load_data(config: RunConfig, model: Path) -> Data:
    """Problems of all splits, without those whose prompt is too long (counted aloud).

    Raises ValueError if a split has none, or if the longest does not fit into the context or the
    run into the memory.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    renderer = Renderer(tokenizer=tokenizer, config=config.prompts)
    problems: dict[Split, list[Problem]] = {}
    for split in ("train", "validation", "test"):
        rows = config.task.problems(split)
        problems[split], dropped = fitting(rows, renderer.ids, config.prompts.max_prompt_tokens)
        if dropped:
            print(
                f"{split}: {dropped} of {len(rows)} problems left out, their prompt is longer than "
                f"prompts.max_prompt_tokens {config.prompts.max_prompt_tokens}"
            )
    check_splits(config, problems, config.task.name)
    longest = max(len(renderer.ids(p)) for rows in problems.values() for p in rows)
    max_tokens = check_lengths(config, model, longest)
    check_memory(config, model, longest_prompt=longest)
    return Data(
        problems=problems,
        renderer=renderer,
        score=Inline(reward_of(config)),
        max_tokens=max_tokens,
    )


def open_folder(config: RunConfig, path: Path, model: Path, *, resume: bool) -> RunFolder:
    """The run's folder, new or taken up again."""
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
    folder: RunFolder,
    report: Reporter,
    should_stop: Callable[[], bool],
) -> Trainer:
    """Engine, policy, collector and ledger, put together."""
    ledger = Ledger(problems=_by_task(data), weights=_weights(config), seed=config.train.seed)
    report.phase("load")
    with quiet():
        from rl.policy import Policy
        from rollouts.engine import Engine

        policy = Policy(model, config.policy, config.optimizer, seed=config.train.seed)
        engine = Engine(
            model,
            config.engine,
            max_tokens=data.max_tokens,
            num_requests=most_requests(config),
            adapter=policy.adapter,
        )
        if policy.adapter:
            engine.prove_base(policy.weights())
    collector = Collector(
        sampler=engine,
        render=data.renderer.ids,
        score=data.score,
        group_size=config.train.group_size,
        seed=config.train.seed,
        prefill=config.prompts.prefill,
    )
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
        evaluate=partial(_validate, config, engine, data, folder),
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
    if state.round == 0:
        measure(config.test, run, data, "base")
        if config.best_prompt and run.folder.read_eval("base-best-prompt") is None:
            run.report.phase("base, best prompt")
            sample = partial(_sampled, run.engine, data)
            result = best_prompt(config.validation, config.test, data, sample, data.max_tokens)
            run.folder.write_eval("base-best-prompt", result.to_json())


def _finish(config: RunConfig, run: Trainer, data: Data, state: RunState) -> None:
    """Measure the result, write it as a plain checkpoint, and show before and after."""
    synchronise(run, state.updates, Clock(report=run.report))
    measure(config.test, run, data, "trained")
    final = run.folder.path / "final"
    if not final.exists():
        with AtomicFolder(final) as folder, quiet():
            run.policy.save_pretrained(folder)
            data.renderer.tokenizer.save_pretrained(folder)
    show_result(run.folder, state)


def measure(config: EvalConfig, run: Trainer, data: Data, label: str) -> None:
    """Evaluate on the test split under a label, once a run."""
    if run.folder.read_eval(label) is None:
        run.report.phase(f"evaluate {label}")
        result = _sampled(run.engine, data, config, data.selected(config), label)
        run.folder.write_eval(label, result.to_json())


def _validate(config: RunConfig, engine: Any, data: Data, folder: RunFolder, label: str) -> None:
    rows = data.selected(config.validation)
    result = _sampled(engine, data, config.validation, rows, label)
    folder.write_eval(label, result.to_json())


def _sampled(
    engine: Any,
    data: Data,
    config: EvalConfig,
    problems: list[Problem],
    label: str,
    render: Callable[[Problem], tuple[int, ...]] | None = None,
) -> EvalResult:
    engine.reset_prefix_cache()
    return evaluate(
        engine,
        problems,
        render=render or data.renderer.ids,
        sampling=config.sampling,
        num_samples=config.num_samples,
        seed=config.seed,
        score=data.score,
        k=config.k,
        prefill=data.renderer.config.prefill,
        label=label,
        split=config.split,
    )


def _by_task(data: Data) -> dict[str, list[Problem]]:
    tasks: dict[str, list[Problem]] = {}
    for problem in data.problems["train"]:
        tasks.setdefault(problem.source.partition("/")[0], []).append(problem)
    return tasks


def _weights(config: RunConfig) -> dict[str, float]:
    if not isinstance(config.task, Mixture):
        return {}
    names = [task.name for task in config.task.tasks]
    return dict(zip(names, config.task.weights, strict=True))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Notes of libraries (C++ ones too) go to a file, shown only if something fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except BaseException:
            notes.seek(0)
            os.write(kept, notes.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
