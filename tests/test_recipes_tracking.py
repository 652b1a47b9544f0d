"""Trackers: what they are told is what metrics.jsonl holds, here and after a resume; no network."""

import importlib.util
import json
import logging
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from recipes import tracking
from recipes.cli import read_config, split_command
from recipes.config import differences, from_yaml, to_yaml
from recipes.preflight import check_config
from recipes.presets import PRESETS, quickstart
from recipes.tracking import TrackConfig, Tracking, numbers

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


def test_wandb_is_told_nothing_twice_after_a_resume(tmp_path, monkeypatch):
    tracker, ids = Kept(), []

    def start(place: tracking.Place) -> Kept:
        ids.append(place.run_id)
        return tracker

    monkeypatch.setitem(tracking.START, "wandb", start)
    before = track(tmp_path, "wandb")
    before.begin(0)
    for index in range(5):
        before.round(line(index, float(index)))
    with track(tmp_path, "wandb") as after:
        after.begin(3)
        for index in (3, 4, 5):
            after.round(line(index, 9.0))
    assert tracker.told == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 9.0)]
    assert len(set(ids)) == 1


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


# Tells a tracker of three rounds, where Python can reach nobody but this machine's own sockets.
TELL = """
import json, socket, sys
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
from recipes.tracking import TrackConfig, Tracking
class Report:
    def phase(self, name): pass
    def round(self, metrics): pass
folder, name = Path(sys.argv[1]), sys.argv[2]
with Tracking(TrackConfig(to=(name,)), folder, {"train": {"seed": 0}}, Report(), is_first=True) as t:
    t.begin(0)
    for index in range(3):
        t.round({"round": index, "reward/mean": index / 3, "note": "text", "bad": float("nan")})
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


def tell(folder: Path, name: str, address: str) -> subprocess.CompletedProcess:
    """In a process of its own, with an account and servers in its environment."""
    folder.mkdir()
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
    done = subprocess.run(
        [sys.executable, "-c", TELL, str(folder), name],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | proxies | accounts,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done


@needs("wandb")
def test_wandb_is_offline_though_the_environment_says_otherwise(tmp_path, listener):
    address, callers = listener
    done = tell(tmp_path / "run", "wandb", address)
    (kept,) = (tmp_path / "run" / "track" / "wandb").glob("offline-run-*")
    assert next(iter(kept.glob("*.wandb"))).stat().st_size > 0
    assert done.stdout == ""
    assert "CONNECTS" not in done.stderr
    assert "ASKS" not in done.stderr
    assert callers == []


@needs("trackio")
def test_trackio_is_local_though_the_environment_names_a_space(tmp_path, listener):
    address, callers = listener
    done = tell(tmp_path / "run", "trackio", address)
    file = tmp_path / "run" / "track" / "trackio" / "groupwise.db"
    with sqlite3.connect(file) as data:
        rows = data.execute("select step, metrics from metrics order by step").fetchall()
    found = [(step, json.loads(metrics)) for step, metrics in rows]
    assert found == [
        (index, {"round": index, "reward/mean": pytest.approx(index / 3)}) for index in range(3)
    ]
    assert done.stdout == ""
    assert "CONNECTS" not in done.stderr
    assert "ASKS" not in done.stderr
    assert callers == []
