"""Weights from the trainer's device to the workers' by vLLM's weight transfer: the trainer's end.

One broadcast to all workers, NCCL's between GPUs and gloo's between CPUs, past the hosts' memory.
The workers' end is rollouts/receiver.py; when it is used, and what follows if it fails, says
rollouts/publishing.py. Nothing waits here for longer than the patience that it is given.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import ray
import torch
from torch import Tensor

from rollouts.engine import VLLM_NCCL
from rollouts.exchange import TransferError
from rollouts.gloo import GlooSender
from rollouts.remote import Remote

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
SENDERS = {"nccl": VLLM_NCCL.NCCLTrainerWeightTransferEngine, "gloo": GlooSender}
MEETING_S = 60.0
"""Trainer and workers that have not met by then do not reach each other, or one of them died."""
BUFFER_BYTES = 2**28
"""On every GPU, twice: tensors go in packs of so many bytes, and one may be on its way."""


class Transfer:
    """A trainer and the workers that it has met."""

    def __init__(self, kind: str, patience_s: float):
        """By `kind`, nccl or gloo; a transfer that takes longer than so many seconds has failed."""
        self.kind, self.patience_s = kind, patience_s
        self._sender: Any = None
        self._met: list[tuple[int, Any]] = []

    def send(
        self, remotes: Sequence[Remote], weights: Mapping[str, Tensor], version: int, part: int
    ) -> list[str]:
        """Broadcast weights, in their order; gives the names by which workers prove that part.

        All of them are read, in order and once, whatever happens: other processes may have to
        give their shards. Raises TransferError.
        """
        source = Source(weights)
        try:
            client = Client(remotes, self.patience_s, version, part, self._abort)
            self._meet(remotes, client, source)
            self._sender.client, self._sender.source = client, source
            self._sender.send_weights()
            return client.wanted
        except Exception as error:  # whatever it is, there is another way
            self._abort()
            told = str(error).strip().splitlines() or [""]  # of a worker's the last line says what
            said = f"{type(error).__name__}: {told[-1][:200]}"
            raise TransferError("".join(c if c.isprintable() else "?" for c in said)) from error
        finally:
            source.read_the_rest()

    def _meet(self, remotes: Sequence[Remote], client: "Client", source: "Source") -> None:
        """Make the group anew if others are in it than the last time, or their processes are new."""
        there = [(remote.number, remote.place) for remote in remotes]
        if there == self._met:
            return
        self._leave()
        info = VLLM_NCCL.NCCLTrainerInitInfo(
            rank=0,
            master_address=ray.util.get_node_ip_address(),
            master_port=free_port(),
            world_size=1 + sum(remote.size for remote in remotes),
            packed_buffer_size_bytes=BUFFER_BYTES,
        )
        sender = SENDERS[self.kind]
        self._sender = within(
            min(MEETING_S, self.patience_s),
            lambda: sender.trainer_init(info, client=client, source=source),
        )
        self._met = there

    def _leave(self) -> None:
        if self._sender is not None:
            self._sender.shutdown()
        self._sender, self._met = None, []

    def _abort(self) -> None:
        """End what this process waits for, which another may never do."""
        sender, self._sender, self._met = self._sender, None, []
        group = sender and sender.model_update_group
        if group is None:
            return
        try:
            if self.kind == "nccl":
                group.nccl.ncclCommAbort(group.comm)
            else:
                group.abort()
        except Exception as error:  # noqa: BLE001  it was broken before
            logger.warning("the group of a broken transfer does not end: %s", error)


class Source(VLLM_NCCL.WeightSource):
    """Published weights as vLLM's senders read them."""

    def __init__(self, weights: Mapping[str, Tensor]):
        """`weights` may say the shapes of what it makes on access, as `rl.publish` does."""
        self._weights = weights
        self._left = iter(weights)

    def metadata(self) -> list[Any]:
        """Name, dtype and shape of each; computes nothing, gathers nothing."""
        shapes = getattr(self._weights, "shapes", self._weights)
        told = ((name, shapes[name]) for name in self._weights)
        return [VLLM_NCCL.ParamMeta(name, each.dtype, tuple(each.shape)) for name, each in told]

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name in self._left:
            yield name, self._weights[name].detach()

    def read_the_rest(self) -> None:
        """What a transfer that failed has not asked for."""
        for _ in self:
            pass


class Client:
    """How vLLM's senders tell workers what to do: by calls of the Ray actors, all at once.

    A worker starts, takes and ends an update in one call, for it samples between two.

    Attributes:
        wanted: After an update the names of the tensors by which the workers prove it.
    """

    def __init__(
        self,
        remotes: Sequence[Remote],
        patience_s: float,
        version: int,
        part: int,
        abort: Callable[[], None],
    ):
        """`abort` ends what the sender waits for, if a worker dies or is late."""
        self._remotes, self.patience_s, self._abort = remotes, patience_s, abort
        self._version, self._part = version, part
        self.wanted: list[str] = []

    def init_weight_transfer_engine(self, init_info: Mapping[str, Any]) -> None:
        """Have each process meet the trainer under a rank of its own; vLLM adds that in its engine."""
        rank, asked = init_info["rank_offset"], []
        for remote in self._remotes:
            asked += remote.tell("join", {**init_info, "rank_offset": rank})
            rank += remote.size
        self._wait(asked, min(MEETING_S, self.patience_s))

    def start_weight_update(self) -> None:
        """Nothing: `update_weights` does it."""

    def update_weights(self, update_info: Mapping[str, Any]) -> None:
        """Have each take what the sender sends at the same time."""
        announced = ray.put(update_info)
        told = (self._version, self._part)
        asked = [remote.tell("receive", announced, *told) for remote in self._remotes]
        self.wanted = self._wait([call for calls in asked for call in calls], self.patience_s)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Nothing: `update_weights` does it."""

    def _wait(self, calls: Sequence[Any], patience_s: float) -> Any:
        """One's answer when all have answered. Raises the first error, or TimeoutError."""
        answer, end = None, time.monotonic() + patience_s
        try:
            while calls:
                done, calls = ray.wait(calls, timeout=max(end - time.monotonic(), 0))
                if not done:
                    raise TimeoutError(f"{len(calls)} workers did not answer in {patience_s:g} s")
                answer = ray.get(done[0])
        except Exception:
            self._abort()
            for call in calls:
                call.future()  # else Ray would print what they come to
            raise
        return answer


def within(patience_s: float, act: Callable[[], Result]) -> Result:
    """What a call gives that may wait for ever, as NCCL's meeting does for a worker that has died.

    Raises TimeoutError after so many seconds and leaves the call to itself, in a thread.
    """
    came: Future[Result] = Future()
    device = torch.cuda.current_device() if torch.cuda.is_available() else None

    def run() -> None:
        if device is not None:  # which is a thread's own
            torch.cuda.set_device(device)
        try:
            came.set_result(act())
        except Exception as error:  # noqa: BLE001  it is raised where it is waited for
            came.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return came.result(patience_s)
    except TimeoutError as error:
        if came.done():  # it is the call's own
            raise
        raise TimeoutError(f"trainer and workers have not met in {patience_s:g} s") from error


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as some:
        some.bind(("", 0))
        return some.getsockname()[1]
