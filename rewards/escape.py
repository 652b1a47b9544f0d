"""The start-up probe: runs rewards/jailed/probe.py in a sandbox and says what got out."""

import json
import os
import secrets
import select
import socket
import subprocess
import tempfile
from typing import TYPE_CHECKING

from rewards.streams import kill

if TYPE_CHECKING:
    from rewards.sandbox import Sandbox

TIMEOUT_S = 20.0
PUBLIC = {"PATH", "HOME", "PWD", "LC_ALL", "LC_CTYPE", "PYTHONHASHSEED", "OMP_NUM_THREADS"}
"""Variables that a program may see; the host's are others, or have the same names."""


def escapes(sandbox: "Sandbox") -> str:
    """Why `sandbox` cannot be used, in words; "" if it started and nothing got out of it."""
    from rewards.sandbox import Limits, jailed_source

    nonce = secrets.token_hex(16)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        tempfile.NamedTemporaryFile("w", prefix="groupwise-probe-") as file,
    ):
        os.chmod(file.name, 0o644)
        file.write(nonce)
        file.flush()
        question = {
            "nonce": nonce,
            "file": file.name,
            "port": listener.getsockname()[1],
            "pid": os.getpid(),
            "variables": sorted(set(os.environ) - PUBLIC),
        }
        try:
            process = sandbox.start(jailed_source("probe"), Limits())
        except (OSError, subprocess.SubprocessError) as error:
            return f"did not start ({error})"
        reply, complaint = _ask(process, json.dumps(question).encode() + b"\n")
        if select.select([listener], [], [], 0)[0]:
            return "a program inside connected to the host"
    return _judge(reply, nonce) or ("" if reply else f"did not start ({complaint or 'no answer'})")


def _ask(process: subprocess.Popen[bytes], question: bytes) -> tuple[bytes, str]:
    try:
        reply, complaint = process.communicate(question, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return b"", f"no answer in {TIMEOUT_S:g} s"
    finally:
        kill(process)
    return reply, " ".join(complaint.decode(errors="replace").split())[-300:]


def _judge(reply: bytes, nonce: str) -> str:
    if not reply:
        return ""
    try:
        report = json.loads(reply)
        if report["nonce"] != nonce:
            return "the probe answered with another nonce"
        return f"a program inside could {', '.join(report['open'])}" if report["open"] else ""
    except (ValueError, KeyError, TypeError):
        return f"the probe answered {reply[:100]!r}"
