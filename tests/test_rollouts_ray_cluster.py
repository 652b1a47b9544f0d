"""Addresses and machines that cannot serve a run: one line and exit code 2, and soon."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from recipes.cli import guarded, start
from rollouts import ray_cluster
from rollouts.placement import Ray
from rollouts.ray_cluster import check_room, start_ray
from rollouts.worker import model_digest

ROOT = Path(__file__).resolve().parent.parent
SOON_S = 30.0


@contextmanager
def listening(says: bytes | None) -> Iterator[str]:
    """The address of a socket that accepts, and says this and nothing else."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def answer() -> None:
            while True:
                try:
                    there, _ = server.accept()
                except OSError:  # the server is closed
                    return
                held.append(there)
                if says is not None:
                    there.sendall(says)

        threading.Thread(target=answer, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        for there in held:
            there.close()


def refusal(address: str) -> str:
    with pytest.raises(ValueError) as caught:
        start_ray(Ray(address=address, cores=1))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_listener_that_never_answers_is_no_ray(monkeypatch: pytest.MonkeyPatch):
    """Ray itself was still trying after three minutes."""
    monkeypatch.setattr(ray_cluster, "CONNECT_S", 0.5)
    began = time.monotonic()
    with listening(None) as address:
        assert refusal(address) == (
            f"no Ray answers at rollouts.address {address} (timed out): start one there by ray start "
            "--head, or leave the address out"
        )
    assert time.monotonic() - began < SOON_S


@pytest.mark.parametrize("says", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 400 Bad Request\r\n"])
def test_another_server_is_no_ray(says: bytes):
    with listening(says) as address:
        assert f"what listens there is no Ray, it says {says[:9]!r}" in refusal(address)


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:70000", "ray://head:6379"])
def test_an_address_is_a_host_and_a_port(address: str):
    assert refusal(address) == f"rollouts.address is {address!r}; HOST:PORT of Ray's head, or auto"


def test_a_recipe_ends_with_code_2(
    tiny_model: Path, tmp_path: Path, monkeypatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(ray_cluster, "CONNECT_S", 0.5)
    words = ["r1_zero_tiny", "--model", str(tiny_model), "--run-folder", str(tmp_path / "run")]
    with listening(None) as address:
        words += ["rollouts:ray", "--rollouts.address", address, "--rollouts.cores", "1"]
        assert guarded(lambda: start("r1_zero", "r1_zero_tiny", words)) == 2
    assert capfd.readouterr().err.startswith(f"error: no Ray answers at rollouts.address {address}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("placement", "there", "told"),
    [
        (Ray(num_workers=3, cores=4), [8.0], "3 with 4 CPUs each, and Ray has 8 in all: at most 2 fit. Lower rollouts.num_workers or rollouts.cores"),
        (Ray(num_workers=3, cores=1), [2.0], "3 with 1 CPUs each, and Ray has 2 in all: at most 2 fit. Lower rollouts.num_workers"),
        (Ray(num_workers=1, cores=2), [], "1 with 2 CPUs each, and Ray has 0 in all: none fits. Lower rollouts.cores"),
        (Ray(num_workers=1, cores=1), [0.0], "1 with 1 CPUs each, and Ray has 0 in all: none fits. Start Ray with more CPUs"),
        (Ray(num_workers=2, cores=4), [6.0, 3.0], "2 with 4 CPUs each, and Ray has 9 in all, on one machine 6 at most: at most 1 fit. Lower rollouts.num_workers or rollouts.cores"),
    ],
)  # fmt: skip
def test_more_workers_than_there_is_room_for(placement: Ray, there: list[float], told: str):
    with pytest.raises(ValueError) as caught:
        check_room(placement, [{"CPU": cores} for cores in there])
    assert str(caught.value) == f"rollouts.num_workers is {told}"


def test_a_worker_of_several_processes_is_on_one_machine():
    placement = Ray(num_workers=2, cores=2)
    check_room(placement, [{"CPU": 8.0}, {"CPU": 9.0}], processes=4)
    with pytest.raises(ValueError) as caught:
        check_room(placement, [{"CPU": 8.0}, {"CPU": 7.0}], processes=4)
    assert str(caught.value) == (
        "rollouts.num_workers is 2 with 8 CPUs each, and Ray has 15 in all, on one machine 8 at most: "
        "at most 1 fit. Lower rollouts.num_workers or rollouts.cores or engine.tensor_parallel"
    )


def test_on_a_cluster_of_cpus_cores_are_named():
    with pytest.raises(ValueError, match=r"rollouts.cores is 0: on a cluster of CPUs say how many"):
        check_room(Ray(num_workers=2, address="auto"), [{"CPU": 8.0}])


OTHER_MODEL = """
import os
import sys
from pathlib import Path
from rollouts.sampler import EngineConfig
from rollouts.worker import Seat, Spec, Worker
digest, model, logs, told = sys.argv[1:]
seat = Seat(index=0, count=1, pid=os.getpid())
sizes = dict(config=EngineConfig(), max_tokens=8, num_requests=1, adapter=None, transfer="host")
try:
    Worker().start(3, Spec(model=Path(model), digest=digest, logs=Path(logs), **sizes), seat)
except ValueError as error:
    Path(told).write_text(str(error))
"""


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_worker_with_another_model_does_not_start(tiny_model: Path, tmp_path: Path, name: str):
    """In a process of its own, for a worker sends what it prints to a file."""
    other = tmp_path / "other"
    other.mkdir()
    for file in tiny_model.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    digest = model_digest(tiny_model)
    assert model_digest(other) == digest
    (other / "model.safetensors").write_bytes(b"")  # weights are published and proved anyway
    assert model_digest(other) == digest
    (other / name).write_text((other / name).read_text() + "\n")
    told = tmp_path / "told"
    command = [sys.executable, "-c", OTHER_MODEL, digest, other, tmp_path / "logs", told]
    subprocess.run(command, cwd=ROOT, check=True, timeout=SOON_S)
    assert told.read_text() == (
        f"worker 3 on {os.uname().nodename} has another model or tokenizer in {other} "
        f"({model_digest(other)[:12]}, the trainer's is {digest[:12]}): copy the trainer's"
    )


HEAD = """
import ray
there = ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
print(there.address_info["gcs_address"], ray.nodes()[0]["NodeManagerPort"], flush=True)
input()
"""
JOIN = """
import ray, sys
ray.__version__ = sys.argv.pop(1) or ray.__version__
from recipes.cli import main
main("r1_zero", "r1_zero_tiny", "r1_zero")
"""


@dataclass(frozen=True)
class Head:
    """A Ray of another process, which ends with it."""

    address: str
    other_port: str


@contextmanager
def head(home: Path, mode: str) -> Iterator[Head]:
    environ = os.environ | {
        "HOME": str(home),
        "RAY_AUTH_MODE": mode,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        address, port = process.stdout.readline().split()
        yield Head(address, f"{address.rpartition(':')[0]}:{port}")
    finally:
        process.communicate("\n")


def joined(model: Path, address: str, home: Path, mode: str, *more: str, version: str = "") -> str:
    """The last line of a recipe that cannot join, after exit code 2 and in less than 30 seconds."""
    environ = os.environ | {"HOME": str(home), "RAY_AUTH_MODE": mode, "PYTHONPATH": str(ROOT)}
    words = ["r1_zero_tiny", "--model", model, "rollouts:ray", "--rollouts.address", address]
    done = subprocess.run(
        [sys.executable, "-c", JOIN, version, *words, "--rollouts.cores", "1", *more],
        env=environ,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=SOON_S,
    )
    assert done.returncode == 2, done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_ray_that_is_not_ours_to_join(tiny_model: Path, tmp_path: Path):
    with head(tmp_path, "disabled") as there:
        line = joined(tiny_model, there.address, tmp_path, "disabled", version="2.1.0")
        assert "Version mismatch: The cluster was started with: Ray: 2" in line
        assert "was started with: Ray: 2.1.0" in line
        line = joined(tiny_model, there.other_port, tmp_path, "disabled")
        assert line.startswith(
            f"error: no Ray head is at rollouts.address {there.other_port}: give"
        )
        more = ("--rollouts.num-workers", "2")
        line = joined(tiny_model, there.address, tmp_path, "disabled", *more)
        assert line.startswith(
            "error: rollouts.num_workers is 2 with 1 CPUs each, and Ray has 1 in"
        )


@pytest.mark.slow
def test_a_ray_that_wants_its_token(tiny_model: Path, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    with head(tmp_path, "token") as there:
        assert (tmp_path / ".ray" / "auth_token").stat().st_size
        for home, mode in ((tmp_path, "disabled"), (other, "token")):
            line = joined(tiny_model, there.address, home, mode)
            assert line.startswith(
                f"error: the Ray at rollouts.address {there.address} does not take"
            )
        more = ("--rollouts.num-workers", "2")
        line = joined(tiny_model, there.address, tmp_path, "token", *more)
        assert line.startswith("error: rollouts.num_workers is 2")


def test_the_trainers_have_the_first_gpus_and_workers_the_others():
    assert ray_cluster.gpus_left({"LOCAL_WORLD_SIZE": "2"}, 4) == ["2", "3"]
    assert ray_cluster.gpus_left({}, 2) == ["1"]
    assert ray_cluster.gpus_left({"CUDA_VISIBLE_DEVICES": "4,6,7"}, 8) == ["6", "7"]
    assert ray_cluster.gpus_left({"LOCAL_WORLD_SIZE": "8"}, 8) == []
