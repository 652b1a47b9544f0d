"""Weights that go to workers past the hosts' memory: real engines, vLLM's weight transfer, over gloo."""

import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
import ray

from rollouts.exchange import EngineError, TransferError
from rollouts.placement import Ray, transfer_of
from rollouts.proof import WeightProofError
from rollouts.sampler import EngineConfig
from rollouts.transfer import SENDERS, within
from rollouts.workers import Workers, open_workers
from tests.test_rollouts_workers import (
    by_id,
    killed_in_the_middle,
    make_requests,
    pids,
    published_in_the_middle,
    tokens,
    versions,
    wait_for_all,
)

CONFIG = EngineConfig(dtype="float32", max_concurrent=8, max_kv_gib=0.1, proof_parts=4)
SHAPE = {"max_tokens": 128, "num_requests": 48}


@pytest.fixture(scope="module")
def workers(tiny_model: Path, tmp_path_factory):
    """Two of them, of one core each, with the checkpoint's weights as version 0."""
    placement = Ray(num_workers=2, silence_s=8, publish_s=8, transfer="gloo")
    logs = tmp_path_factory.mktemp("workers")
    made = open_workers(tiny_model, CONFIG, placement, logs=logs, **SHAPE)
    yield made
    made.close()
    ray.shutdown()


@pytest.fixture(scope="module")
def wanted(workers: Workers, weights) -> dict[str, tuple[int, ...]]:
    """What the checkpoint's weights draw, which came through the hosts' memory at first."""
    assert not workers.publisher.sends()  # nothing was proved yet
    first = workers.publish(weights, 0)
    assert first.num_checked == first.num_total
    return tokens(by_id(workers.sample(make_requests("a"))))


def moved(weights, by: float):
    return {name: tensor + by for name, tensor in weights.items()}


class Acting(Mapping):
    """Weights in the middle of whose reading something happens."""

    def __init__(self, weights, act):
        self._weights, self._act, self.read = weights, act, []
        self._middle = list(weights)[len(weights) // 2]

    def __getitem__(self, name):
        self.read.append(name)
        if name == self._middle and self._act:
            act, self._act = self._act, None
            act()
        return self._weights[name]

    @property
    def shapes(self):
        return self._weights

    def __iter__(self):
        return iter(self._weights)

    def __len__(self):
        return len(self._weights)


def test_a_transfer_brings_what_the_hosts_would(workers: Workers, weights, wanted):
    for version in (1, 2, 3, 4):
        assert workers.publisher.sends()
        proof = workers.publish(moved(weights, version / 64), version)
        assert 0 < proof.num_checked < proof.num_total
        assert proof.version == version == workers.version
    changed = by_id(workers.sample(make_requests("b")))
    assert {each.versions[0][0] for each in changed.values()} == {4}
    assert list(tokens(changed).values()) != list(wanted.values())
    workers.publish(weights, 5)
    assert tokens(by_id(workers.sample(make_requests("a")))) == wanted


def test_every_part_is_proved_in_its_turn(workers: Workers, weights, wanted, monkeypatch):
    publisher, seen = workers.publisher, []
    plain = publisher.settle
    monkeypatch.setattr(
        publisher, "settle", lambda given, version: (seen.extend(given), plain(given, version))[1]
    )
    checked = [publisher.publish(weights, version).num_checked for version in range(6, 10)]
    assert set(seen) == set(weights)  # a tied head is proved where the engine applies it, too
    assert max(checked) - min(checked) <= 1


def test_other_weights_than_the_trainers_are_noticed(workers: Workers, weights, wanted):
    sent, own = moved(weights, 1 / 64), workers.publisher
    with pytest.raises(WeightProofError, match="differ from what was published"):
        own.settle({name: weights[name] for name in own.send(sent, 10)}, 10)
    workers.publish(weights, 11)
    assert tokens(by_id(workers.sample(make_requests("a")))) == wanted


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)]
)
def test_a_transfer_that_breaks_is_made_good(
    workers: Workers, weights, wanted, caplog, capfd, number: int
):
    before = pids(workers)
    sent = Acting(moved(weights, 1 / 64), lambda: os.kill(before[0], number))
    workers.publish(sent, 12)
    assert sent.read[: len(sent)] == list(sent)  # others may gather with the sender
    assert "version 12 goes through the hosts' memory: " in caplog.text
    assert "all after it" not in caplog.text
    assert "Unhandled error" not in capfd.readouterr().err
    changed = by_id(workers.sample(make_requests("c")))  # who takes them waits for who comes back
    assert {each.versions[0][0] for each in changed.values()} == {12}
    wait_for_all(workers)
    assert not set(before) & set(pids(workers))
    assert [remote.version for remote in workers.crew.members] == [12, 12]
    assert workers.publisher.sends()
    workers.publish(weights, 13)
    assert tokens(by_id(workers.sample(make_requests("a")))) == wanted


def test_a_transfer_that_never_works_is_left(workers: Workers, weights, monkeypatch, caplog):
    def broken(*given):
        raise TransferError("no route")

    publisher = workers.publisher
    transfer = publisher._transfer
    monkeypatch.setattr(workers.crew, "receive", broken)
    for version in (14, 15):
        assert publisher.sends()
        assert workers.publish(weights, version).version == version
    told = "version 15 goes through the hosts' memory, and so do all after it: no route"
    assert told in caplog.text and not publisher.sends()
    publisher._transfer = transfer


@pytest.mark.slow
def test_a_meeting_that_never_ends_is_left(workers: Workers, weights, wanted, monkeypatch, caplog):
    class Deaf:
        @classmethod
        def trainer_init(cls, info, **given):
            threading.Event().wait()

    transfer = workers.publisher._transfer
    transfer._met = []
    monkeypatch.setitem(SENDERS, "gloo", Deaf)
    monkeypatch.setattr("rollouts.transfer.MEETING_S", 0.5)
    sent = Acting(moved(weights, 1 / 64), None)
    workers.publish(sent, 16)
    assert sent.read[: len(sent)] == list(sent)
    told = (
        "version 16 goes through the hosts' memory: TimeoutError: trainer and workers have not met"
    )
    assert f"{told} in 0.5 s" in caplog.text
    wait_for_all(workers)


def test_who_comes_back_waits_for_the_next_version(workers: Workers, weights, wanted, caplog):
    workers.publish(weights, 17)
    workers.publish(weights, 18)
    found = killed_in_the_middle(workers, "a", pids(workers)[0], signal.SIGKILL)
    assert tokens(found) == wanted
    held = list(workers.crew._starting.values())
    assert all(future.exception(60) is None for future in held)
    assert [remote.number for remote in workers.crew.ready()] == [1]
    assert "worker 0 is back and gets its weights with the next version" in caplog.text
    assert not workers.publisher.sends()
    workers.publish(weights, 19)
    assert workers.crew.is_whole() and workers.publisher.sends()
    workers.publish(weights, 20)
    assert tokens(by_id(workers.sample(make_requests("a")))) == wanted


def test_weights_arrive_in_flight(workers: Workers, weights, wanted):
    workers.publish(weights, 21)
    assert workers.publisher.sends()
    assert versions(published_in_the_middle(workers, weights, 22)) == {21, 22}


def test_when_nobody_is_left_who_has_them_it_says_so(workers: Workers, weights, wanted):
    workers.publish(weights, 30)
    killed = pids(workers)
    with pytest.raises(EngineError, match="version 30 went past the hosts' memory: --resume"):
        for index, _ in enumerate(workers.sample(make_requests("e", max_tokens=100))):
            for pid in killed if index == 0 else ():
                os.kill(pid, signal.SIGKILL)


def test_what_never_ends_is_left_to_itself():
    assert within(5, lambda: 3) == 3
    with pytest.raises(TimeoutError, match=r"trainer and workers have not met in 0\.05 s"):
        within(0.05, threading.Event().wait)
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 / 0)

    def late() -> None:
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        within(5, late)


@pytest.mark.parametrize(
    ("given", "cuda", "whole", "way"),
    [
        (Ray(num_workers=2), True, True, "nccl"),
        (Ray(num_workers=1), True, True, "host"),  # its death would end the run
        (Ray(num_workers=1, transfer="nccl"), True, True, "nccl"),
        (Ray(num_workers=2), True, False, "host"),
        (Ray(num_workers=2, gpus=0.5), True, True, "host"),
        (Ray(num_workers=2), False, True, "host"),
        (Ray(num_workers=2, transfer="gloo"), False, True, "gloo"),
        (Ray(num_workers=2, transfer="host"), True, True, "host"),
    ],
)
def test_the_way_fits_the_devices(given: Ray, cuda: bool, whole: bool, way: str):
    assert transfer_of(given, cuda=cuda, whole=whole) == way


@pytest.mark.parametrize(
    ("given", "cuda", "told"),
    [
        (Ray(transfer="nccl"), False, "between whole GPUs, and workers have CPUs: choose host"),
        (Ray(transfer="nccl", gpus=0.5), True, "and workers have 0.5 GPUs each: choose host"),
        (Ray(transfer="gloo"), True, "and workers have GPUs: choose nccl or host"),
    ],
)
def test_a_way_that_is_not_there_is_refused(given: Ray, cuda: bool, told: str):
    with pytest.raises(ValueError, match=told):
        transfer_of(given, cuda=cuda, whole=True)
