"""Engines in Ray actors, behind the interface of one engine: who samples what.

Requests go where there is room, those expected to be longest first, and completions come back as
they finish. What a dead or silent worker had goes to the others with the same ids and seeds
(rollouts/crew.py). Ray places, restarts and carries; no process is started or watched here.
"""

import logging
import math
import time
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

logger = logging.getLogger(__name__)
TICK_S = 0.25
"""A worker answers at least this often while it samples."""
ROOM = 1.25
"""Requests that a worker is given, times those that it samples at once: a free slot never waits."""


class Workers:
    """Several engines that sample as one."""

    def __init__(
        self,
        model: Path,
        config: EngineConfig,
        placement: Ray,
        *,
        max_tokens: int,
        num_requests: int,
        logs: Path,
        adapter: AdapterShape | None = None,
    ):
        """Start Ray or join it, and load an engine in each worker.

        Args:
            max_tokens, num_requests, adapter: As of `Engine`; the requests are all workers'.
            logs: A folder for what the workers print.

        Raises:
            ValueError: More workers than the cluster has room for, no Ray at the address, or a
                worker whose model or packages differ.
        """
        self.config, self.max_tokens = config, max_tokens
        start_ray(placement)
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
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.crew = Crew(spec, placement)
        self._room = math.ceil(ROOM * min(config.max_concurrent, share))
        self._lengths: dict[tuple[int, ...], int] = {}

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
        try:
            while prompts:
                self._give(queue)
                for remote in self._heard():
                    for completion in self._answer(remote, queue):
                        self._learn(prompts.pop(completion.request_id), completion)
                        yield completion
        finally:
            self._forget()

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

    def _give(self, queue: deque[Request]) -> None:
        """Fill every worker's room, and let each that has something work on."""
        with self.crew.lock:
            queue.extendleft(self.crew.orphans)
            self.crew.orphans = []
            free = [remote for remote in self.crew.ready() if remote.call is None]
            for remote in sorted(free, key=lambda remote: len(remote.held)):
                count = max(0, min(self._room - len(remote.held), len(queue)))
                given = [queue.popleft() for _ in range(count)]
                if given or remote.held:
                    remote.ask(given, TICK_S)

    def _heard(self) -> list[Remote]:
        """Workers that have answered or died; waits a little for the first, and kills the silent."""
        with self.crew.lock:
            asked = {r.call: r for r in self.crew.members if r.call is not None}
        if not asked:
            time.sleep(TICK_S)
            return []
        ray.wait(list(asked), num_returns=1, timeout=1.0)
        done, waiting = ray.wait(list(asked), num_returns=len(asked), timeout=0)
        for call in waiting:
            if asked[call].is_silent():
                remote = asked[call]
                told = "worker %d has said nothing for %.0f s: it is killed"
                logger.warning(told, remote.number, remote.placement.silence_s)
                remote.kill()
        return [asked[call] for call in done]

    def _answer(self, remote: Remote, queue: deque[Request]) -> Sequence[Completion]:
        """What a worker finished; if it died, what it had goes to the front of the queue."""
        try:
            return remote.answer().completions
        except DEATHS as error:
            queue.extendleft(reversed(self.crew.bury(remote, error)))
            return ()

    def _forget(self) -> None:
        """Let the workers drop what nobody waits for any more."""
        with self.crew.lock:
            self.crew.orphans = []
            for remote in self.crew.members:
                if remote.release():
                    remote.actor.abort.remote()

    def _expected(self, request: Request) -> int:
        """Tokens that this prompt's completions had so far; of a new one as many as it may have."""
        return self._lengths.get(request.token_ids, request.sampling.max_tokens)

    def _learn(self, prompt: tuple[int, ...], completion: Completion) -> None:
        self._lengths[prompt] = max(self._lengths.get(prompt, 0), completion.num_tokens)
