"""One scoring process and its successors: a hard deadline, and what a failure means.

A process that dies costs the item it was working on, at most. The rule for verdicts stands in
`Supervisor.grade`. Leaves out queues and futures (rewards/pool.py).
"""

import contextlib
import json
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import Lock
from typing import Any

from rewards.channel import Channel, ChannelClosedError
from rewards.problem import Problem, Response, Score, Verdict

logger = logging.getLogger(__name__)

START_S = 60.0
"""A process must have imported its reward by then."""
MAX_ANSWER_BYTES = 1 << 20
START = """
import json, sys
sys.path += [folder for folder in json.loads(sys.argv[4]) if folder not in sys.path]
from rewards.worker import main
main()
"""
"""Finds what the trainer finds. Its folders come last: a library may have put one there that
would hide the standard library."""


class PoolClosedError(RuntimeError):
    """The pool was closed while an item was being scored."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Scores, or the reason why there are none.

    Attributes:
        scores: One a response; empty after a failure.
        failure: What went wrong, "" if nothing did.
        died: True if the process was lost, by a crash, the deadline or its memory limit.
        settled: True if the reward itself gave the scores, so that they may be kept.
        seconds: Of the last try.
    """

    scores: list[Score]
    failure: str = ""
    died: bool = False
    settled: bool = False
    seconds: float = 0.0

    @property
    def is_ours(self) -> bool:
        """True if some response was not graded, by our own fault."""
        return not self.scores or any(score.verdict.is_ours for score in self.scores)


class Supervisor:
    """Grades in a process of its own, replaced when it dies. Used by one thread, closed by any."""

    def __init__(self, reward: bytes, *, deadline_s: float, memory_bytes: int):
        """`reward` is a pickled AdaptedReward; `deadline_s` is for each response."""
        self._reward = reward
        self._deadline_s = deadline_s
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen | None = None
        self._channel: Channel | None = None
        self._lock = Lock()
        self._closed = False

    def start(self) -> None:
        """Have a process that has loaded the reward; nothing to do if there is one.

        Raises ValueError if the reward cannot be loaded in it.
        """
        if self._process is not None:
            return
        self._launch()
        deadline = time.monotonic() + START_S
        try:
            self._channel.send(self._reward, deadline)
            answer = self._answer(deadline)
        except (ChannelClosedError, TimeoutError) as error:
            reason = self._ended(error)
            raise ValueError(
                f"a scoring process {reason} while it loaded the reward; is scoring.memory_gib "
                f"({self._memory_bytes / 2**30:g}) enough?"
            ) from error
        if "raised" in answer:
            self.stop()
            raise ValueError(
                f"the reward cannot be loaded in a scoring process: {answer['raised']}; define it "
                "at the top level of a module that can be imported"
            )

    def attempt(self, problem: Problem, responses: Sequence[Response]) -> Outcome:
        """One try, in the process there is or else a fresh one."""
        try:
            self.start()
        except ValueError as error:
            return Outcome(scores=[], failure=str(error))
        began = time.monotonic()
        outcome = self._ask(problem, responses, began + self._deadline_s * len(responses))
        return replace(outcome, seconds=time.monotonic() - began)

    def grade(self, problem: Problem, responses: Sequence[Response]) -> Outcome:
        """Scores for all responses, whatever the reward does.

        A failure of ours gets one second try in a fresh process and is grader_error then, which
        leaves the batch. Only a reward that died on these very responses twice, and in between
        graded the problem's own reference answer, was broken by the policy: 0, malformed, so that
        breaking the grader pays nothing.

        Raises PoolClosedError if the pool is closed meanwhile.
        """
        first = self.attempt(problem, responses)
        if not first.is_ours:
            return first
        self.stop()
        sound = first.died and not self.attempt(problem, [control(problem)]).is_ours
        second = self.attempt(problem, responses)
        if second.scores:
            return second
        failure = second.failure or first.failure
        if not (sound and second.died):
            _log_once(f"a reward failed twice and its score is left out: it {failure}", problem.id)
            return replace(second, scores=_all(responses, Verdict.GRADER_ERROR))
        if len(responses) > 1:
            return self._without_culprits(problem, responses)
        _log_once(f"a response broke the reward twice and scores 0: it {failure}", problem.id)
        return replace(second, scores=_all(responses, Verdict.MALFORMED))

    def stop(self) -> None:
        """End the process with all that it started, and wait for it."""
        with self._lock:
            process, channel = self._process, self._channel
            self._process = self._channel = None
        if process is None:
            return
        _kill(process)
        channel.close()

    def close(self) -> None:
        """End for good: whoever waits for a score gets PoolClosedError."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                _kill(self._process)

    def _launch(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            if self._closed:
                ours.close()
                raise PoolClosedError("the reward pool is closed")
            words = [theirs.fileno(), os.getpid(), self._memory_bytes, json.dumps(sys.path)]
            self._channel = Channel(ours)
            self._process = subprocess.Popen(
                [sys.executable, "-c", START, *map(str, words)],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a reward prints does not mix with the run's own lines
                env=_environment(),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for the trainer; a kill takes the whole group
            )

    def _ask(self, problem: Problem, responses: Sequence[Response], deadline: float) -> Outcome:
        try:
            self._channel.send(pickle.dumps((problem, tuple(responses))), deadline)
            answer = self._answer(deadline)
            if "scores" in answer:
                scores = [_score(row) for row in answer["scores"]]
                if len(scores) != len(responses):
                    raise ChannelClosedError(f"{len(scores)} scores for {len(responses)} responses")
                return Outcome(scores=scores, settled=True)
        except (ChannelClosedError, TimeoutError, TypeError, KeyError, ValueError) as error:
            return Outcome(scores=[], failure=self._ended(error), died=True)
        if "died" in answer:
            self.stop()
            return Outcome(scores=[], failure=answer["died"], died=True)
        return Outcome(scores=[], failure=f"raised {answer.get('raised')}")

    def _answer(self, deadline: float) -> dict[str, Any]:
        """The next message of the process; one that is not as it writes them counts as its end."""
        message = self._channel.receive(deadline, max_bytes=MAX_ANSWER_BYTES)
        try:
            answer = json.loads(message)
        except ValueError as error:
            raise ChannelClosedError("no JSON") from error
        if not isinstance(answer, dict):
            raise ChannelClosedError("no JSON object")
        return answer

    def _ended(self, error: Exception) -> str:
        """Put the process to rest and say how it ended."""
        process = self._process
        self.stop()
        if self._closed:
            raise PoolClosedError("the reward pool is closed") from error
        if isinstance(error, TimeoutError):
            return "ran past its deadline"
        code = process.returncode
        return f"ended with exit code {code}" if code >= 0 else f"died of signal {-code}"

    def _without_culprits(self, problem: Problem, responses: Sequence[Response]) -> Outcome:
        """A group that breaks the reward: each member alone, then the sound ones together."""
        broken = [
            self.grade(problem, [r]).scores[0].verdict is Verdict.MALFORMED for r in responses
        ]
        rest = [r for r, is_broken in zip(responses, broken, strict=True) if not is_broken]
        if len(rest) in (0, len(responses)):
            verdict = Verdict.GRADER_ERROR if rest else Verdict.MALFORMED
            return Outcome(scores=_all(responses, verdict), failure="ended for the whole group")
        graded = iter(self.grade(problem, rest).scores)
        malformed = Score(value=0.0, verdict=Verdict.MALFORMED)
        return Outcome(scores=[malformed if is_broken else next(graded) for is_broken in broken])


def control(problem: Problem) -> Response:
    """What a working reward can grade: the reference answer, given as the response."""
    return Response(text=problem.answer)


def _all(responses: Sequence[Response], verdict: Verdict) -> list[Score]:
    return [Score(value=0.0, verdict=verdict) for _ in responses]


def _score(row: dict[str, Any]) -> Score:
    return Score(value=row["value"], verdict=Verdict(row["verdict"]), parts=row["parts"])


def _kill(process: subprocess.Popen) -> None:
    if process.returncode is None:  # else it was waited for, and its number may be another's
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment() -> dict[str, str]:
    """The trainer's, with one thread, and without the libraries that it preloads for speed."""
    kept = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return kept | {"OMP_NUM_THREADS": "1"}


@lru_cache(maxsize=1024)  # bounded: a message can hold model text
def _log_once(message: str, problem_id: str) -> None:
    logger.error("problem %s: %s", problem_id, message)
