"""When a run should end early: Ctrl-C, SIGTERM, or a time limit for batch queues."""

import os
import re
import signal
import time
from types import FrameType, TracebackType

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


class Stopper:
    """Remembers that a stop was asked for; a second signal stops at once (nothing is lost by it)."""

    def __init__(self, stop_after: str | None):
        """`stop_after` such as 3h50m; counted from now. Raises ValueError if it is no duration."""
        seconds = float("inf")
        if stop_after is not None:
            seconds = parse_duration(stop_after, "stop_after")
        self._deadline = time.monotonic() + seconds
        self._signalled = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Stopper":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def asked(self) -> bool:
        """True once the run should end at its next consistent point."""
        return self._signalled or time.monotonic() >= self._deadline

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            raise KeyboardInterrupt
        self._signalled = True
        # Not print: the signal may have come in the middle of another one.
        os.write(2, b"stopping after this round; again to stop at once\n")


def parse_duration(text: str, name: str = "the duration") -> float:
    """Seconds of "3h50m", "90s" or "2h". Raises ValueError for anything else, with the field's name."""
    match = _DURATION.fullmatch(text.strip())
    if not match or not any(match.groups()):
        raise ValueError(f"{name} is {text!r}: write it as hours, minutes, seconds, like 3h50m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(hours * 3600 + minutes * 60 + seconds)
