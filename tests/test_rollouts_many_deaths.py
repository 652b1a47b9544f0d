"""Many deaths a minute while several sample, leave, come again and publish: nobody misses anything."""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
import torch
from ray.exceptions import RayError

from rollouts.remote import Remote
from rollouts.rollout import Request, Sampling
from rollouts.worker import Meeting, NotStartedError
from rollouts.workers import Workers
from tests.light_workers import drawn, open_light_workers

LAST_S = 60.0
CALLERS = "abc"
LEAVES = 0.3
"""Of the samplings, those that are left early."""


class Storm:
    """What goes on at once, until time is up or one part of it fails."""

    def __init__(self, workers: Workers, seed: int, *, stops: float):
        """`stops` is the share of faults in which a process does not end, but is stopped."""
        self.workers, self.seed, self.stops = workers, seed, stops
        self.end = time.monotonic() + LAST_S
        self.version, self.deaths, self.served = 0, 0, 0
        self.failed = threading.Event()

    def goes_on(self) -> bool:
        return time.monotonic() < self.end and not self.failed.is_set()

    def alone(self, part: Callable[..., None], *args: str) -> None:
        """A part in its thread; the others end if it fails."""
        try:
            part(random.Random(f"{self.seed}/{part.__name__}/{args}"), *args)
        except BaseException:
            self.failed.set()
            raise

    def sample(self, draw: random.Random, name: str) -> None:
        """Sample again and again; some leave early, and come again with what they have not had."""
        number = 0
        while self.goes_on():
            number += 1
            asked = [
                Request(
                    id=f"{name}/{number}/{i}",
                    token_ids=(1, 2, i // 4),
                    sampling=Sampling(max_tokens=512),
                    seed=draw.randrange(10**6),
                    min_version=-1,
                )
                for i in range(draw.randrange(1, 50))
            ]
            most = draw.randrange(len(asked)) if draw.random() < LEAVES else len(asked)
            had = self.served_of(asked, most)
            rest = [request for request in asked if request.id not in had]
            assert self.served_of(rest, len(rest)) == {request.id for request in rest}

    def served_of(self, asked: list[Request], most: int) -> set[str]:
        """Ids of at most so many that are served, each as its seed has it, by no older weights."""
        left, least, had = {request.id: request for request in asked}, self.version, set()
        completions = self.workers.sample(asked)
        for completion in completions:
            request = left.pop(completion.request_id)
            versions = [version for version, _, _ in completion.versions]
            assert completion.token_ids == drawn(request.seed)
            assert versions == sorted(versions) and versions[0] >= least
            had.add(request.id)
            self.served += 1
            if len(had) > most:
                completions.close()
                break
        return had

    def publish(self, draw: random.Random) -> None:
        while self.goes_on():
            time.sleep(0.3 * draw.random())
            self.workers.publish({"w": torch.zeros(8)}, self.version + 1)
            self.version += 1
            if self.version % 7 == 0:
                self.workers.reset_prefix_cache()

    def kill(self, draw: random.Random) -> None:
        """End or stop one process after another, whatever it is at."""
        while self.goes_on():
            time.sleep(4 * draw.random())
            member = draw.choice(self.workers.crew.members)
            number = signal.SIGKILL if draw.random() >= self.stops else signal.SIGSTOP
            try:
                os.kill(draw.choice([member.place[2], *member.beside]), number)
                self.deaths += 1
            except ProcessLookupError:
                continue


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, num_workers: int, size: int):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(num_workers * size)))
    made = open_light_workers(monkeypatch, tmp_path, num_workers, size)
    made.publish({"w": torch.zeros(8)}, 0)
    yield made
    if ray.is_initialized():
        made.close()
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_workers", "size", "stops"), [(3, 1, 0.0), (3, 1, 0.3), (2, 2, 0.0), (2, 2, 0.3), (1, 3, 0.0)]
)  # fmt: skip
def test_many_deaths_lose_nothing(workers: Workers, caplog, num_workers, size, stops: float):
    storm = Storm(workers, size, stops=stops)
    parts = [(storm.publish,), (storm.kill,), *((storm.sample, name) for name in CALLERS)]
    with ThreadPoolExecutor(max_workers=len(parts)) as pool:
        for ended in [pool.submit(storm.alone, *part) for part in parts]:
            ended.result()
    assert storm.deaths > 1 and storm.served > 20
    assert stops or "did not answer in time" not in caplog.text


@pytest.mark.parametrize(
    ("num_workers", "size"), [pytest.param(1, 1, marks=pytest.mark.slow), (1, 2)]
)
def test_who_takes_the_place_of_a_process_that_was_found_is_found_first(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, num_workers: int, size: int
):
    """It would wait for others where they do not meet, and be taken for the one that is gone."""
    remote, gather = workers.crew.members[0], Remote._gather

    def gather_and_die(self: Remote, end: float) -> Meeting:
        meeting = gather(self, end)
        replaced(self)
        return meeting

    monkeypatch.setattr(Remote, "_gather", gather_and_die)
    remote.kill()
    remote.find()
    if size == 1:
        replaced(remote)
    with pytest.raises(NotStartedError, match="is gone, and this one has its place"):
        remote.load(0, 1)


@pytest.mark.parametrize(("num_workers", "size"), [(2, 1)])
def test_whoever_starts_a_worker_again_ends_with_the_crew(
    workers: Workers, num_workers: int, size: int
):
    """Asked after its end, Ray would start anew, and end the process when that fails."""
    crew = workers.crew
    os.kill(crew.members[0].place[2], signal.SIGKILL)
    while crew.is_whole():
        crew.tell("reset_prefix_cache")
    starting = list(crew._starting.values())
    workers.close()
    assert all(each.done() for each in starting)
    ray.shutdown()
    assert not ray.is_initialized()


def replaced(remote: Remote) -> None:
    """Kill its first process, and wait until Ray has started another."""
    os.kill(remote.place[2], signal.SIGKILL)
    place = remote.place
    while place == remote.place:
        with contextlib.suppress(RayError):
            place = ray.get(remote.actors[0].place.remote())
