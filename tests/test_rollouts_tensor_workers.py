"""Workers whose engine is tensor-parallel: two real processes are one worker, and end as one."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import pytest
import ray

from rollouts import ending
from rollouts.crew import DEATHS
from rollouts.engine import Engine
from rollouts.exchange import EngineError
from rollouts.meeting import join
from rollouts.placement import Ray
from rollouts.publishing import Publisher
from rollouts.remote import Remote
from rollouts.sampler import EngineConfig
from rollouts.worker import Seat, Worker
from rollouts.workers import Workers, open_workers
from tests.test_rollouts_workers import (
    by_id,
    killed_in_the_middle,
    make_requests,
    published_in_the_middle,
    tokens,
    versions,
    wait_for_all,
)

CONFIG = EngineConfig(dtype="float32", max_concurrent=8, max_kv_gib=0.1, tensor_parallel=2)
SHAPE = {"max_tokens": 128, "num_requests": 48}


@pytest.fixture(scope="module")
def workers(tiny_model: Path, tmp_path_factory):
    """One of them, of two processes of one core each, that can take weights past the hosts' memory."""
    placement = Ray(num_workers=1, silence_s=8, publish_s=8, transfer="gloo")
    logs = tmp_path_factory.mktemp("workers")
    before = set(Path("/dev/shm").glob("*cpushm*"))
    made = open_workers(tiny_model, CONFIG, placement, logs=logs, **SHAPE)
    assert set(Path("/dev/shm").glob("*cpushm*")) == before
    yield made
    made.close()
    ray.shutdown()


@pytest.fixture(scope="module")
def wanted(workers: Workers, tiny_model: Path, weights) -> dict[str, tuple[int, ...]]:
    """What an engine in one process draws."""
    alone = Engine(tiny_model, replace(CONFIG, tensor_parallel=1), **SHAPE)
    alone.publish(weights, 0)
    return tokens(by_id(alone.sample(make_requests("a"))))


def processes(workers: Workers) -> list[int]:
    remote = workers.crew.members[0]
    return [remote.place[2], *remote.beside]


def test_two_processes_are_one_worker(workers: Workers, weights, wanted):
    proof = workers.publish(weights, 0)
    assert proof.num_checked == proof.num_total
    assert len(set(processes(workers))) == 2
    assert tokens(by_id(workers.sample(make_requests("a")))) == wanted
    assert ray.available_resources().get("CPU", 0) == 0


def test_weights_come_by_a_transfer_to_each_process(workers: Workers, weights, wanted):
    assert workers.publisher.sends()
    proof = workers.publish({name: each + 1 / 64 for name, each in weights.items()}, 1)
    assert 0 < proof.num_checked < proof.num_total
    changed = tokens(by_id(workers.sample(make_requests("a"))))
    assert changed.keys() == wanted.keys() and changed != wanted
    workers.publish(weights, 2)
    assert tokens(by_id(workers.sample(make_requests("a")))) == wanted


def test_weights_arrive_in_flight(workers: Workers, weights):
    assert versions(published_in_the_middle(workers, weights, 3)) == {2, 3}


@pytest.mark.parametrize(
    ("rank", "number"),
    [
        pytest.param(0, signal.SIGKILL, marks=pytest.mark.slow),
        (1, signal.SIGKILL),
        pytest.param(1, signal.SIGSTOP, marks=pytest.mark.slow),
    ],
)
def test_if_one_process_dies_all_come_back(
    workers: Workers, weights, wanted, caplog, rank: int, number: int
):
    workers.publisher = Publisher(workers.crew)  # a single worker comes back by what the host holds
    workers.publish(weights, 4)
    before = processes(workers)
    assert tokens(killed_in_the_middle(workers, "a", before[rank], number)) == wanted
    first = f"process {before[rank]} on " if number == signal.SIGKILL else "process "
    assert f"died: worker 0, {first}" in caplog.text and "killed by SIGKILL" in caplog.text
    assert "Loading safetensors" not in caplog.text  # said at its start, not at its end
    wait_for_all(workers)
    assert not set(before) & set(processes(workers))
    assert tokens(by_id(workers.sample(make_requests("a")))) == wanted


class Steps:
    """An engine of which nothing ever finishes, and whose steps take as long as they are told to."""

    unfinished = ()

    def __init__(self, step_s: float):
        self.step_s, self.count = step_s, 0

    def abort(self, ids):
        pass

    submit = abort

    def advance(self, patience_s):
        time.sleep(self.step_s)
        self.count += 1
        return []


class Stepping(Worker):
    """A worker's process with such an engine."""

    def begin(self, meeting, rank, step_s):
        join(meeting, rank, self._store)
        self._seat = Seat(index=0, count=1, pid=os.getpid(), rank=rank, meeting=meeting)
        self._started = Steps(step_s)

    def counted(self):
        return self._engine.count


def stepping() -> list[ray.actor.ActorHandle]:
    """Two such processes that have met."""
    actors = [ray.remote(num_cpus=0)(Stepping).remote() for _ in range(2)]
    meeting = ray.get(actors[0].invite.remote(2))
    ray.get([each.begin.remote(meeting, n, 0.01 + 0.04 * n) for n, each in enumerate(actors)])
    return actors


def test_a_process_whose_fellow_is_gone_says_that_the_engine_is(workers: Workers):
    """Ray may tell of the death later: it is to be a worker's death, not a fault of the run."""
    one, other = stepping()
    at_work = [each.advance.remote((), 60.0, ()) for each in (one, other)]
    ray.kill(other)
    with pytest.raises(EngineError, match="a process of this engine is gone"):
        ray.get(at_work[0])
    ray.kill(one)


def test_processes_take_as_many_steps_whatever_their_clocks_say(workers: Workers):
    """Else what comes between two calls would reach them at different steps."""
    actors = stepping()
    ray.get([each.advance.remote((), 0.5, ()) for each in actors])
    first, second = ray.get([each.counted.remote() for each in actors])
    assert first == second > 1
    for each in actors:
        ray.kill(each)


def test_a_machine_that_goes_before_all_are_there_is_a_death(workers: Workers):
    spec = workers.crew.members[0].spec
    remote = Remote(number=9, spec=spec, placement=Ray(), heard=SimpleQueue())
    remote.actors = [remote._process(num_cpus=0)]
    remote.place = ("ab" * 28, "gone", 1)
    with pytest.raises(DEATHS):
        remote.load(0, 1)
    remote.dismiss()


class Half:
    """A process that fails of the other's death, or dies."""

    def fail(self):
        raise ValueError("the other is gone")

    def die(self):
        time.sleep(0.5)
        os._exit(1)

    def work(self):
        return 3


def test_who_fails_of_anothers_death_tells_of_that(workers: Workers):
    """While they start: Ray may tell of the death after the failure."""
    remote = workers.crew.members[0]
    one, other = (ray.remote(num_cpus=0)(Half).remote() for _ in range(2))
    assert remote.get([one.work.remote(), other.work.remote()], 30) == 3
    with pytest.raises(ValueError, match="the other is gone"):
        remote.get([one.fail.remote(), other.work.remote()], 30)
    with pytest.raises(DEATHS):
        remote.get([one.fail.remote(), other.die.remote()], 30)
    ray.kill(one)


def test_the_process_that_ended_first_is_told(tmp_path: Path):
    log = tmp_path / "endings.log"
    log.write_text(
        "2026-11-23 14:00:00 here process 12 ended with code 0\n"  # its number came again
        "2026-11-23 14:36:00 here process 345 killed by SIGSEGV, 0.7 GiB at most\n"
        "2026-11-23 14:36:01 here process 12 killed by SIGKILL, 0.7 GiB at most\n"
        "2026-11-23 14:35:00 there process 45 killed by SIGTERM\n"
    )
    assert ending.find(log, "here", [12, 345], 0) == (345, "killed by SIGSEGV, 0.7 GiB at most")
    assert ending.find(log, "here", [45, 46], 0) == (45, "")
