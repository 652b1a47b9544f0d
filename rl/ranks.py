"""Several processes, each with a trainer: who one is, and what all tell each other.

accelerate makes the process group (gloo on CPUs, NCCL on GPUs) from what torchrun sets. It must be
there before any engine: vLLM would make a world of its own, and the processes would never meet.
Every method is called by all processes in the same order; with one process none does anything.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
PATIENCE = timedelta(hours=6)
"""How long a process waits for the slowest one; if one dies, torchrun ends the others at once, and
if one falls silent, rl/watchdog.py."""


@dataclass(frozen=True)
class Ranks:
    """One of `count` processes; each `per_engine` of them, one after another, share an engine.

    Example: rank 1 of 2 takes the problems c, d of a, b, c, d: `ranks.share([a, b, c, d])`, and
    `ranks.gather([c, d])` gives both processes a, b, c, d. With `per_engine` 2 both take all four.
    """

    index: int = 0
    count: int = 1
    per_engine: int = 1

    @property
    def is_first(self) -> bool:
        """The one that writes and prints."""
        return self.index == 0

    @property
    def num_engines(self) -> int:
        """Of all processes."""
        return self.count // self.per_engine

    @property
    def speaks(self) -> bool:
        """Whether this is the process whose word counts, of those that share its engine."""
        return self.index % self.per_engine == 0

    @cached_property
    def device(self) -> torch.device:
        """Where this process computes."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))

    def share(self, rows: Sequence[Item]) -> tuple[int, Sequence[Item]]:
        """The rows of this process's engine, one run of them, and the place of their first."""
        engine = self.index // self.per_engine
        start, stop = (len(rows) * place // self.num_engines for place in (engine, engine + 1))
        return start, rows[start:stop]

    def gather(self, rows: Iterable[Item]) -> list[Item]:
        """All rows of all processes, in their order."""
        rows = list(rows)
        if self.count == 1:
            return rows
        from accelerate.utils import gather_object

        return list(gather_object(rows))

    def from_first(self, make: Callable[[], Item]) -> Item:
        """What `make` gives in the first process; it runs nowhere else."""
        if self.count == 1:
            return make()
        from accelerate.utils import broadcast_object_list

        held: list[Any] = [make() if self.is_first else None]
        return broadcast_object_list(held)[0]

    def any(self, flag: bool) -> bool:
        """True if it is true of any process."""
        return any(self.gather([flag]))

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Add up each tensor over the processes, in place."""
        if self.count > 1:
            works = [torch.distributed.all_reduce(t, async_op=True) for t in tensors]
            for work in works:
                work.wait()


@dataclass(frozen=True)
class Undivided(Ranks):
    """Processes of which the first takes every row: it alone has what they are sampled with."""

    def share(self, rows: Sequence[Item]) -> tuple[int, Sequence[Item]]:
        """All rows in the first process, none in the others."""
        return (0, rows) if self.is_first else (len(rows), rows[:0])


ALONE = Ranks()
"""One process."""


def find_ranks() -> Ranks:
    """This process among those that torchrun or accelerate started; call it before any engine.

    Raises ValueError if they are not all there.
    """
    told = int(os.environ.get("WORLD_SIZE") or 1)
    if told == 1:
        return ALONE
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    if state.num_processes != told:
        raise ValueError(
            f"WORLD_SIZE is {told}, but {state.num_processes} processes met: start all of them by "
            "torchrun --nproc-per-node N -m recipes.NAME"
        )
    return Ranks(index=state.process_index, count=state.num_processes)


def met() -> bool:
    """Whether several processes have found each other."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def leave() -> None:
    """Part from the other processes, at the end of all that they do together.

    Left to Python's end, gloo's threads may meet it half gone, and abort a process that was done.
    """
    if met() and torch.distributed.get_world_size() > 1:
        torch.distributed.destroy_process_group()
