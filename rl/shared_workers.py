"""Engines that all trainers share: the first process has them, and speaks for the others.

What the first one samples and scores is told to all; weights are gathered by all and published by
it alone. Every method is called by all processes in the same order, but for the sampler's.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from rl.ranks import Ranks, Undivided
from rollouts.proof import Proof
from rollouts.rollout import Completion, Request


class SharedWorkers:
    """The first process's workers (rollouts/workers.py) as the engine of every process."""

    def __init__(self, workers: Any, model: Path, ranks: Ranks):
        """`workers` are the first process's, None in the others."""
        self._workers, self.ranks = workers, Undivided(ranks.index, ranks.count)
        self.version = -1
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.dtype, self.vocab_size, self.eos_token_ids, self.kv_pool_bytes = ranks.from_first(
            lambda: (
                workers.dtype,
                workers.vocab_size,
                workers.eos_token_ids,
                workers.kv_pool_bytes,
            )
        )

    @property
    def sampler(self) -> Any:
        """What this process samples with: the workers, or in the others nothing."""
        return self._workers if self.ranks.is_first else NoSampler()

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """All completions of requests that every process makes alike, told to each."""
        yield from self.ranks.from_first(lambda: list(self._workers.sample(requests)))

    def publish(self, weights: Mapping[str, Any], version: int) -> Proof:
        """Give every worker the weights, which all processes gather together."""
        self.version = version
        whole = self._whole(weights, self._sent(weights, version))
        return self.ranks.from_first(lambda: self._workers.publisher.settle(whole, version))

    def _sent(self, weights: Mapping[str, Any], version: int) -> list[str]:
        """The names that are still needed, after what goes from device to device has gone."""
        if not self.ranks.from_first(lambda: self._workers.publisher.sends()):
            return list(weights)
        wanted = self._workers.publisher.send(weights, version) if self.ranks.is_first else None
        if wanted is None:
            for name in weights:
                weights[name]  # gathered together with the first, which sends it
        return self.ranks.from_first(lambda: wanted)

    def prove_base(self, weights: Mapping[str, Any]) -> Proof:
        """Compare the base under adapters with the trainers', in every engine."""
        whole = self._whole(weights, list(weights))
        return self.ranks.from_first(lambda: self._workers.prove_base(whole))

    def render(self, messages: list[dict[str, str]], **kwargs: Any) -> list[int]:
        """Ids of a conversation; the workers' tokenizer is this one, file by file."""
        return self.tokenizer.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=True, return_dict=False, **kwargs
        )

    def reset_prefix_cache(self) -> None:
        """Forget every computed prompt."""
        if self.ranks.is_first:
            self._workers.reset_prefix_cache()

    def sleep(self) -> None:
        """Nothing: the workers share no device with the trainers."""

    def wake(self, *parts: str) -> None:
        """Nothing."""

    def _whole(self, weights: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """Weights in the first process's memory, gathered one by one, in the same order by all."""
        gathered = ((name, weights[name]) for name in names)
        return {name: t.detach().cpu() for name, t in gathered if self.ranks.is_first}


class NoSampler:
    """Of a process that samples nothing itself."""

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Nothing, since it is asked for nothing."""
        if requests:
            raise AssertionError("only the first process samples")
        return iter(())
