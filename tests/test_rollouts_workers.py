"""Real engines in Ray actors: they sample as one engine does, and death loses nothing."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import ray

from rollouts.engine import Engine
from rollouts.exchange import EngineError
from rollouts.placement import Ray
from rollouts.rollout import Completion, Request, Sampling
from rollouts.sampler import EngineConfig
from rollouts.workers import Workers, open_workers

CONFIG = EngineConfig(dtype="float32", max_concurrent=8, max_kv_gib=0.1)
NUM_REQUESTS = 48


@pytest.fixture(scope="module")
def workers(tiny_model: Path, tmp_path_factory):
    """Two of them, of one core each."""
    made = open_workers(
        tiny_model,
        CONFIG,
        Ray(num_workers=2, silence_s=8, publish_s=8),
        max_tokens=128,
        num_requests=NUM_REQUESTS,
        logs=tmp_path_factory.mktemp("workers"),
    )
    yield made
    made.close()
    ray.shutdown()


@pytest.fixture(scope="module")
def alone(tiny_model: Path, workers: Workers) -> Engine:
    return Engine(tiny_model, CONFIG, max_tokens=128, num_requests=NUM_REQUESTS)


def make_requests(name: str, num: int = NUM_REQUESTS, max_tokens: int = 64) -> list[Request]:
    return [
        Request(
            id=f"{name}/{i}",
            token_ids=tuple(3 + byte for byte in f"What is {i // 4} + 5?".encode()),
            sampling=Sampling(max_tokens=max_tokens),
            seed=i,
            min_version=-1,
        )
        for i in range(num)
    ]


def by_id(completions) -> dict[str, Completion]:
    found: dict[str, Completion] = {}
    for completion in completions:
        assert completion.request_id not in found
        found[completion.request_id] = completion
    return found


def tokens(completions: dict[str, Completion]) -> dict[str, tuple[int, ...]]:
    return {key: each.token_ids for key, each in completions.items()}


def pids(workers: Workers) -> list[int]:
    return [remote.place[2] for remote in workers.crew.members]


def wait_for_all(workers: Workers) -> None:
    """Until every worker that died is back."""
    end = time.monotonic() + 60
    while not workers.crew.is_whole() and time.monotonic() < end:
        time.sleep(0.1)
    assert workers.crew.is_whole()


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_who_dies_while_it_starts_is_started_again(
    tiny_model, read_weights, tmp_path, request, number
):
    def kill() -> None:
        loading = []
        while len(loading) < number:
            every = psutil.process_iter(["name"])
            loading = [p for p in every if (p.info["name"] or "").startswith("ray::Worker.sta")]
        for process in loading[:number]:
            process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    request.addfinalizer(ray.shutdown)
    shape = {"max_tokens": 128, "num_requests": NUM_REQUESTS, "logs": tmp_path}
    if number == 2:
        with pytest.raises(EngineError, match=r"killed by SIGKILL.* while it started"):
            open_workers(tiny_model, CONFIG, Ray(num_workers=2), **shape)
        return
    made = open_workers(tiny_model, CONFIG, Ray(num_workers=2), **shape)
    killer.join()
    assert not made.crew.is_whole()
    made.publish(read_weights(tiny_model), 0)
    assert len(by_id(made.sample(make_requests("s")))) == NUM_REQUESTS
    wait_for_all(made)
    assert [remote.version for remote in made.crew.members] == [0, 0]
    made.close()


def test_two_workers_draw_what_one_engine_draws(workers: Workers, alone: Engine, read_weights):
    weights = read_weights(workers.crew.members[0].spec.model)
    whole = alone.publish(weights, 3)
    assert workers.publish(weights, 3) == whole
    assert whole.num_checked == whole.num_total
    wanted, found = (by_id(each.sample(make_requests("a"))) for each in (alone, workers))
    assert tokens(found) == tokens(wanted)
    assert {each.versions[0][0] for each in found.values()} == {3}
    for key, each in found.items():
        assert each.logprobs == pytest.approx(wanted[key].logprobs, abs=1e-4)
    assert (workers.dtype, workers.vocab_size) == (alone.dtype, alone.vocab_size)
    assert workers.eos_token_ids == alone.eos_token_ids


def killed_in_the_middle(
    workers: Workers, name: str, victim: int, number: int
) -> dict[str, Completion]:
    """A sampling during which a process gets a signal, after the first completions."""
    found = []
    for completion in workers.sample(make_requests(name)):
        found.append(completion)
        if len(found) == 5:
            os.kill(victim, number)
    return by_id(found)


def published_in_the_middle(workers: Workers, weights, version: int) -> list[Completion]:
    """A sampling during which weights are published, after the first completion."""
    begun, found = threading.Event(), []

    def sample() -> None:
        for completion in workers.sample(make_requests("d", max_tokens=100)):
            found.append(completion)
            begun.set()

    thread = threading.Thread(target=sample)
    thread.start()
    assert begun.wait(30)
    workers.publish(weights, version)
    thread.join(60)
    assert len(by_id(found)) == NUM_REQUESTS
    return found


def versions(found: list[Completion]) -> set[int]:
    """Those of the weights that drew their tokens."""
    return {version for each in found for version, _, _ in each.versions}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_dies_loses_nothing(
    workers: Workers, alone: Engine, read_weights, caplog, number: int
):
    weights = read_weights(workers.crew.members[0].spec.model)
    for each in (workers, alone):
        each.publish(weights, 4)
    victim = pids(workers)[0]
    found = killed_in_the_middle(workers, "b", victim, number)
    assert tokens(found) == tokens(by_id(alone.sample(make_requests("b"))))
    assert f"worker 0, process {victim} on {os.uname().nodename}: killed by SIGKILL" in caplog.text
    assert "requests are dealt out again" in caplog.text
    wait_for_all(workers)
    assert pids(workers)[0] != victim
    assert not psutil.pid_exists(victim) or psutil.Process(victim).status() == "zombie"
    assert [remote.version for remote in workers.crew.members] == [4, 4]
    assert len(by_id(workers.sample(make_requests("c")))) == NUM_REQUESTS


def test_a_worker_that_is_stopped_takes_no_weights_and_is_started_again(
    workers: Workers, read_weights
):
    victim = pids(workers)[0]
    os.kill(victim, signal.SIGSTOP)
    began = time.monotonic()
    workers.publish(read_weights(workers.crew.members[0].spec.model), 5)
    assert 8 <= time.monotonic() - began < 20
    wait_for_all(workers)
    assert pids(workers)[0] != victim
    assert [remote.version for remote in workers.crew.members] == [5, 5]


def test_weights_arrive_in_flight(workers: Workers, read_weights):
    weights = read_weights(workers.crew.members[0].spec.model)
    workers.publish(weights, 10)
    found = published_in_the_middle(workers, weights, 11)
    assert versions(found) == {10, 11}
    for each in found:
        assert each.versions[0][1] == 0 and each.versions[-1][2] == each.num_tokens


def test_a_sampling_that_is_left_leaves_nothing_behind(workers: Workers):
    for _ in workers.sample(make_requests("e")):
        break
    assert len(by_id(workers.sample(make_requests("f")))) == NUM_REQUESTS


def test_more_workers_than_room_is_refused(workers: Workers, tiny_model: Path, tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"rollouts.num_workers is 3 with 1 CPUs each, and Ray has 2"
    ):
        open_workers(
            tiny_model,
            CONFIG,
            Ray(num_workers=3, cores=1),
            max_tokens=128,
            num_requests=4,
            logs=tmp_path,
        )


def test_when_all_are_dead_it_ends_with_what_each_died_of(workers: Workers):
    for remote in workers.crew.members:
        remote.placement = replace(remote.placement, max_failures=1)
    killed = pids(workers)
    with pytest.raises(EngineError) as caught:
        for number, _ in enumerate(workers.sample(make_requests("z", max_tokens=100))):
            for pid in killed if number == 0 else ():
                os.kill(pid, signal.SIGKILL)
    told = str(caught.value)
    assert told.startswith("all workers are dead: ")
    for number, pid in enumerate(killed):
        host = os.uname().nodename
        assert f"worker {number}, process {pid} on {host}: killed by SIGKILL" in told
