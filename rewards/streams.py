"""Bytes to and from a process that may be hostile: every wait has a deadline, every read a cap."""

import os
import select
import signal
import subprocess
import time
from pathlib import Path

HEADER_BYTES = 4
CHUNK_BYTES = 1 << 16
KILL_S = 2.0
"""For bubblewrap to end by itself once the first process inside is dead."""


class TooLong(Exception):
    """The other side wrote more than it may."""


def send(target: int, payload: bytes, deadline: float) -> None:
    """Write one frame: the length in 4 bytes, then `payload`.

    Raises:
        TimeoutError: Not taken by `deadline` (of `time.monotonic`).
        EOFError: The other side is gone.
    """
    os.set_blocking(target, False)
    view = memoryview(len(payload).to_bytes(HEADER_BYTES, "big") + payload)
    while view:
        _await(target, select.POLLOUT, deadline)
        try:
            view = view[os.write(target, view[:CHUNK_BYTES]) :]
        except BlockingIOError:
            continue
        except BrokenPipeError:
            raise EOFError from None


def receive(source: int, max_bytes: int, deadline: float) -> bytes:
    """Read one frame.

    Raises:
        TooLong: It says that it has more than `max_bytes`.
        TimeoutError: Not all there by `deadline`.
        EOFError: The stream ended before it did.
    """
    size = int.from_bytes(read_exactly(source, HEADER_BYTES, deadline), "big")
    if size > max_bytes:
        raise TooLong(f"a frame of {size} bytes; at most {max_bytes} are read")
    return read_exactly(source, size, deadline)


def read_exactly(source: int, size: int, deadline: float) -> bytes:
    """`size` bytes of the stream; errors as in `receive`."""
    # A process may reopen a pipe of its own user and take back what poll has just seen.
    os.set_blocking(source, False)
    data = bytearray()
    while len(data) < size:
        _await(source, select.POLLIN, deadline)
        try:
            chunk = os.read(source, min(size - len(data), CHUNK_BYTES))
        except BlockingIOError:
            continue
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)


def exchange(
    process: subprocess.Popen[bytes], given: bytes, max_bytes: int, deadline: float
) -> bytes:
    """Write `given` to the process, close its input, and read its output to the end.

    The end is the end of the process, not of its output, which it may close or pass on.

    Raises:
        TooLong: It wrote more than `max_bytes`.
        TimeoutError: It had not ended by `deadline`.
    """
    assert process.stdin is not None and process.stdout is not None
    source, target = process.stdout.fileno(), process.stdin.fileno()
    os.set_blocking(source, False)
    os.set_blocking(target, False)
    view, output, ended = memoryview(given), bytearray(), False
    end = os.pidfd_open(process.pid)
    try:
        while not ended:
            if view:
                view = _write_some(target, view)
            if not view and not process.stdin.closed:
                process.stdin.close()
            if time.monotonic() >= deadline:
                raise TimeoutError
            ended = _pause(end, source, target if view else None, deadline)
            while chunk := _read_some(source):
                output += chunk
                if len(output) > max_bytes:
                    raise TooLong(f"more than {max_bytes} bytes of output")
                if not ended and time.monotonic() >= deadline:  # it never pauses
                    raise TimeoutError
    finally:
        os.close(end)
    return bytes(output)


def kill(process: subprocess.Popen[bytes]) -> int:
    """End the process and everything below it, reap it, close its pipes; its return code.

    bubblewrap waits for the first process inside, so that one is killed first: bubblewrap then
    reaps it and ends by itself, and no zombie is left to whoever is process 1.
    """
    if process.poll() is None:
        children = _children(process.pid)
        for child in children:
            _kill_child(process.pid, child)
        if not children or not _ends(process.pid, KILL_S):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    assert process.returncode is not None
    return process.returncode


def _kill_child(parent: int, child: int) -> None:
    """Kill `child` if it still is one: a descriptor names the process, a number may be reused."""
    try:
        descriptor = os.pidfd_open(child)
    except OSError:
        return
    try:
        if child in _children(parent):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _await(descriptor: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    left = deadline - time.monotonic()  # none left is too late, also for one that drips
    if left <= 0 or not poll.poll(left * 1000):
        raise TimeoutError


def _write_some(target: int, view: memoryview) -> memoryview:
    try:
        return view[os.write(target, view[:CHUNK_BYTES]) :]
    except BlockingIOError:
        return view
    except BrokenPipeError:
        return view[len(view) :]


def _read_some(source: int) -> bytes:
    try:
        return os.read(source, CHUNK_BYTES)
    except BlockingIOError:
        return b""


def _ends(pid: int, seconds: float) -> bool:
    """Whether a child of ours ends in that time; it is not reaped."""
    end = os.pidfd_open(pid)
    try:
        _await(end, select.POLLIN, time.monotonic() + seconds)
    except TimeoutError:
        return False
    finally:
        os.close(end)
    return True


def _pause(end: int, source: int, target: int | None, deadline: float) -> bool:
    """Wait until there is something to read or write, or the process has ended: then True."""
    poll = select.poll()
    poll.register(end, select.POLLIN)
    poll.register(source, select.POLLIN)
    if target is not None:
        poll.register(target, select.POLLOUT)
    events = dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
    if events and all(event & ~select.POLLHUP == 0 for event in events.values()):
        time.sleep(0.002)  # its output is closed and it lives on
    return end in events
