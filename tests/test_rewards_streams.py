import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import rewards.streams
from rewards.streams import TooLong, exchange, kill, receive, send


def started(code):
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-S", "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0,
        start_new_session=True,
    )  # fmt: skip


def soon(seconds=0.2):
    return time.monotonic() + seconds


def test_a_frame_is_its_length_and_its_payload():
    source, target = os.pipe()
    send(target, b"abc", soon())
    assert os.read(source, 100) == b"\0\0\0\3abc"
    os.write(target, b"\0\0\0\0" + b"\0\0\1\0" + bytes(256))
    assert receive(source, 256, soon()) == b""
    assert receive(source, 256, soon()) == bytes(256)
    os.close(source)
    os.close(target)


def test_a_read_ends_by_length_time_or_end():
    source, target = os.pipe()
    os.write(target, b"\xff\xff\xff\xff")
    with pytest.raises(TooLong, match="4294967295 bytes; at most 10"):
        receive(source, 10, soon())
    os.write(target, b"\0\0\0\5ab")
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        receive(source, 10, soon())
    assert time.monotonic() - began < 5
    os.close(target)
    with pytest.raises(EOFError):
        receive(source, 10, soon())
    os.close(source)


def test_what_drips_in_is_not_waited_for_after_its_deadline():
    source, target = os.pipe()
    os.write(target, b"\0\0\0\1x")
    with pytest.raises(TimeoutError):
        receive(source, 10, soon(-0.1))
    os.close(source)
    os.close(target)


def test_what_is_taken_back_between_poll_and_read_does_not_block(monkeypatch):
    """A process may reopen its own pipe to us and read from it."""
    source, target = os.pipe()
    seen = rewards.streams._await
    os.write(target, b"\0")

    def taken_back(*arguments):
        seen(*arguments)
        os.read(source, 1)

    monkeypatch.setattr(rewards.streams, "_await", taken_back)
    raised = []

    def read():
        with pytest.raises(TimeoutError):
            receive(source, 10, soon())
        raised.append(True)

    thread = threading.Thread(target=read, daemon=True)  # without the cure it never ends
    thread.start()
    thread.join(10)
    assert raised


def test_a_write_that_nobody_takes_ends():
    source, target = os.pipe()
    with pytest.raises(TimeoutError):
        send(target, bytes(1 << 20), soon())
    os.close(source)
    with pytest.raises(EOFError):
        send(target, b"x", soon())
    os.close(target)


def test_an_exchange_gives_all_of_the_output():
    process = started("import sys; sys.stdout.write(sys.stdin.read()[::-1])")
    assert exchange(process, b"ab" * 200_000, 1 << 20, soon(30)) == b"ba" * 200_000
    assert kill(process) == 0


def test_an_exchange_ends_with_the_process_and_not_with_its_output():
    process = started("import os, time\nif os.fork() == 0: time.sleep(60)\nprint(1)")
    began = time.monotonic()
    assert exchange(process, b"", 100, soon(30)) == b"1\n"
    assert time.monotonic() - began < 20
    os.killpg(process.pid, 9)
    kill(process)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import time; time.sleep(60)", TimeoutError),
        ("import os, time; os.close(1); time.sleep(60)", TimeoutError),
        ("while True: print('x' * 1000)", TooLong),
    ],
)
def test_an_exchange_is_bounded(code, error):
    process = started(code)
    with pytest.raises(error):
        exchange(process, bytes(1 << 20), 1 << 16, soon(1.0))
    assert kill(process) == -9


def test_an_exchange_with_one_that_never_pauses_ends(monkeypatch):
    process = started("import time; time.sleep(60)")
    monkeypatch.setattr(rewards.streams, "_pause", lambda *_: False)
    monkeypatch.setattr(rewards.streams, "_read_some", lambda source: b"x")
    with pytest.raises(TimeoutError):
        exchange(process, b"", 10_000_000, soon())
    kill(process)


def test_a_kill_leaves_nothing_below_it():
    process = started("import subprocess, time\nsubprocess.run(['sleep', '60'])")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    began = time.monotonic()
    while not (found := children.read_text().split()):
        assert time.monotonic() - began < 30
    kill(process)
    assert not Path(f"/proc/{process.pid}").exists()
    assert not Path(f"/proc/{found[0]}").exists()
    assert process.stdout.closed
