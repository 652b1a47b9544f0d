"""Trackers: what they are told is what metrics.jsonl holds, here and after a resume; no network."""

import importlib.util
import json
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recipes import tracking
from recipes.cli import read_config, split_command
from recipes.config import differences, from_yaml, to_yaml
from recipes.preflight import check_config
from recipes.presets import PRESETS, quickstart
from recipes.tracking import TrackConfig, Tracking, numbers, tracking_fault

ROOT = Path(__file__).resolve().parent.parent


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs {name}")


class Heard:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.rounds: list[dict[str, float]] = []

    def phase(self, name: str) -> None:
        pass

    def round(self, metrics: dict[str, float]) -> None:
        self.rounds.append(metrics)


def line(index: int, reward: float) -> dict[str, float]:
    return {"round": index, "updates": 2 * index, "reward/mean": reward, "time/round_s": reward / 7}


def write_metrics(folder: Path, *lines: dict[str, float]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in lines)
    (folder / "metrics.jsonl").write_text(text)


def track(folder: Path, *names: str, is_first: bool = True) -> Tracking:
    values = {"train": {"seed": 0}}
    return Tracking(TrackConfig(to=names), folder, values, Heard(), is_first=is_first)


def tensorboard_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """By TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "track" / "tensorboard"))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def logged_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Of metrics.jsonl; event files hold 32 bits."""
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    names = sorted({name for row in rows for name in row})
    return {
        name: [(row["round"], pytest.approx(row[name], rel=1e-6)) for row in rows if name in row]
        for name in names
    }


def test_only_finite_numbers_are_handed_on():
    metrics = {"a": 1, "b": 0.5, "c": "text", "d": None, "e": float("nan"), "f": float("inf")}
    assert numbers(metrics | {"g": True, "h": [1]}) == {"a": 1, "b": 0.5}


@needs("tensorboard")
def test_tensorboard_holds_what_metrics_jsonl_holds(tmp_path):
    lines = [line(0, 0.1), line(1, 1 / 3) | {"eval/pass_at_1": 0.25}, line(2, 0.7)]
    report = track(tmp_path, "tensorboard")
    with report:
        report.begin(0)
        for row in lines:
            report.round(row | {"note": "text", "bad": float("nan")})
    write_metrics(tmp_path, *lines)
    assert tensorboard_curves(tmp_path) == logged_curves(tmp_path)


@needs("tensorboard")
def test_a_resumed_run_repeats_no_round(tmp_path):
    """Killed after round 4 with a checkpoint after round 2: rounds 3 and 4 are trained again."""
    before = track(tmp_path, "tensorboard")
    before.begin(0)
    for index in range(5):
        before.round(line(index, 0.1 * index))
    write_metrics(tmp_path, *[line(index, 0.1 * index) for index in range(3)])
    again = [line(3, 7.0), line(4, 8.0), line(5, 9.0)]
    with track(tmp_path, "tensorboard") as after:
        after.begin(3)
        for row in again:
            after.round(row)
    write_metrics(tmp_path, *[line(index, 0.1 * index) for index in range(3)], *again)
    found = tensorboard_curves(tmp_path)
    assert [step for step, _ in found["reward/mean"]] == [0, 1, 2, 3, 4, 5]
    assert found == logged_curves(tmp_path)


@needs("tensorboard")
def test_a_tracker_that_comes_late_is_told_what_it_missed(tmp_path):
    write_metrics(tmp_path, line(0, 0.5), line(1, 0.6))
    with track(tmp_path, "tensorboard") as report:
        report.begin(2)
        report.round(line(2, 0.7))
    write_metrics(tmp_path, line(0, 0.5), line(1, 0.6), line(2, 0.7))
    assert tensorboard_curves(tmp_path) == logged_curves(tmp_path)


class Kept:
    """A tracker that keeps what it is told, or breaks at a round."""

    def __init__(self, breaks_at: int = -1) -> None:
        self.told: list[tuple[int, float]] = []
        self.breaks_at = breaks_at

    def log(self, values: dict[str, float], step: int, **more: object) -> None:
        if step == self.breaks_at:
            raise OSError("no room")
        self.told.append((step, values["reward/mean"]))

    def finish(self) -> None:
        if self.breaks_at < -1:
            raise OSError("gone")


def test_a_tracker_that_fails_warns_once_and_the_rest_goes_on(tmp_path, monkeypatch, caplog):
    broken, sound = Kept(breaks_at=1), Kept()
    monkeypatch.setitem(tracking.START, "wandb", lambda place: broken)
    monkeypatch.setitem(tracking.START, "trackio", lambda place: sound)
    report = track(tmp_path, "wandb", "trackio")
    with caplog.at_level(logging.WARNING), report:
        report.begin(0)
        for index in range(4):
            report.round(line(index, 0.5))
    assert [step for step, _ in broken.told] == [0]
    assert [step for step, _ in sound.told] == [0, 1, 2, 3]
    assert [record.getMessage() for record in caplog.records] == [
        "track.to wandb failed at round 1 (OSError: no room) and is told nothing more; "
        "training goes on"
    ]
    assert len(report._report.rounds) == 4


def test_one_that_fails_at_the_end_does_not_hide_how_the_run_ended(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(tracking.START, "wandb", lambda place: Kept(breaks_at=-2))
    report = track(tmp_path, "wandb")
    with pytest.raises(KeyError, match="the run's own"), report:
        report.begin(0)
        raise KeyError("the run's own")
    assert "failed at the end (OSError: gone)" in caplog.text


def test_one_that_does_not_start_is_refused(tmp_path, monkeypatch):
    def start(place: tracking.Place) -> None:
        raise RuntimeError("not logged in")

    monkeypatch.setitem(tracking.START, "wandb", start)
    message = r"track\.to wandb does not start \(RuntimeError: not logged in\): mend it, or leave"
    with pytest.raises(ValueError, match=message):
        track(tmp_path, "wandb").begin(0)


def test_only_the_first_process_tells_anybody(tmp_path):
    with track(tmp_path, "tensorboard", is_first=False) as report:
        report.begin(0)
        report.round(line(0, 0.5))
    assert list(tmp_path.iterdir()) == []
    assert report._report.rounds == [line(0, 0.5)]


def test_nothing_is_written_unless_it_is_asked_for(tmp_path):
    assert all(preset().track.to == () for preset in PRESETS.values())
    with track(tmp_path) as report:
        report.begin(0)
        report.round(line(0, 0.5))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_refused_before_anything_heavy_loads(monkeypatch):
    config = replace(quickstart(), track=TrackConfig(to=("wandb", "trackio")))
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    message = (
        r"track\.to names wandb and trackio, not installed here: pip install -e '\.\[trackers\]'"
    )
    with pytest.raises(ValueError, match=message):
        check_config(config)


def test_a_folder_of_the_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "wandbee").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert "names wandbee, not installed" in tracking_fault(TrackConfig(to=("wandbee",)))


def test_it_is_a_field_like_any_other_and_may_change_on_resume():
    words = ["--track.to", "tensorboard", "wandb", "--track.project", "mine", "--track.online"]
    config = read_config(split_command(words, "quickstart", "quickstart", list(PRESETS)))
    assert config.track == TrackConfig(to=("tensorboard", "wandb"), project="mine", online=True)
    assert from_yaml(to_yaml(config), "config.yaml").track == config.track
    assert differences(config, quickstart()) == []
    with pytest.raises(ValueError, match="tensorbord"):
        read_config(
            split_command(["--track.to", "tensorbord"], "quickstart", "quickstart", list(PRESETS))
        )


def kept_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What a run's folder holds of a tracker, whichever it is, by name."""
    points: dict[str, list[tuple[int, float]]] = {}
    for step, metrics in (*wandb_points(folder), *trackio_points(folder)):
        for name, value in metrics.items():
            points.setdefault(name, []).append((step, value))
    return {name: points[name] for name in sorted(points)} or tensorboard_curves(folder)


def wandb_points(folder: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, metrics) in its files, in the order in which they were begun."""
    for file in sorted(folder.glob("track/wandb/offline-run-*/*.wandb")):
        for record in wandb_records(file.read_bytes()):
            if record.WhichOneof("record_type") == "history":
                item = {i.key or "/".join(i.nested_key): i.value_json for i in record.history.item}
                told = {name: json.loads(text) for name, text in item.items() if name[0] != "_"}
                yield record.history.step.num, told


def wandb_records(data: bytes) -> Iterator[Any]:
    """LevelDB's log format: 7 bytes of header, then blocks of 32 KiB with records in parts.

    A part is checksum (4 bytes), size (2), kind (1: whole, 2: first, 3: middle, 4: last), content.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    at, parts = 7, b""
    while at + 7 <= len(data):
        if at % 32768 > 32768 - 7:
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""


def trackio_points(folder: Path) -> Iterator[tuple[int, dict[str, float]]]:
    file = folder / "track" / "trackio" / "groupwise.db"
    if file.exists():
        with sqlite3.connect(file) as data:
            rows = data.execute("select step, metrics from metrics order by id").fetchall()
        yield from ((step, json.loads(metrics)) for step, metrics in rows)


# Tells a tracker of rounds, where Python can reach nobody but this machine's own sockets.
TELL = """
import os, signal, socket, sys, time
from pathlib import Path
real = socket.socket.connect
def connect(self, address):
    if self.family != socket.AF_UNIX:
        print("CONNECTS TO", address, file=sys.stderr)
        raise OSError("no network here")
    return real(self, address)
def resolve(*names, **more):
    print("ASKS FOR", names, file=sys.stderr)
    raise OSError("no network here")
socket.socket.connect, socket.getaddrinfo = connect, resolve
sys.modules["openai"] = socket  # as with vLLM: wandb would advertise
from recipes.tracking import TrackConfig, Tracking
class Report:
    def phase(self, name): pass
    def round(self, metrics): pass
folder, name, first, end, how = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:5]), sys.argv[5]
with Tracking(TrackConfig(to=(name,)), folder, {"train": {"seed": 0}}, Report(), is_first=True) as t:
    t.begin(first)
    for index in range(first, end):
        t.round({"round": index, "reward/mean": index / 3, "note": "text", "bad": float("nan")})
        if how == "lose wandb" and index == first:
            (core,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            os.kill(int(core), signal.SIGKILL)
            time.sleep(1)
    if how == "killed":
        time.sleep(2)  # a round takes longer
        os.kill(os.getpid(), signal.SIGKILL)
print("to the end")
"""


@pytest.fixture
def listener() -> Iterator[tuple[str, list[object]]]:
    """An address that stands for the whole internet, and who called there."""
    callers: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, caller = server.accept()
                except OSError:
                    return
                callers.append(caller)
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", callers
        server.shutdown(socket.SHUT_RDWR)


def tell(
    folder: Path, name: str, address: str, first: int = 0, end: int = 3, how: str = ""
) -> subprocess.CompletedProcess:
    """In a process of its own, with an account and servers in its environment."""
    folder.mkdir(exist_ok=True)
    proxies = {f"{kind}_PROXY": address for kind in ("HTTP", "HTTPS", "ALL")}
    accounts = {
        "HOME": str(folder.parent),
        "HF_TOKEN": "hf_" + "a" * 34,
        "HF_HUB_OFFLINE": "0",
        "TRACKIO_SPACE_ID": "someone/space",
        "WANDB_API_KEY": "a" * 40,
        "WANDB_BASE_URL": address,
        "WANDB_MODE": "online",
    }
    return subprocess.run(
        [sys.executable, "-c", TELL, str(folder), name, str(first), str(end), how],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | proxies | accounts,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


TRACKERS = [pytest.param(name, marks=needs(name)) for name in ("tensorboard", "wandb", "trackio")]


@pytest.mark.parametrize("name", TRACKERS)
def test_killed_and_resumed_it_holds_each_round_once_and_calls_nobody(tmp_path, listener, name):
    """Killed after round 4 with a checkpoint after round 2, and gone on with to round 5."""
    address, callers = listener
    folder = tmp_path / "run"
    killed = tell(folder, name, address, 0, 5, "killed")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    rows = [{"round": index, "reward/mean": index / 3} for index in range(6)]
    write_metrics(folder, *rows[:3])
    done = tell(folder, name, address, 3, 6)
    write_metrics(folder, *rows)
    assert (done.returncode, done.stdout) == (0, "to the end\n"), done.stderr
    assert kept_curves(folder) == logged_curves(folder)
    assert (killed.stdout, killed.stderr, done.stderr) == ("", "", "")
    assert callers == []


@needs("wandb")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds wandb's process in /proc")
def test_a_run_outlives_wandbs_own_process(tmp_path, listener):
    done = tell(tmp_path / "run", "wandb", listener[0], 0, 3, "lose wandb")
    assert (done.returncode, done.stdout) == (0, "to the end\n"), done.stderr
    assert "track.to wandb failed at round 1" in done.stderr
    assert "training goes on" in done.stderr
