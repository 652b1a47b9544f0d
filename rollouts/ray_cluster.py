"""Ray: started on this machine or joined, quietly, and what it has room for."""

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rollouts.placement import Ray
from rollouts.process import mimalloc, physical_cores, required_environment, uses_gpu

CONNECT_S = 10.0
HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What a client begins with: the preface, and empty settings (RFC 9113, sections 3.4 and 6.5)."""
HTTP2_HEAD, HTTP2_SETTINGS = 9, b"\x04"
"""Bytes of a frame's head, and its type, the fourth of them."""
LAST_PORT = 65_535
PLACE_S = 30.0
"""An actor that Ray has not placed by then has no room."""
LAUNCHER = (
    "RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_", "TORCHELASTIC_", "ACCELERATE_",
)  # fmt: skip
"""How the variables begin by which torchrun and accelerate tell a process who it is."""
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


def start_ray(placement: Ray, processes: int = 1) -> None:
    """Join the cluster at the address, or start one of this machine that ends with this process.

    It is to have room for workers of so many `processes` each. Does nothing if this process has
    joined one already.

    Raises:
        ValueError: No Ray answers there, it is of another version, or it is too small for the workers.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in _QUIET.items()})
    import ray
    from ray._private import worker as ray_worker
    from ray.exceptions import AuthenticationError

    if not ray.is_initialized():
        ray_worker._worker_logs_enabled = False  # what it would print to stdout is logged here
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
        _check_answers(placement.address)
        shared = {"include_dashboard": False} if not placement.address else {}
        shared |= {"num_cpus": len(physical_cores())} if not placement.address else {}
        try:
            with _own_signals(), _without_launcher():
                ray.init(
                    address=placement.address or "local",
                    log_to_driver=False,
                    logging_level="ERROR",
                    configure_logging=False,
                    **shared,
                )
        except (ConnectionError, RuntimeError, AuthenticationError) as error:
            said = " ".join(str(error).split())
            raise ValueError(f"rollouts.address {placement.address!r}: {said[:300]}") from error
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    check_room(placement, machines, processes)


def check_room(placement: Ray, machines: Sequence[Mapping[str, float]], processes: int = 1) -> None:
    """Raise ValueError if the cluster does not hold all workers, each on one machine; says what fits."""
    wanted = resources(placement, processes)
    for kind, name, field in (("num_gpus", "GPU", "gpus"), ("num_cpus", "CPU", "cores")):
        if not (each := wanted.get(kind, 0)):
            continue
        have = [machine.get(name, 0.0) for machine in machines]
        fit = sum(int(number // each) for number in have)
        if placement.num_workers > fit:
            one = f", on one machine {max(have):g} at most" if len(have) > 1 else ""
            ways = {
                "rollouts.num_workers": fit > 0,
                f"rollouts.{field}": placement.cores > 1 if name == "CPU" else processes == 1,
                "engine.tensor_parallel": processes > 1,
            }
            lower = " or ".join(way for way, helps in ways.items() if helps)
            raise ValueError(
                f"rollouts.num_workers is {placement.num_workers} with {each:g} {name}s each, and Ray "
                f"has {sum(have):g} in all{one}: {f'at most {fit} fit' if fit else 'none fits'}. "
                + (f"Lower {lower}" if lower else f"Start Ray with more {name}s")
            )


def resources(placement: Ray, processes: int = 1) -> dict[str, float]:
    """What Ray is asked for each worker, which has so many processes.

    Raises ValueError where the cores of a cluster's machines would have to be guessed.
    """
    cores = processes * cores_of(placement, processes)
    if uses_gpu(os.environ):
        return {"num_gpus": processes * placement.gpus, "num_cpus": cores}
    return {"num_cpus": cores}


def cores_of(placement: Ray, processes: int = 1) -> int:
    """Cores of each process of a worker. Raises ValueError as `resources` does."""
    if placement.cores or uses_gpu(os.environ):
        return placement.cores or 1
    if placement.address:
        raise ValueError("rollouts.cores is 0: on a cluster of CPUs say how many each worker has")
    return max(1, len(physical_cores()) // (placement.num_workers * processes))


def worker_environment(placement: Ray, processes: int = 1) -> dict[str, str]:
    """What must be set before a worker's process starts."""
    cuda = uses_gpu(os.environ)
    ours = ("OMP_", "VLLM_CPU_OMP", *LAUNCHER)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    cpus = list(range(cores_of(placement, processes)))
    settings = required_environment(kept, cuda=cuda, cpus=cpus, allocator=mimalloc())
    settings.pop("VLLM_CPU_OMP_THREADS_BIND", None)  # told when it is known where it runs
    return {**settings, **_QUIET}


def _check_answers(address: str) -> None:
    """Raise ValueError in seconds if nobody listens, or no Ray head; Ray itself would try for minutes.

    A head speaks gRPC: as every HTTP/2 server it begins with its settings, before any token is asked.
    """
    if not address or address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "//" in address or not port.isdecimal() or int(port) > LAST_PORT or not host:
        raise ValueError(f"rollouts.address is {address!r}; HOST:PORT of Ray's head, or auto")
    try:
        with socket.create_connection((host, int(port)), CONNECT_S) as there:
            if os.environ.get("RAY_USE_TLS", "0") == "0":  # else only Ray can talk to it
                there.sendall(HTTP2_HELLO)
                heard = there.recv(HTTP2_HEAD)
                if heard[3:4] != HTTP2_SETTINGS:
                    raise OSError(f"what listens there is no Ray, it says {heard!r}")
    except OSError as error:
        raise ValueError(
            f"no Ray answers at rollouts.address {address} ({error}): start one there by ray start "
            "--head, or leave the address out"
        ) from error
    _check_head(address)


def _check_head(address: str) -> None:
    """Raise ValueError if it is another port than the head's, or its token is not ours."""
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray._raylet import GcsClient
    from ray.exceptions import AuthenticationError, RayError

    try:
        ensure_token_if_auth_enabled(create_token_if_missing=False)
        GcsClient(address=address)
    except AuthenticationError as error:
        raise ValueError(
            f"the Ray at rollouts.address {address} does not take this process's token: set "
            "RAY_AUTH_MODE=token here, and have the head's token in ~/.ray/auth_token or in the file "
            "that RAY_AUTH_TOKEN_PATH names (docs/scale.md)"
        ) from error
    except RayError as error:
        raise ValueError(
            f"no Ray head is at rollouts.address {address}: give the port that ray start --head "
            "printed, 6379 unless it was told another"
        ) from error


@contextlib.contextmanager
def _without_launcher() -> Iterator[None]:
    """What a launcher told this trainer, and the GPUs of the trainers, are not for the workers."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(LAUNCHER)]:
        del os.environ[name]
    if uses_gpu(before):
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus_left(before, _gpus_there()))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def gpus_left(environ: Mapping[str, str], there: int) -> list[str]:
    """The GPUs of this machine that its trainers, who take the first ones, leave to workers.

    Example: two trainers on a machine of four leave "2" and "3".
    """
    visible = environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(there)))
    return visible.split(",")[int(environ.get("LOCAL_WORLD_SIZE") or 1) :]


def _gpus_there() -> int:
    return len([file for file in Path("/dev").glob("nvidia*") if file.name[6:].isdecimal()])


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's handlers: Ray puts one of its own in the place of SIGTERM's."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not in the main thread: Ray left them alone
            for number, handler in before.items():
                signal.signal(number, handler)
