"""Unit tests of a solution, split over two sandboxes: the solution in one, the tests in another.

This process carries frames between them and keeps the clock. The evaluator (no solution's code)
lives as long as the thread that uses it; each solution has a sandbox of its own.
"""

import json
import os
import secrets
import subprocess
import threading
import time
import weakref
from dataclasses import dataclass
from typing import Any

from rewards.sandbox import Limits, find_sandbox, jailed_source
from rewards.streams import TooLong, kill, read_exactly, receive, send
from rewards.unit_tests import CallTests

MAX_REPLY_BYTES = (1 << 20) + 1
MAX_CALL_BYTES = 16 << 20
START_S = 30.0
"""For a sandbox to stand on a machine that is busy; not the program's time."""

GRACE_S = 5.0
"""For the evaluator to finish once it is told that the solution has ended."""

READY = len(b"ready").to_bytes(4, "big") + b"ready"

OUTCOMES = (b"loaded", b"syntax", b"memory", b"error")
"""What the call server says of a source that it ran."""

_of_thread = threading.local()


class SandboxFailed(RuntimeError):
    """A sandbox did not start, though one passed its probe: nobody's program is to blame."""


class EvaluationFailed(RuntimeError):
    """The tests could not be run to an end, or hand over what cannot cross to a solution."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What running a program against its tests came to.

    Example: two of three asserts hold and the third call never comes back:
    `Outcome(passed=2, total=3, failure="timeout")`.

    Attributes:
        passed: Tests passed; at most up to the first failure if it was to stop there.
        total: Tests that there are.
        failure: The first one: "" (none), "wrong", "error" (it raised), "syntax", "memory", "size", "timeout", "crash" or "protocol" (replies that
            the server inside does not write: a solution that meddles with it).
    """

    passed: int
    total: int
    failure: str


def run_calls(tests: CallTests, source: str, *, stop_early: bool) -> Outcome:
    """Run the tests against a solution, each in its sandbox.

    Raises:
        SandboxFailed: A sandbox did not start.
        EvaluationFailed: The tests themselves failed.
        SandboxUnavailable: There is none here.
    """
    process = start_jailed("call_server", tests.memory_bytes, tests.timeout_s, READY)
    try:
        solution = _Solution(process, time.monotonic() + START_S)
        given = solution.load(tests.setup)
        if given != "loaded":
            raise EvaluationFailed(f"the setup of the tests ended with {given}")
        solution.deadline = time.monotonic() + tests.timeout_s
        loaded = solution.load(source)
        if loaded != "loaded":
            return Outcome(passed=0, total=len(tests.tests), failure=loaded)
        verdict = _evaluate(_request(tests, stop_early), solution)
    finally:
        kill(process)
    failure = solution.end if verdict["failure"] == "ended" else verdict["failure"]
    return Outcome(passed=verdict["passed"], total=len(tests.tests), failure=failure)


def start_jailed(
    name: str, memory_bytes: int, timeout_s: float, greeting: bytes
) -> subprocess.Popen[bytes]:
    """Start a program of rewards/jailed and wait for its greeting.

    Raises:
        SandboxFailed: No greeting came; the message has what bubblewrap or Python said.
    """
    limits = Limits(memory_bytes=memory_bytes, cpu_s=timeout_s + 2)
    return _greeted(name, limits, greeting)


def _greeted(name: str, limits: Limits, greeting: bytes) -> subprocess.Popen[bytes]:
    try:
        process = find_sandbox().start(jailed_source(name), limits)
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxFailed(f"the sandbox did not start: {error}") from error
    assert process.stdout is not None and process.stderr is not None
    try:
        said = read_exactly(process.stdout.fileno(), len(greeting), time.monotonic() + START_S)
    except (TimeoutError, EOFError):
        said = b""
    if said != greeting:
        os.set_blocking(process.stderr.fileno(), False)
        complaint = (process.stderr.read(1000) or b"").decode(errors="replace").strip()
        kill(process)
        raise SandboxFailed(f"the sandbox did not start: {complaint or 'it said nothing'}")
    return process


class _Solution:
    """The line to a solution's call server. `end` says what ended it, once something has."""

    def __init__(self, process: subprocess.Popen[bytes], deadline: float):
        assert process.stdin is not None and process.stdout is not None
        self.target, self.source = process.stdin.fileno(), process.stdout.fileno()
        self.deadline = deadline
        self.end = ""

    def load(self, source: str) -> str:
        """Have it run a source: "loaded", or the failure."""
        reply = self.ask(source.encode("utf-8", "surrogatepass"), 16)
        return self.end or (reply.decode() if reply in OUTCOMES else "protocol")

    def ask(self, payload: bytes, max_bytes: int = MAX_REPLY_BYTES) -> bytes:
        """The reply to one frame; nothing if there is none, then and ever after."""
        if self.end:
            return b""
        try:
            send(self.target, payload, self.deadline)
            if reply := receive(self.source, max_bytes, self.deadline):
                return reply
            self.end = "protocol"  # no reply is empty: that would say that nothing ended
        except TimeoutError:
            self.end = "timeout"
        except EOFError:
            self.end = "crash"
        except TooLong:
            self.end = "protocol"
        return b""


class _Evaluator:
    """The sandbox that runs tests, one evaluation at a time."""

    def __init__(self) -> None:
        limits = Limits(processes=True, cpu_s=24 * 3600)
        self.process = _greeted("evaluator", limits, READY)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.target, self.source = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.owner = os.getpid()
        self.close = weakref.finalize(self, _end_own, self.process, self.owner)

    def usable(self) -> bool:
        """True if this process started it and it lives."""
        return self.owner == os.getpid() and self.close.alive and self.process.poll() is None

    def send(self, payload: bytes, deadline: float) -> None:
        """One frame to it."""
        send(self.target, payload, deadline)

    def receive(self, deadline: float) -> tuple[bytes, bytes]:
        """The next frame from it: its letter and the rest."""
        frame = receive(self.source, MAX_CALL_BYTES, deadline)
        return frame[:1], frame[1:]


def _end_own(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() == owner:  # a fork has the parent's object, and must let it be
        kill(process)


def _evaluator() -> _Evaluator:
    """This thread's evaluator, started when first needed or after it has ended."""
    evaluator: _Evaluator | None = getattr(_of_thread, "evaluator", None)
    if evaluator is None or not evaluator.usable():
        evaluator = _of_thread.evaluator = _Evaluator()
    return evaluator


def _request(tests: CallTests, stop_early: bool) -> dict[str, Any]:
    return {
        "nonce": secrets.token_hex(16),
        "names": tests.names,
        "tests": tests.tests,
        "setup": tests.setup,
        "mutates": tests.mutates,
        "stop": stop_early,
    }


def _evaluate(request: dict[str, Any], solution: _Solution) -> dict[str, Any]:
    """The evaluator's verdict; its calls go to `solution` as they come."""
    evaluator = _evaluator()
    try:
        deadline = solution.deadline
        evaluator.send(b"", deadline)
        evaluator.send(json.dumps(request).encode(), deadline)
        kind, payload = evaluator.receive(deadline)
        while kind == b"C":
            evaluator.send(solution.ask(payload), deadline + GRACE_S)
            kind, payload = evaluator.receive(deadline + GRACE_S if solution.end else deadline)
        verdict = json.loads(payload) if kind == b"V" else {}
        if kind == b"V":
            kind, payload = evaluator.receive(deadline + GRACE_S)
    except TimeoutError:  # what the solution returned keeps a test busy, or the test is slow
        evaluator.close()
        return {"passed": 0, "failure": "timeout"}
    except (EOFError, TooLong) as error:
        evaluator.close()
        raise EvaluationFailed(f"the evaluator ended ({type(error).__name__})") from error
    if verdict.get("nonce") != request["nonce"]:
        raise EvaluationFailed(f"the tests ended their process (exit code {payload.decode()})")
    if verdict["failure"] in ("setup", "unsendable"):
        raise EvaluationFailed(f"{verdict['failure']} of the tests: {verdict['detail']}")
    return verdict
