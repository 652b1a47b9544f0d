"""Engines in Ray actors, behind the interface of one engine: who samples what.

Requests go where there is room, those expected to be longest first, and completions come back as
they finish. What a dead or silent worker had goes to the others with the same ids and seeds
(rollouts/crew.py). Ray places, restarts and carries; no process is started or watched here.
"""

import heapq
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from transformers import AutoTokenizer

from rollouts.adapters import AdapterShape
from rollouts.crew import DEATHS, Crew
from rollouts.exchange import check_fits
from rollouts.parcel import packed
from rollouts.placement import Ray
from rollouts.proof import Proof
from rollouts.ray_cluster import start_ray
from rollouts.remote import Remote
from rollouts.rollout import Completion, Request
from rollouts.sampler import EngineConfig
from rollouts.worker import Spec, model_digest

TICK_S = 0.25
"""A worker answers at least this often while it samples."""
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
    start_ray(placement)
    logs.mkdir(parents=True, exist_ok=True)
    share = -(-num_requests // placement.num_workers)
    spec = Spec(
        model=model.resolve(),
        digest=model_digest(model),
        config=config,
        max_tokens=max_tokens,
        num_requests=share,
        adapter=adapter,
        logs=logs.resolve(),
    )
    return Workers(
        Crew(spec, placement),
        AutoTokenizer.from_pretrained(model),
        config,
        max_tokens=max_tokens,
        room=math.ceil(ROOM * min(config.max_concurrent, share)),
    )


class Workers:
    """Several engines that sample as one."""

    def __init__(
        self, crew: Crew, tokenizer: Any, config: EngineConfig, *, max_tokens: int, room: int
    ):
        """Sample with a crew whose workers are given at most `room` requests at a time."""
        self.crew, self.tokenizer = crew, tokenizer
        self.config, self.max_tokens = config, max_tokens
        self._room = room
        self._lengths: dict[int, int] = {}

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
        queue = deque(sorted(requests, key=self._expected, reverse=True))
        prompts = {request.id: request.token_ids for request in requests}
        if len(prompts) < len(requests):
            raise AssertionError("request ids must be unique")
        heard: list[Remote] = []
        try:
            while prompts:
                self._give(queue, heard)
                heard = self.crew.hear(TICK_S)
                for remote in heard:
                    for completion in self._answer(remote, queue):
                        self._learn(prompts.pop(completion.request_id), completion)
                        yield completion
        finally:
            self.crew.forget()

    def publish(
        self, weights: Mapping[str, Any] | Iterable[tuple[str, Any]], version: int
    ) -> Proof:
        """Give every engine these weights, each of which proves them; what is unfinished goes on.

        One copy a machine, in Ray's shared memory, whatever the number of workers.
        """
        named = weights if isinstance(weights, Mapping) else dict(weights)
        return self.crew.publish(ray.put(packed(named)), version)

    def prove_base(self, weights: Mapping[str, Any]) -> Proof:
        """Compare the base under adapters with the trainer's, in every engine."""
        return self.crew.prove_base(ray.put(packed(weights)))

    def reset_prefix_cache(self) -> None:
        """Forget every computed prompt."""
        self.crew.tell(lambda remote: remote.actor.reset_prefix_cache.remote())

    def sleep(self) -> None:
        """Nothing: the workers share no device with the trainer."""

    def wake(self, *parts: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """End the workers."""
        self.crew.close()

    def _give(self, queue: deque[Request], heard: Sequence[Remote]) -> None:
        """Deal out what waits, each to who has least, and let those who have something work on."""
        with self.crew.lock:
            queue.extendleft(self.crew.orphans)
            self.crew.orphans = []
            free = [remote for remote in heard if self.crew.is_ready(remote)]
            if queue:
                free += self.crew.idle
                self.crew.idle = []
            for remote, given in zip(free, self._dealt(queue, free), strict=True):
                if given or remote.held:
                    remote.ask(given, TICK_S)
                else:
                    self.crew.idle.append(remote)

    def _dealt(self, queue: deque[Request], free: Sequence[Remote]) -> list[list[Request]]:
        """The queue's first, one by one to the worker that has fewest, until it has no more room."""
        given: list[list[Request]] = [[] for _ in free]
        held = [(len(remote.held), place) for place, remote in enumerate(free)]
        heapq.heapify(held)
        while queue and held and held[0][0] < self._room:
            count, place = held[0]
            given[place].append(queue.popleft())
            heapq.heapreplace(held, (count + 1, place))
        return given

    def _answer(self, remote: Remote, queue: deque[Request]) -> Sequence[Completion]:
        """What a worker finished; if it died, what it had goes to the front of the queue."""
        try:
            return remote.answer().completions
        except DEATHS as error:
            queue.extendleft(reversed(self.crew.bury(remote, error)))
            return ()

    def _expected(self, request: Request) -> int:
        """Tokens that this prompt's completions had so far; of a new one as many as it may have."""
        return self._lengths.get(hash(request.token_ids), request.sampling.max_tokens)

    def _learn(self, prompt: tuple[int, ...], completion: Completion) -> None:
        key = hash(prompt)
        self._lengths[key] = max(self._lengths.get(key, 0), completion.num_tokens)
