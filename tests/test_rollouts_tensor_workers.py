"""Workers whose engine is tensor-parallel: two real processes are one worker, and end as one."""

import os
import signal
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace

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
from rollouts.worker import Progress, Seat, Spec, Worker
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
NOTHING = Progress(completions=(), num_unfinished=0, drawn=0, resident_bytes=0)


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
        self._seat = Seat(index=0, count=1, rank=rank, meeting=meeting)
        self._started = Steps(step_s)

    def counted(self):
        return self._engine.count


def test_processes_take_as_many_steps_whatever_their_clocks_say(workers: Workers):
    """Else what comes between two calls would reach them at different steps."""
    actors = [ray.remote(num_cpus=0)(Stepping).remote() for _ in range(2)]
    meeting = ray.get(actors[0].invite.remote(2))
    begun = [each.begin.remote(meeting, n, 0.01 + 0.04 * n) for n, each in enumerate(actors)]
    ray.get(begun)
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


def remote_of_two(calls: list[Future]) -> Remote:
    """A worker that was asked something, without its processes."""
    spec = Spec(
        model=Path(), digest="", config=CONFIG, adapter=None, transfer="host", logs=Path(), **SHAPE
    )  # fmt: skip
    remote = Remote(number=3, spec=spec, placement=Ray(), heard=SimpleQueue())
    remote.call = calls
    return remote


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
    remote = remote_of_two([])
    one, other = (ray.remote(num_cpus=0)(Half).remote() for _ in range(2))
    assert remote.get([one.work.remote(), other.work.remote()], 30) == 3
    with pytest.raises(ValueError, match="the other is gone"):
        remote.get([one.fail.remote(), other.work.remote()], 30)
    with pytest.raises(DEATHS):
        remote.get([one.fail.remote(), other.die.remote()], 30)
    ray.kill(one)


class Recording:
    """An actor that writes down what it is asked, and has answered at once."""

    def __init__(self):
        self.asked = []
        self.advance = SimpleNamespace(remote=self._ask)

    def _ask(self, what, *_):
        time.sleep(0.001)
        self.asked.append(what)
        answered: Future[Progress] = Future()
        answered.set_result(NOTHING)
        return SimpleNamespace(future=lambda: answered)


def test_a_call_is_heard_of_once_though_all_processes_see_that_it_is_over():
    remote = remote_of_two([])
    remote.actors = [Recording(), Recording()]
    remote.ask((), 0.1)
    assert remote.heard.get_nowait() == (remote, remote.call)
    assert remote.heard.empty()
    assert remote.answer() == [] and remote.call is None


def test_nothing_comes_of_a_call_to_a_worker_that_was_buried_since():
    remote = remote_of_two([])
    remote.actors = [Recording(), Recording()]
    remote.ask(make_requests("b", 2), 0.1)
    assert [each.id for each in remote.release()] == ["b/0", "b/1"]
    assert remote.answer() == []


def test_who_publishes_and_who_samples_take_turns_at_a_worker(workers: Workers):
    """Else what is buried or dropped changes under the hands of who reads the answer."""
    remote = remote_of_two([])
    remote.actors = [Recording(), Recording()]
    remote.ask((), 0.1)
    reader = threading.Thread(target=workers._answer, args=(remote,))
    with workers.crew.lock:
        reader.start()
        reader.join(0.2)
        assert remote.call is not None
    reader.join()
    assert remote.call is None


def test_all_processes_are_told_in_one_order_whoever_speaks():
    remote = remote_of_two([])
    remote.actors = [Recording(), Recording()]

    def speak(name):
        for number in range(20):
            remote.tell("advance", (name, number))

    threads = [threading.Thread(target=speak, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = (actor.asked for actor in remote.actors)
    assert first == second and len(first) == 40


def test_processes_that_draw_other_tokens_are_noticed():
    calls = [Future(), Future()]
    for drawn, call in enumerate(calls):
        call.set_result(replace(NOTHING, drawn=drawn))
    with pytest.raises(EngineError, match="the processes of worker 3 drew different tokens"):
        remote_of_two(calls).answer()


def test_a_process_that_died_is_heard_of_while_another_still_waits_for_it():
    calls = [Future(), Future()]
    calls[1].set_exception(EngineError("gone"))
    with pytest.raises(EngineError, match="gone"):
        remote_of_two(calls).answer()


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
