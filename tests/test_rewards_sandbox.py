import json
import logging
import os
import runpy
import socket
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

import rewards.sandbox
from rewards.bubblewrap import bubblewrap_argv
from rewards.escape import escapes
from rewards.sandbox import Limits, Sandbox, SandboxUnavailable, find_sandbox, jailed_source
from rewards.streams import TooLong, exchange, kill, read_exactly

PROGRAMS = runpy.run_path(str(Path(__file__).with_name("attack_programs.py")))
SECRET = "groupwise-hush-5a1f"


def user_namespaces_work():
    """Whether the kernel gives a namespace to an ordinary user, by another program than ours."""
    who = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    command = ["/usr/bin/unshare", "--user", "--pid", "--net", "--fork", "true"]
    return subprocess.run(command, capture_output=True, check=False, cwd="/", **who).returncode == 0


@pytest.fixture(scope="module")
def backends():
    """Every sandbox that works here by its name, the strongest first."""
    candidates = rewards.sandbox._candidates([])
    return {each.backend: each for each in candidates if not escapes(each)}


@pytest.fixture(params=["bubblewrap", "landlock"])
def sandbox(request, backends) -> Sandbox:
    if request.param not in backends:
        if request.param == "bubblewrap" and user_namespaces_work():
            pytest.fail("user namespaces work here and bubblewrap does not")
        pytest.skip(f"{request.param} does not work on this machine")
    return backends[request.param]


@pytest.fixture
def host(monkeypatch):
    """What attacks are told: a readable file, a listener, a process of the same user, a secret."""
    who = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    victim = subprocess.Popen(["/usr/bin/sleep", "600"], cwd="/", env={}, **who)
    monkeypatch.setenv("GROUPWISE_TEST_SECRET", SECRET)
    with (
        tempfile.TemporaryDirectory(prefix="groupwise-host-") as folder,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        os.chmod(folder, 0o777)
        file = Path(folder) / "file"
        file.write_text("of the host")
        file.chmod(0o666)
        yield {
            "file": str(file),
            "port": listener.getsockname()[1],
            "pid": victim.pid,
            "secret": SECRET,
        }
        assert victim.poll() is None
        victim.kill()
        victim.wait()
        assert file.read_text() == "of the host"
        assert os.listdir(folder) == ["file"]
        assert file.stat().st_mode & 0o777 == 0o666


def output_of(sandbox, code, given, *, timeout_s=10.0, limits=None):
    """What a program prints, or the way in which it was ended."""
    process = sandbox.start(jailed_source("stdio_runner"), limits or Limits())
    try:
        deadline = time.monotonic() + 30
        assert read_exactly(process.stdout.fileno(), 5, deadline) == b"ready", process.stderr.read()
        source = code.encode()
        frame = len(source).to_bytes(4, "big") + source + given.encode()
        return exchange(process, frame, 1 << 20, time.monotonic() + timeout_s).decode()
    except (TimeoutError, TooLong) as error:
        return type(error).__name__
    finally:
        kill(process)


def test_where_user_namespaces_work_bubblewrap_is_what_runs(backends):
    if not user_namespaces_work():
        pytest.skip("no user namespaces on this machine")
    assert next(iter(backends)) == "bubblewrap"
    assert find_sandbox() == backends["bubblewrap"]
    assert find_sandbox().uid != 0


@pytest.mark.parametrize("name", PROGRAMS["SYSTEM"])
def test_no_attack_gets_out(sandbox, host, name):
    code = PROGRAMS["HOST"] + PROGRAMS["SYSTEM"][name] + "\nprint('tried', flush=True)"
    printed = output_of(sandbox, code, json.dumps(host) + "\n")
    assert "ESCAPED" not in printed
    assert printed == "tried\n" or name in ("kills everybody", "fills the memory by many ways")


def test_the_attacks_work_where_nothing_stops_them(host):
    """They are no dummies: outside, as the same user, the harmless ones succeed."""
    working = []
    for name in (
        "reads the environment", "reads files of the host", "writes outside of its scratch",
        "connects to the host", "starts processes", "inherits descriptors", "lifts its limits",
    ):  # fmt: skip
        read, write = os.pipe()
        done = subprocess.run(
            ["/usr/bin/python3", "-c", PROGRAMS["HOST"] + PROGRAMS["SYSTEM"][name]],
            input=json.dumps(host), capture_output=True, text=True, pass_fds=(read,), cwd="/",
            **({"user": 65534, "group": 65534} if os.geteuid() == 0 else {}),
        )  # fmt: skip
        os.close(read)
        os.close(write)
        working += [name] if "ESCAPED" in done.stdout else []
        for path in ("file", "groupwise-escape"):
            Path(host["file"]).with_name(path).unlink(missing_ok=True)
        Path(host["file"]).write_text("of the host")
        Path(host["file"]).chmod(0o666)
        Path("/var/tmp/groupwise-escape").unlink(missing_ok=True)
    assert len(working) == 7, working


def test_what_stands_twice_stands_in_the_command_line_too():
    """The seccomp filter refuses namespaces as well, so no attack tells these words apart."""
    argv = bubblewrap_argv("bwrap", ["/usr"], {}, seccomp_fd=9)
    assert argv[:6] == [
        "bwrap", "--unshare-user", "--unshare-all", "--disable-userns", "--cap-drop", "ALL",
    ]  # fmt: skip
    assert {"--die-with-parent", "--new-session", "--clearenv"} < set(argv)
    assert argv[-2:] == ["--seccomp", "9"]


def test_a_program_sees_five_variables_and_a_fixed_hash(sandbox):
    code = "import os; print(sorted(os.environ)); print(hash('a'))"
    first, second = (output_of(sandbox, code, "") for _ in range(2))
    assert first == second
    names = set(json.loads(first.splitlines()[0].replace("'", '"')))
    assert names - {"PWD"} == {"HOME", "LC_ALL", "OMP_NUM_THREADS", "PATH", "PYTHONHASHSEED"}


def test_threads_run_and_memory_is_limited(sandbox):
    code = """
import threading
threads = [threading.Thread(target=print, args=(i,)) for i in range(3)]
[t.start() for t in threads]; [t.join() for t in threads]
try: bytearray(200 << 20)
except MemoryError: print("none left")
"""
    limits = Limits(memory_bytes=200 << 20)
    printed = output_of(sandbox, code, "", limits=limits)
    assert sorted(printed.split("\n")) == ["", "0", "1", "2", "none left"]


def below(pid):
    """The processes below one, by number."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children] + [
        each for child in children for each in below(child)
    ]


def test_nothing_of_a_run_is_left(sandbox):
    process = sandbox.start(jailed_source("stdio_runner"), Limits())
    assert read_exactly(process.stdout.fileno(), 5, time.monotonic() + 30) == b"ready"
    running = [process.pid, *below(process.pid)]
    assert len(running) == (3 if sandbox.backend == "bubblewrap" else 1)
    kill(process)
    deadline = time.monotonic() + 10  # the last one's parent is in another namespace
    while any(Path(f"/proc/{pid}").exists() for pid in running):
        assert time.monotonic() < deadline


def test_the_probe_finds_a_sandbox_that_leaks(sandbox, monkeypatch):
    assert escapes(sandbox) == ""
    allowing = rewards.sandbox.filter_bytes
    with monkeypatch.context() as patched:
        patched.setattr(
            rewards.sandbox,
            "filter_bytes",
            lambda m, **k: allowing(m, processes=True, metadata=True),
        )
        assert escapes(sandbox) == "a program inside could start a process"
    with tempfile.TemporaryDirectory() as folder, monkeypatch.context() as patched:
        os.chmod(folder, 0o777)
        patched.setattr(tempfile, "tempdir", folder)
        leaky = replace(sandbox, roots=(*sandbox.roots, folder))
        assert escapes(leaky) == "a program inside could read a file of the host"
    with monkeypatch.context() as patched:
        patched.setitem(rewards.sandbox.ENVIRONMENT, "GROUPWISE_TOKEN", "x")
        patched.setenv("GROUPWISE_TOKEN", "x")
        assert "see an environment variable" in escapes(sandbox)


@pytest.mark.parametrize("program", ["/usr/bin/false", "/nonexistent/bwrap", "/usr/bin/env"])
def test_a_sandbox_that_does_not_start_is_none(backends, program):
    broken = replace(backends["bubblewrap"], bwrap=program)
    assert escapes(broken).startswith("did not start (")


def test_without_any_sandbox_nothing_runs_and_all_that_was_tried_is_named(monkeypatch):
    monkeypatch.setattr(rewards.sandbox, "escapes", lambda sandbox: f"no {sandbox.backend} here")
    find_sandbox.cache_clear()
    try:
        with pytest.raises(SandboxUnavailable) as raised:
            find_sandbox()
    finally:
        find_sandbox.cache_clear()
    message = str(raised.value)
    assert "no bubblewrap here" in message
    assert "landlock (own process): no landlock here" in message
    assert message.endswith("Nothing was executed.")


def test_the_weaker_sandbox_is_announced(monkeypatch, caplog):
    monkeypatch.setattr(
        rewards.sandbox, "escapes", lambda sandbox: "ENOSPC" if sandbox.bwrap else ""
    )
    find_sandbox.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert find_sandbox().backend == "landlock"
    finally:
        find_sandbox.cache_clear()
    assert "weaker" in caplog.text
    assert "ENOSPC" in caplog.text
