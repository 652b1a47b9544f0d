"""Engines in Ray actors, behind the interface of one engine: who samples what.

Requests go where there is room, those expected to be longest first, and completions come back as
they finish; several callers may wait at once, the first of them goes first. What a dead or silent
worker had is dealt out again with the same ids and seeds (rollouts/crew.py). Ray places, restarts
and carries; no process is started or watched here.
"""

import heapq
import itertools
import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import ray
from transformers import AutoTokenizer

from rollouts.adapters import AdapterShape
from rollouts.crew import DEATHS, Crew
from rollouts.exchange import EngineError, check_fits
from rollouts.parcel import packed
from rollouts.placement import Ray, transfer_of
from rollouts.process import uses_gpu
from rollouts.proof import Proof
from rollouts.publishing import Publisher, Weights, open_transfer
from rollouts.ray_cluster import start_ray
from rollouts.remote import Remote
from rollouts.rollout import Completion, Request
from rollouts.sampler import EngineConfig
from rollouts.worker import Spec, model_digest

TICK_S = 0.25
"""A worker answers at least this often while it samples, so that weights and new requests reach it."""
MOST_TICKS = 400
"""Such answers a second of all workers together: of more than 100 each answers less often."""
ROOM = 1.25
"""Requests that a worker is given, times those that it samples at once: a free slot never waits."""


def open_workers(
    model: Path,
    config: EngineConfig,
    placement: Ray,
    *,
    max_tokens: int,
    num_requests: int,
    logs: Path,
    adapter: AdapterShape | None = None,
) -> "Workers":
    """Start Ray or join it, and load an engine in each worker.

    Args:
        max_tokens, num_requests, adapter: As of `Engine`; the requests are all workers'.
        logs: A folder for what the workers print.

    Raises:
        ValueError: More workers than the cluster has room for, no Ray at the address, or a
            worker whose model or packages differ.
    """
    transfer = transfer_of(placement, cuda=uses_gpu(os.environ), whole=adapter is None)
    start_ray(placement, config.tensor_parallel)
    logs.mkdir(parents=True, exist_ok=True)
    share = -(-num_requests // placement.num_workers)
    spec = Spec(
        model=model.resolve(),
        digest=model_digest(model),
        config=config,
        max_tokens=max_tokens,
        num_requests=share,
        adapter=adapter,
        transfer=transfer,
        logs=logs.resolve(),
    )
    return Workers(
        Crew(spec, placement),
        AutoTokenizer.from_pretrained(model),
        config,
        max_tokens=max_tokens,
        room=math.ceil(ROOM * min(config.max_concurrent, share)),
        transfer=open_transfer(transfer, placement),
    )


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A request, who waits for it, and its place in the queue: older calls first, then the longest."""

    request: Request
    call: "SimpleQueue[Completion | Exception]"
    place: tuple[int, int, int]


class Workers:
    """Several engines that sample as one, for as many callers at a time as there are.

    While anybody waits, a thread deals out requests and hands back completions.
    """

    def __init__(
        self,
        crew: Crew,
        tokenizer: Any,
        config: EngineConfig,
        *,
        max_tokens: int,
        room: int,
        transfer: Any = None,
    ):
        """Sample with a crew whose workers are given at most `room` requests at a time."""
        self.crew, self.tokenizer = crew, tokenizer
        self.publisher = Publisher(crew, transfer)
        self.config, self.max_tokens = config, max_tokens
        self._room = room
        self._tick_s = max(TICK_S, len(crew.members) / MOST_TICKS)
        self._lengths: dict[int, int] = {}
        self._wanted: dict[str, Wanted] = {}
        self._queue: list[tuple[tuple[int, int, int], str]] = []
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    @property
    def version(self) -> int:
        """Of the weights that were published last."""
        return self.crew.version

    @property
    def dtype(self) -> str:
        """What the engines compute in."""
        return self.crew.facts.dtype

    @property
    def vocab_size(self) -> int:
        """Ids they can draw."""
        return self.crew.facts.vocab_size

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """The ids that end a completion."""
        return self.crew.facts.eos_token_ids

    @property
    def kv_pool_bytes(self) -> int:
        """Of one engine."""
        return self.crew.facts.kv_pool_bytes

    def render(self, messages: list[dict[str, str]], **kwargs: Any) -> list[int]:
        """Ids of a conversation; the engines' tokenizer is this one, file by file."""
        return self.tokenizer.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=True, return_dict=False, **kwargs
        )

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Yield one completion a request as they finish; whatever is left is forgotten on exit.

        Raises:
            ValueError: A request that does not fit into the engines' `max_tokens`.
            EngineError: No worker is left, with what each died of.
        """
        for request in requests:
            check_fits(request, self.max_tokens)
        call: SimpleQueue[Completion | Exception] = SimpleQueue()
        ids = [request.id for request in requests]
        self._want(requests, call)
        try:
            for _ in ids:
                found = call.get()
                if isinstance(found, Exception):
                    raise found
                yield found
        finally:
            self._forget(ids)

    def publish(self, weights: Weights, version: int) -> Proof:
        """Give every engine these weights, each of which proves them; what is unfinished goes on."""
        return self.publisher.publish(weights, version)

    def prove_base(self, weights: Mapping[str, Any]) -> Proof:
        """Compare the base under adapters with the trainer's, in every engine."""
        return self.crew.prove_base(ray.put(packed(weights)))

    def reset_prefix_cache(self) -> None:
        """Forget every computed prompt."""
        self.crew.tell("reset_prefix_cache")

    def sleep(self) -> None:
        """Nothing: the workers share no device with the trainer."""

    def wake(self, *parts: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """End the workers."""
        self.crew.close()

    def _want(self, requests: Sequence[Request], call: "SimpleQueue[Any]") -> None:
        """Queue requests, and have somebody deal them out."""
        with self._lock:
            number = next(self._numbers)
            for index, request in enumerate(requests):
                if request.id in self._wanted:
                    raise AssertionError(f"request ids must be unique: {request.id}")
                place = (number, -self._expected(request), index)
                self._wanted[request.id] = Wanted(request=request, call=call, place=place)
                heapq.heappush(self._queue, (place, request.id))
            if self._thread is None and requests:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
        self.crew.wake()

    def _work(self) -> None:
        """Deal out and hand back until nobody waits; an error goes to all who do."""
        heard: list[Remote] = []
        self.crew.rest()
        try:
            while True:
                with self._lock:
                    if not self._wanted:
                        self._thread = None
                        return
                    self._give(heard)
                heard = self.crew.hear(self._tick_s)
                for remote in heard:
                    for completion in self._answer(remote):
                        self._hand_back(completion)
        except Exception as error:  # noqa: BLE001  it is raised again where it is waited for
            with self._lock:
                self._thread = None
                calls = {id(each.call): each.call for each in self._wanted.values()}
                self._wanted.clear()
            for call in calls.values():
                call.put(error)

    def _give(self, heard: Sequence[Remote]) -> None:
        """Deal out what waits, each to who has least, and let those who have something work on."""
        with self.crew.lock:
            self._again(self.crew.orphans)
            self.crew.orphans = []
            free = [remote for remote in heard if self.crew.is_ready(remote)]
            if self._queue:
                free += self.crew.idle
                self.crew.idle = []
            for remote, given in zip(free, self._dealt(free), strict=True):
                if given or remote.held:
                    remote.ask(given, self._tick_s)
                else:
                    self.crew.idle.append(remote)

    def _dealt(self, free: Sequence[Remote]) -> list[list[Request]]:
        """The queue's first, one by one to the worker that has fewest, until it has no more room."""
        given: list[list[Request]] = [[] for _ in free]
        held = [(len(remote.held), place) for place, remote in enumerate(free)]
        heapq.heapify(held)
        while self._queue and held and held[0][0] < self._room:
            count, place = held[0]
            queued, key = heapq.heappop(self._queue)
            wanted = self._wanted.get(key)
            if wanted and wanted.place == queued:  # else somebody left, and may have come again
                given[place].append(wanted.request)
                heapq.heapreplace(held, (count + 1, place))
        return given

    def _answer(self, remote: Remote) -> Sequence[Completion]:
        """What a worker finished; if it died, what it had is dealt out again."""
        try:
            with self.crew.lock:  # who publishes may bury it, and who leaves may drop of it
                return remote.answer()
        except (*DEATHS, EngineError) as error:  # an engine may be dead, or break its contract
            self.crew.bury(remote, error)
            return ()

    def _again(self, requests: Iterable[Request]) -> None:
        """Queue what was dealt out before, in its old place."""
        for request in requests:
            if wanted := self._wanted.get(request.id):
                heapq.heappush(self._queue, (wanted.place, request.id))

    def _hand_back(self, completion: Completion) -> None:
        with self._lock:
            wanted = self._wanted.pop(completion.request_id, None)
        if wanted is not None:
            key = hash(wanted.request.token_ids)
            self._lengths[key] = max(self._lengths.get(key, 0), completion.num_tokens)
            wanted.call.put(completion)

    def _forget(self, ids: Iterable[str]) -> None:
        """Nobody waits any more for what is left of these."""
        with self._lock:
            left = {key for key in ids if self._wanted.pop(key, None)}
        if left:
            self.crew.forget(left)

    def _expected(self, request: Request) -> int:
        """Tokens that this prompt's completions had so far; of a new one as many as it may have."""
        return self._lengths.get(hash(request.token_ids), request.sampling.max_tokens)
