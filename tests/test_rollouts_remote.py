"""One worker as the driver sees it, without its processes: what it hears of their answers."""

import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from rollouts.exchange import EngineError
from rollouts.placement import Ray
from rollouts.remote import Remote
from rollouts.sampler import EngineConfig
from rollouts.worker import Progress, Spec
from tests.test_rollouts_dealing import made, requests

NOTHING = Progress(completions=(), num_unfinished=0, drawn=0, resident_bytes=0)


def remote_of_two(calls: list[Future] | tuple = ()) -> Remote:
    """A worker that was asked something, without its processes."""
    spec = Spec(
        model=Path(),
        digest="",
        config=EngineConfig(tensor_parallel=2),
        max_tokens=128,
        num_requests=48,
        adapter=None,
        transfer="host",
        logs=Path(),
    )
    remote = Remote(number=3, spec=spec, placement=Ray(), heard=SimpleQueue())
    remote.call = calls
    return remote


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
    remote = remote_of_two()
    remote.actors = [Recording(), Recording()]
    remote.ask((), 0.1)
    assert remote.heard.get_nowait() == (remote, remote.call)
    assert remote.heard.empty()
    assert remote.answer() == [] and remote.call is None


def test_nothing_comes_of_a_call_to_a_worker_that_was_buried_since():
    remote = remote_of_two()
    remote.actors = [Recording(), Recording()]
    remote.ask(requests("b", 2), 0.1)
    assert [each.id for each in remote.release()] == ["b/0", "b/1"]
    assert remote.answer() == []


def test_who_publishes_and_who_samples_take_turns_at_a_worker():
    """Else what is buried or dropped changes under the hands of who reads the answer."""
    remote = remote_of_two()
    remote.actors = [Recording(), Recording()]
    remote.ask((), 0.1)
    crew, workers = made()
    reader = threading.Thread(target=workers._answer, args=(remote,))
    with crew.lock:
        reader.start()
        reader.join(0.2)
        assert remote.call is not None
    reader.join()
    assert remote.call is None


def test_all_processes_are_told_in_one_order_whoever_speaks():
    remote = remote_of_two()
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
