"""The inside of a scoring process: grade what is sent, one item at a time, until told to end.

Started by rewards/supervisor.py with its descriptor, its parent's number and its memory in bytes
as arguments; never imports torch unless the reward itself does.
"""

import ctypes
import json
import os
import pickle
import resource
import signal
import socket
import sys
import traceback
from typing import Any

from rewards.adapters import AdaptedReward
from rewards.channel import Channel, ChannelClosedError

PR_SET_PDEATHSIG = 1
MAX_MESSAGE = 300
"""Characters of an exception's message that are sent on."""


def main() -> None:
    """Serve one parent until it closes its end or dies."""
    descriptor, parent, memory_bytes = (int(word) for word in sys.argv[1:4])
    end_with(parent)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channel = Channel(socket.socket(fileno=descriptor))
    try:
        serve(channel)
    except ChannelClosedError:
        return


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, however busy this one is."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was asked
        sys.exit()


def serve(channel: Channel) -> None:
    """Load the reward, then answer each item with its scores or with what went wrong."""
    try:
        reward: AdaptedReward = pickle.loads(channel.receive())
    except ChannelClosedError:
        raise
    except Exception as error:  # noqa: BLE001  the boundary: it imports anyone's code
        channel.send(_encoded({"raised": _described(error)}))
        return
    channel.send(_encoded({"ready": True}))
    while True:
        problem, responses = pickle.loads(channel.receive())
        answer = _answer(reward, problem, responses)
        channel.send(_encoded(answer))
        if "died" in answer:
            return


def _answer(reward: AdaptedReward, problem: Any, responses: Any) -> dict[str, Any]:
    try:
        scores = reward.score(problem, responses)
        return {
            "scores": [
                {
                    "value": float(score.value),
                    "verdict": str(score.verdict),
                    "parts": {str(name): float(part) for name, part in score.parts.items()},
                }
                for score in scores
            ]
        }
    except MemoryError:
        return {"died": "ran out of memory"}
    except Exception as error:  # noqa: BLE001  the boundary: a reward is anyone's code
        return {"raised": _described(error)}


def _described(error: Exception) -> str:
    """The exception with the place in the reward's own code that raised it."""
    place = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(place[-1].filename)}, line {place[-1].lineno})" if place else ""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001  its __str__ is anyone's code too
        message = ""
    return f"{type(error).__name__}: {message[:MAX_MESSAGE]}{where}"


def _encoded(answer: dict[str, Any]) -> bytes:
    """JSON, so that nothing from here is ever unpickled by the trainer."""
    return json.dumps(answer).encode()
