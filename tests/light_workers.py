"""Workers of real processes on a real Ray, driven by the real driver, whose engines compute nothing.

They start in a second or two, so that hundreds can die while one would load a model.
"""

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rollouts import remote
from rollouts.crew import Crew
from rollouts.placement import Ray
from rollouts.proof import Proof
from rollouts.ray_cluster import start_ray
from rollouts.rollout import Completion, Request
from rollouts.sampler import EngineConfig
from rollouts.worker import Spec, Worker, model_digest
from rollouts.workers import Workers

SLOTS = 8
TOKEN_S = 0.001


def drawn(seed: int) -> tuple[int, ...]:
    """The tokens of the completion that a seed draws; a few are much longer than most."""
    num_tokens = random.Random(seed).randrange(2, 60) * (8 if seed % 11 == 0 else 1)
    return tuple((seed * 7919 + place * 31) % 1000 for place in range(num_tokens))


class LightEngine:
    """The part of `Engine` that a worker uses."""

    dtype, vocab_size, eos_token_ids, kv_pool_bytes = "float32", 1000, frozenset({0}), 0

    def __init__(self) -> None:
        self.version = -1
        self.unfinished: dict[str, Request] = {}
        self.versions: dict[str, list[int]] = {}

    def abort(self, ids: Sequence[str]) -> None:
        for each in ids:
            self.unfinished.pop(each, None)

    def submit(self, requests: Sequence[Request]) -> None:
        for request in requests:
            assert request.id not in self.unfinished
            self.unfinished[request.id], self.versions[request.id] = request, []

    def advance(self, patience_s: float) -> list[Completion]:
        end = time.monotonic() + patience_s
        while self.unfinished:
            done = self._step()
            if done or time.monotonic() >= end:
                return done
        return []

    def publish(self, weights: Any, version: int, *, in_flight: bool) -> Proof:
        assert version > self.version and in_flight
        self.version = version
        return Proof(num_checked=1, num_total=1, version=version)

    def reset_prefix_cache(self) -> None:
        pass

    def _step(self) -> list[Completion]:
        time.sleep(TOKEN_S)
        done = []
        for request in list(self.unfinished.values())[:SLOTS]:
            told, token_ids = self.versions[request.id], drawn(request.seed)
            told.append(self.version)
            if len(told) == len(token_ids):
                del self.unfinished[request.id]
                done.append(finished(request, token_ids, told))
        return done


def finished(request: Request, token_ids: tuple[int, ...], told: list[int]) -> Completion:
    spans = []
    for place, version in enumerate(told):
        start = spans.pop()[1] if spans and spans[-1][0] == version else place
        spans.append((version, start, place + 1))
    return Completion(
        request_id=request.id,
        token_ids=token_ids,
        logprobs=(0.0,) * len(token_ids),
        text="",
        finish="stop",
        versions=tuple(spans),
    )


class LightWorker(Worker):
    """A worker's process with such an engine."""

    def _made(self, spec: Spec) -> LightEngine:
        return LightEngine()


def open_light_workers(
    monkeypatch: pytest.MonkeyPatch, folder: Path, num_workers: int, size: int
) -> Workers:
    """So many workers of `size` processes each, which share the cores."""
    monkeypatch.setattr(remote, "Worker", LightWorker)
    config = EngineConfig(tensor_parallel=size)
    placement = Ray(
        num_workers=num_workers, cores=1, silence_s=6, publish_s=6, start_s=60, max_failures=1000
    )
    start_ray(placement, size)
    (model := folder / "model").mkdir()
    spec = Spec(
        model=model,
        digest=model_digest(model),
        config=config,
        max_tokens=4096,
        num_requests=64,
        adapter=None,
        transfer="host",
        logs=folder,
    )
    return Workers(Crew(spec, placement), None, config, max_tokens=4096, room=12)
