"""Where engines are: one in each trainer's process, or workers on Ray. Plain settings."""

from dataclasses import dataclass
from typing import Literal

HOST = "host"


@dataclass(frozen=True, kw_only=True)
class Inline:
    """One engine in each trainer's process."""


@dataclass(frozen=True, kw_only=True)
class Ray:
    """Engines in Ray actors, on this machine or on a cluster."""

    num_workers: int = 1
    """Engines, each in a process of its own, or in engine.tensor_parallel of them."""
    address: str = ""
    """Of a running Ray cluster, HOST:PORT or auto; without one, Ray starts on this machine."""
    cores: int = 0
    """CPU cores of each process of a worker; 0 shares this machine's equally, and takes one beside a
    GPU."""
    gpus: float = 1.0
    """Of a GPU, where there are any, for each process of a worker: 0.5 lets two workers share one."""
    transfer: Literal["auto", "host", "nccl", "gloo"] = "auto"
    """How weights reach workers: through the hosts' memory, or from device to device, by nccl between
    GPUs or gloo between CPUs; auto is nccl for several workers of whole GPUs, else host."""
    silence_s: float = 60.0
    """A worker that says nothing for so long while it samples is killed and started again."""
    publish_s: float = 300.0
    """A worker that has not taken new weights after so long is killed and started again."""
    start_s: float = 600.0
    """A worker that is not ready after so long is killed and started again."""
    max_failures: int = 3
    """A worker that dies so often in a row without finishing anything is given up."""

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ValueError(f"rollouts.num_workers is {self.num_workers}; at least 1 is needed")
        if self.cores < 0 or self.gpus < 0:
            raise ValueError(
                f"rollouts.cores is {self.cores} and gpus {self.gpus}; neither can be below 0"
            )
        if self.gpus > 1:
            raise ValueError(
                f"rollouts.gpus is {self.gpus:g}, but it is of a GPU for each process: set "
                "engine.tensor_parallel for an engine over several"
            )
        if min(self.silence_s, self.publish_s, self.start_s) <= 0 or self.max_failures < 1:
            raise ValueError(
                "rollouts.silence_s, publish_s, start_s and max_failures must be above 0"
            )


Placement = Inline | Ray


def transfer_of(placement: Ray, *, cuda: bool, whole: bool) -> str:
    """How weights go: host, nccl or gloo.

    Args:
        cuda: Whether trainer and workers compute on GPUs.
        whole: Whether whole weights are published; adapters are small and go through the hosts.

    Raises ValueError for a way that these devices do not have.
    """
    chosen, shared = placement.transfer, placement.gpus != int(placement.gpus)
    if chosen == "nccl" and (not cuda or shared):
        why = f"{placement.gpus:g} GPUs each" if cuda else "CPUs"
        raise ValueError(
            f"rollouts.transfer is nccl, between whole GPUs, and workers have {why}: choose host"
        )
    if chosen == "gloo" and cuda:
        raise ValueError(
            "rollouts.transfer is gloo, between CPUs, and workers have GPUs: choose nccl or host"
        )
    if not whole or chosen == HOST:
        return HOST
    if chosen != "auto":
        return chosen
    # A single worker that dies comes back by what the host holds.
    return "nccl" if cuda and not shared and placement.num_workers > 1 else HOST
