"""TensorBoard, Weights & Biases, trackio: told what metrics.jsonl holds, under the same names.

Off unless `track.to` names them. They are accelerate's trackers, started before the first round,
so that one that cannot start is refused; one that fails later is left out with a warning. What
they need is in the run's folder, `track/`. Leaves out completions: nothing but numbers, and for
wandb and trackio the config, is handed on.
"""

import atexit
import contextlib
import io
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from uuid import uuid4

from rl.clock import Reporter
from rl.run_folder import read_metrics, write_atomically

logger = logging.getLogger(__name__)

REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID")
"""Variables that would make trackio send what it is told."""
FLUSH = {"x_transaction_log_flush_interval": 0.5}
"""Seconds until what wandb was told is in its file; its own 15 would be lost in a kill. A private
setting: where a release lacks it, a kill loses them."""


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    """Who else is told the metrics. Changes no number of a run."""

    to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """tensorboard, wandb, trackio (extra: trackers), beside metrics.jsonl; they write to the run's folder."""
    project: str = "groupwise"
    """Of wandb and trackio."""
    online: bool = False
    """Let wandb, and trackio if its variables name a server, send metrics and config over the network."""


def tracking_fault(config: TrackConfig) -> str | None:
    """What is wrong with the settings, or None."""
    # A folder of that name, such as the one that wandb leaves, has a spec too, without an origin.
    absent = [name for name in config.to if getattr(find_spec(name), "origin", None) is None]
    if absent:
        return (
            f"track.to names {' and '.join(absent)}, not installed here: "
            "pip install -e '.[trackers]', or leave it out"
        )
    if config.to and not config.project:
        return "track.project is empty: name one, such as groupwise"
    return None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and as what a tracker writes.

    Attributes:
        folder: The run's.
        run_id: The same whenever the run is taken up again, and no other run's.
        first: The first round that it will be told of.
        values: The run's config.
    """

    config: TrackConfig
    folder: Path
    run_id: str
    first: int
    values: Mapping[str, Any]


class Tracking:
    """A reporter that tells another one, and the trackers of a run, too. Use it in a `with`."""

    def __init__(
        self,
        config: TrackConfig,
        folder: Path,
        values: Mapping[str, Any],
        report: Reporter,
        *,
        is_first: bool,
    ):
        """`values` is the run's whole config; only the first of several processes tells trackers."""
        self._config, self._folder, self._values, self._report = config, folder, values, report
        self._names = tuple(dict.fromkeys(config.to)) if is_first else ()
        self._trackers: dict[str, Any] = {}
        self._state: dict[str, Any] = {}

    def begin(self, round_index: int) -> None:
        """Start the trackers, where `round_index` is the first round to come.

        What they missed of the rounds before is told now. Of rounds that will be trained again,
        TensorBoard forgets what it was told, and the others are told nothing again.

        Raises:
            ValueError: One does not start.
        """
        if not self._names:
            return
        file = self._folder / "track" / "state.json"
        file.parent.mkdir(exist_ok=True)
        known = json.loads(file.read_text()) if file.exists() else {}
        self._state = {"id": known.get("id") or uuid4().hex[:8], "next": known.get("next", {})}
        rows = read_metrics(self._folder / "metrics.jsonl")
        for name in self._names:
            first = self._state["next"].get(name, 0)
            if name == "tensorboard":
                first = min(first, round_index)
                self._state["next"][name] = first
            place = Place(
                config=self._config,
                folder=self._folder,
                run_id=self._state["id"],
                first=first,
                values=self._values,
            )
            try:
                self._trackers[name] = START[name](place)
            except Exception as error:
                raise ValueError(
                    f"track.to {name} does not start ({type(error).__name__}: {error}): mend it, or "
                    "leave it out"
                ) from error
            for row in rows:
                self._tell(name, row)

    def phase(self, name: str) -> None:
        """Hand it on; trackers are not told."""
        self._report.phase(name)

    def round(self, metrics: dict[str, float]) -> None:
        """Hand a line of metrics.jsonl on."""
        self._report.round(metrics)
        for name in list(self._trackers):
            self._tell(name, metrics)

    def __enter__(self) -> "Tracking":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._trackers):
            with self._left_out_if_it_fails(name, "at the end"), _silent():
                self._trackers[name].finish()

    def _tell(self, name: str, metrics: Mapping[str, Any]) -> None:
        """The numbers of a round, unless it was told of that round before."""
        index = int(metrics["round"])
        if name not in self._trackers or index < self._state["next"].get(name, 0):
            return
        with self._left_out_if_it_fails(name, f"at round {index}"):
            # Before it is told: a kill within a second costs a point, and never repeats one.
            self._state["next"][name] = index + 1
            text = json.dumps(self._state) + "\n"
            write_atomically(self._folder / "track" / "state.json", text.encode())
            more = {"commit": True} if name == "wandb" else {}
            self._trackers[name].log(numbers(metrics), step=index, **more)

    @contextmanager
    def _left_out_if_it_fails(self, name: str, when: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  the boundary: a tracker is anyone's code
            self._trackers.pop(name, None)
            logger.warning(
                "track.to %s failed %s (%s: %s) and is told nothing more; training goes on",
                name,
                when,
                type(error).__name__,
                error,
            )


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """What of a line is a finite number."""
    return {
        name: value
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _start_tensorboard(place: Place) -> Any:
    """What it was told of `first` and later rounds is void: they are told again."""
    from accelerate.tracking import TensorBoardTracker

    purge = {"purge_step": place.first} if (place.folder / "track" / "tensorboard").exists() else {}
    return _started(TensorBoardTracker("tensorboard", place.folder / "track", **purge))


def _start_wandb(place: Place) -> Any:
    """Without copies of the terminal, the code or the machine's state; offline unless asked."""
    online = place.config.online
    if not online:
        os.environ["WANDB_ERROR_REPORTING"] = "false"  # its own faults would be sent, else
        os.environ["WANDB_SILENT"] = "true"  # read as it is imported; or it advertises
    import wandb
    from accelerate.tracking import WandBTracker

    settings = wandb.Settings(
        console="off",
        disable_git=True,
        save_code=False,
        x_disable_stats=True,
        x_disable_meta=True,
        x_save_requirements=False,
        **{name: value for name, value in FLUSH.items() if name in wandb.Settings.model_fields},
    )
    return _started(
        WandBTracker(
            place.config.project,
            id=place.run_id,
            name=place.folder.name,
            dir=str(place.folder / "track"),
            mode="online" if online else "offline",
            resume="allow" if online else None,
            config=dict(place.values),
            settings=settings,
        )
    )


def _start_trackio(place: Place) -> Any:
    """Into TRACKIO_DIR if that is set, to see several runs in one dashboard, else the run's folder."""
    os.environ.setdefault("TRACKIO_DIR", str(place.folder.absolute() / "track" / "trackio"))
    import trackio
    from accelerate.tracking import TrackioTracker

    tracker = TrackioTracker(
        place.config.project,
        name=f"{place.folder.name}-{place.run_id}",
        config=dict(place.values),
        resume="allow",
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    with contextlib.nullcontext() if place.config.online else _local_trackio():
        started = _started(tracker)
    # The run is finished by us; trackio would do it again, aloud, when Python ends.
    atexit.unregister(getattr(trackio, "_cleanup_current_run", None))
    return started


START: dict[str, Callable[[Place], Any]] = {
    "tensorboard": _start_tensorboard,
    "wandb": _start_wandb,
    "trackio": _start_trackio,
}


def _started(tracker: Any) -> Any:
    """accelerate's trackers want its state to be there."""
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available())
    with _silent():
        tracker.start()
    return tracker


@contextmanager
def _local_trackio() -> Iterator[None]:
    """trackio would send to a server that the environment names, and ask the hub for one's name."""
    from huggingface_hub import constants

    kept = {name: os.environ.pop(name) for name in REMOTE if name in os.environ}
    offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        os.environ.update(kept)


def _silent() -> Any:
    """What trackers print does not mix with the run's own lines."""
    return redirect_stdout(io.StringIO())
