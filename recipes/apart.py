"""Engines on Ray beside a trainer: what they take, and how many GPUs the run wants. Plain arithmetic.

With rollouts:ray the trainer's process has no engine. On CPUs of one machine the workers' memory
counts beside its own; on GPUs a worker has its own, and the trainer's holds the trainer alone.
Workers of a cluster that is joined by its address are other machines' and not counted here.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from recipes.config import RunConfig
from rl import memory
from rl.engine_memory import Parts, engine_parts, least_engine_bytes, weight_bytes
from rl.pace import Round, Speed, seconds
from rl.workload import Demand
from rollouts.placement import Inline, Ray
from rollouts.process import uses_gpu
from rollouts.sampler import EngineConfig

RAY_PROCESSES = 400 * memory.MB
"""Of Ray's own processes on a machine, a worker's parent too: measured 380 with two workers."""
IN_TRAINER = (
    *("engine", "engine asleep", "engine weights", "engine adapters", "engine KV pool"),
    *("sampling", "proof"),
)
"""Parts of a phase that go to the workers."""


@dataclass(frozen=True, kw_only=True)
class Apart(Demand):
    """What a run with workers asks of its trainer; `requests` are those of one worker.

    Attributes:
        num_workers: Engines, each in `engine.tensor_parallel` processes.
        gpus: Of each worker, on GPUs.
        here: Whether they are on the trainer's machine.
        trainers: Processes that train, and share the workers.
    """

    num_workers: int
    gpus: float
    here: bool
    trainers: int

    @property
    def processes(self) -> int:
        """Of all workers."""
        return self.num_workers * self.engine.tensor_parallel

    @property
    def gpus_wanted(self) -> int:
        """Of trainers and workers together."""
        return self.trainers + math.ceil(self.num_workers * self.gpus)


def apart(demand: Demand, placement: Ray, *, trainers: int) -> Apart:
    """A demand whose requests are one worker's, with the workers of a placement."""
    return Apart(
        **{field.name: getattr(demand, field.name) for field in fields(demand)},
        num_workers=placement.num_workers,
        gpus=_gpus_each(placement, demand.engine),
        here=not placement.address,
        trainers=trainers,
    )


def phases_of(demand: Demand) -> dict[str, Parts]:
    """As `rl.memory.phases`, wherever the engines are: the trainer, and workers beside it on CPUs."""
    found = memory.phases(demand)
    if not isinstance(demand, Apart):
        return found
    beside = _beside(demand, found)
    told = {}
    for phase, parts in found.items():
        own = {name: size for name, size in parts.items() if name not in IN_TRAINER}
        held = sum(own.values()) - own["allocator"] - own["libraries"]
        own["allocator"] = int(memory.SLACK * held)
        told[phase] = {**own, **beside}
        if beside and phase == "publish":  # the last ones are kept for a worker that comes back
            told[phase]["weights in Ray"] += _published(demand) // demand.trainers
    return told


def worker_parts(demand: Demand, found: Mapping[str, Parts]) -> Parts:
    """What a process of a worker holds on a CPU; freed memory stays with it.

    Args:
        found: What `rl.memory.phases` says of an engine in the trainer's process.
    """
    working = max(found["sample"]["sampling"], found["publish"]["proof"])
    parts = {**engine_parts(demand), "at work": working}
    held = memory.LIBRARIES + bool(demand.adapted) * memory.ADAPTER_LIBRARIES
    return {**parts, "libraries": held, "allocator": int(memory.SLACK * sum(parts.values()))}


def _beside(demand: Apart, found: Mapping[str, Parts]) -> Parts:
    """All workers and Ray, one line a kind, of each of the trainers that share them on a machine."""
    if demand.gpu_bytes is not None:
        return {}
    total = {"Ray": RAY_PROCESSES, "weights in Ray": _published(demand)}
    if demand.adapted:
        total["weights in Ray"] += (
            demand.itemsize * demand.arch.parameters
        )  # the base, for its proof
    if demand.here:
        for name, size in worker_parts(demand, found).items():
            total[f"workers: {name.removeprefix('engine ')}"] = demand.processes * size
    return {name: size // demand.trainers for name, size in total.items()}


def _published(demand: Demand) -> int:
    """Bytes of a publish: the weights once a machine, whatever the number of workers."""
    return demand.itemsize * (demand.adapter_parameters or demand.arch.parameters)


def host_parts(demand: Demand) -> Parts:
    """What a run on GPUs holds in its machine's memory: of each process, and of Ray."""
    if demand.gpu_bytes is None:
        return {}
    whole = memory.host_bytes(demand)
    if not isinstance(demand, Apart):
        return {"process": whole}
    weights = demand.arch.parameters
    asleep = weight_bytes(demand)
    read = memory.LIBRARIES + 4 * weights
    published = _published(demand)
    return {
        # What is published comes there as an engine that sleeps would.
        "trainer": max(read, whole - asleep + published),
        "worker": demand.engine.tensor_parallel * (memory.LIBRARIES + asleep),
        "Ray": RAY_PROCESSES + 2 * published,
    }


def host_line(demand: Demand, count: int) -> str:
    """The same in one line; empty on a CPU."""
    told = [f"{name} about {size / 2**30:.1f} GiB" for name, size in host_parts(demand).items()]
    if len(told) > 1:
        return f"memory of the host: {', '.join(told)}"
    each = " of each process" * (count > 1)
    return "".join(f"memory of the host{each}: {line.removeprefix('process ')}" for line in told)


def placed(demand: Demand) -> str:
    """Who computes where, in one line; empty where engines are in the trainers' processes."""
    if not isinstance(demand, Apart):
        return ""
    told = f"{demand.trainers} trainer{'s' * (demand.trainers > 1)} without an engine"
    workers = f"{demand.num_workers} worker{'s' * (demand.num_workers > 1)}"
    if demand.gpu_bytes is None:
        where = "on this machine" if demand.here else "of the cluster, whose memory is not counted"
        return f"placement: {told}, {workers} {where}"
    held = demand.engine.gpu_memory_frac * demand.gpu_bytes
    least = least_engine_bytes(demand)
    return (
        f"placement: {told}, {workers} with {demand.gpus:g} GPUs each: {demand.gpus_wanted} GPUs; an "
        f"engine has {held / 2**30:.1f} GiB of its own on each and needs at least {least / 2**30:.1f}"
    )


def trainers_of(config: RunConfig, count: int, *, is_gpu: bool) -> int:
    """Processes that train on so many GPUs, a GPU each: those that no worker has, 1 at least."""
    if isinstance(config.rollouts, Inline) or not is_gpu:
        return count
    each = _gpus_each(config.rollouts, config.engine)
    return max(1, count - math.ceil(config.rollouts.num_workers * each))


def _gpus_each(placement: Ray, engine: EngineConfig) -> float:
    """Of each worker."""
    return placement.gpus * engine.tensor_parallel


def seconds_of(demand: Demand, work: Round, speed: Speed) -> dict[str, float]:
    """As `rl.pace.seconds`, with the round's groups shared by the workers that there are."""
    found = seconds(demand, work, speed)
    if not isinstance(demand, Apart):
        return found
    count = demand.processes
    share = replace(work, groups=-(-work.groups * demand.trainers // count))
    own = speed
    if demand.gpu_bytes is None and demand.here:  # one machine's cores
        own = Speed(flops=speed.flops / count, bandwidth=speed.bandwidth / count)
    return {**found, "sample": seconds(demand, share, own)["sample"]}


def gpus_fault(config: RunConfig, environ: Mapping[str, str] = os.environ) -> str | None:
    """What is wrong where trainers and workers want more GPUs than this machine has; None if nothing.

    Only without an address: how many a cluster has, Ray says.
    """
    if isinstance(config.rollouts, Inline) or config.rollouts.address or not uses_gpu(environ):
        return None
    trainers = int(environ.get("LOCAL_WORLD_SIZE") or 1)
    each = _gpus_each(config.rollouts, config.engine)
    return _too_few(trainers, config.rollouts.num_workers, each, num_gpus(environ))


def too_few(demand: Demand, have: int) -> str | None:
    """The same of a demand; on CPUs nothing."""
    if not isinstance(demand, Apart) or demand.gpu_bytes is None:
        return None
    return _too_few(demand.trainers, demand.num_workers, demand.gpus, have)


def _too_few(trainers: int, num_workers: int, each: float, have: int) -> str | None:
    wanted = trainers + math.ceil(num_workers * each)
    if wanted <= have:
        return None
    fit = int(max(0, have - trainers) // each)
    lower = "lower engine.tensor_parallel, or " if each > 1 else ""
    return (
        f"rollouts.num_workers is {num_workers} with {each:g} GPUs each: with one for each of "
        f"{trainers} trainers that is {wanted}, and there are {have}: "
        + (f"lower rollouts.num_workers to {fit}" if fit else f"{lower}leave rollouts:ray out")
    )


def num_gpus(environ: Mapping[str, str]) -> int:
    """GPUs that this process may use; torch is not asked, for it is not loaded yet."""
    named = environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return len([name for name in named.split(",") if name.strip()])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
