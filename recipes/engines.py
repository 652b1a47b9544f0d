"""Which engines a run has: one in each process, one for several, or workers on Ray."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recipes.config import RunConfig
from recipes.demand import most_requests
from rl.ranks import Ranks
from rl.shared_workers import SharedWorkers
from rollouts.placement import Inline, Ray, transfer_of
from rollouts.process import uses_gpu


def check_rollouts(config: RunConfig) -> None:
    """Start or join Ray where it is asked for, before anything is written.

    Raises ValueError for workers that there is no room for or no Ray, for a way of their weights that
    there is not, for a loop that is to run ahead of an engine in its own process, and for an engine
    that these processes cannot share.
    """
    _check_sharing(config)
    staleness = config.train.max_staleness
    if staleness < 0:
        raise ValueError(f"train.max_staleness is {staleness}; at least 0 is needed")
    if staleness and isinstance(config.rollouts, Inline):
        raise ValueError(
            f"train.max_staleness is {staleness}, but the engine is in the trainer's process: name "
            "rollouts:ray, or leave max_staleness at 0"
        )
    if isinstance(config.rollouts, Ray):
        if find_spec("ray") is None:
            raise ValueError("rollouts:ray needs the package ray: pip install -e '.[ray]'")
        whole = not config.policy.lora.rank
        transfer_of(config.rollouts, cuda=uses_gpu(os.environ), whole=whole)
        from rollouts.ray_cluster import start_ray

        if int(os.environ.get("RANK") or 0) == 0:
            start_ray(config.rollouts, config.engine.tensor_parallel)


def _check_sharing(config: RunConfig) -> None:
    size = config.engine.tensor_parallel
    told = f"engine.tensor_parallel is {size}"
    if size == 1:
        return
    if config.policy.lora.rank:
        raise ValueError(
            f"{told} and policy.lora.rank {config.policy.lora.rank}: adapters cannot be published "
            "to an engine that several processes share; leave one of them out"
        )
    if isinstance(config.rollouts, Ray):
        if config.rollouts.gpus < 1 and uses_gpu(os.environ):
            raise ValueError(
                f"{told} and rollouts.gpus {config.rollouts.gpus:g}: each process of such an engine "
                "needs a whole GPU, leave rollouts.gpus at 1"
            )
    elif fault := processes_fault(size):
        raise ValueError(fault)


def processes_fault(size: int) -> str | None:
    """Why so many processes cannot share an engine where this one was started, in words, or None."""
    told = f"engine.tensor_parallel is {size}"
    here = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE") or 1)
    if here == 1 < size:
        return (
            f"{told}, but one process runs: start torchrun --nproc-per-node {size} -m recipes.NAME, "
            "or name rollouts:ray"
        )
    if here % size:
        return f"{told}, but {here} processes run on this machine: use a number that divides theirs"
    return None


def per_engine(config: RunConfig) -> int:
    """Trainers that share an engine, which workers have among themselves."""
    return config.engine.tensor_parallel if isinstance(config.rollouts, Inline) else 1


def open_engine(
    config: RunConfig, model: Path, max_tokens: int, adapter: Any, ranks: Ranks, folder: Path
) -> Any:
    """The run's sampler, loaded, behind one interface: `Engine`, `Workers`, or workers of all trainers."""
    shape: dict[str, Any] = {"max_tokens": max_tokens, "adapter": adapter}
    if isinstance(config.rollouts, Inline):
        from rollouts.engine import Engine

        share = -(-most_requests(config) // ranks.num_engines)
        return Engine(model, config.engine, num_requests=share, **shape)
    from rollouts.workers import open_workers

    workers = None
    if ranks.is_first:
        workers = open_workers(
            model,
            config.engine,
            config.rollouts,
            num_requests=most_requests(config),
            logs=folder / "workers",
            **shape,
        )
    return workers if ranks.count == 1 else SharedWorkers(workers, model, ranks)


def split_of(engine: Any, ranks: Ranks) -> tuple[Any, Ranks]:
    """What a process samples with, and how rows are shared out: of shared workers' the first has all."""
    return (engine.sampler, engine.ranks) if isinstance(engine, SharedWorkers) else (engine, ranks)
