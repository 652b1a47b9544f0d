"""Inside a sandbox of its own: runs a problem's tests, and never holds a solution's code.

Forks once for each evaluation. A name that the solution should define stands for a stub: a call
goes out as a frame, and what comes back is decoded into exact builtin types, so that no class of
the solution's ever meets `==`. Frames out: "C" a call, "V" the verdict, "D" the child's end.
"""

import collections  # noqa: F401  loaded once, before the forks, because tests import them
import contextlib
import copy  # noqa: F401
import json
import marshal
import math  # noqa: F401
import os
import random
import re  # noqa: F401
import signal
import string  # noqa: F401
import typing  # noqa: F401

MAX_DEPTH = 50
MAX_CALL_BYTES = 16 << 20


class CallFailed(BaseException):
    """A call gave no value; not an Exception, so that a test does not catch it by accident."""


class Instance:
    """Stands for an instance of a class that is not builtin: it has a truth and nothing else."""

    def __init__(self, truth):
        self._truth = truth

    def __bool__(self):
        return self._truth


class Unsendable(BaseException):
    """A test hands a solution what is no builtin value: nobody's answer can be judged by it."""


def holds_instance(value):
    """True if some part of a value is an instance that a solution gave."""
    if type(value) is dict:
        return any(map(holds_instance, value.items()))
    if type(value) in (list, tuple, set, frozenset):
        return any(map(holds_instance, value))
    return type(value) is Instance


def refuse(text):
    """Plain JSON floats and constants are never written by an honest solution."""
    raise ValueError(text)


def decode(text):
    """The value that a reply's JSON text stands for, of exact builtin types.

    Raises:
        ValueError, TypeError, RecursionError: It is no such value; TypeError for an
            unhashable member of a set or key of a dict.
    """
    return restore(json.loads(text, parse_float=refuse, parse_constant=refuse), 0)


def restore(node, depth):
    """The value of parsed JSON: tags such as {"tuple": [...]} become what they name."""
    if type(node) in (list, dict) and depth > MAX_DEPTH:
        raise ValueError("nested too deep")
    if type(node) is list:
        return [restore(item, depth + 1) for item in node]
    if type(node) is not dict:
        return node
    if len(node) != 1:
        raise ValueError("not one tag")
    ((tag, content),) = node.items()
    if tag in ("tuple", "set", "frozenset"):
        return SEQUENCES[tag]([restore(item, depth + 1) for item in exactly(list, content)])
    if tag == "dict":
        pairs = [exactly(list, pair) for pair in exactly(list, content)]
        return {restore(key, depth + 1): restore(value, depth + 1) for key, value in pairs}
    if tag == "complex":
        real, imaginary = exactly(list, content)
        return complex(read_float(real), read_float(imaginary))
    if tag == "int":
        return int(exactly(str, content), 16)
    if tag == "float":
        return read_float(content)
    if tag == "bytes":
        return bytes.fromhex(exactly(str, content))
    if tag == "truth":
        return Instance(exactly(bool, content))
    raise ValueError(tag)


SEQUENCES = {"tuple": tuple, "set": set, "frozenset": frozenset}


def exactly(kind, node):
    """`node`, which has to be of that type."""
    if type(node) is not kind:
        raise ValueError(kind.__name__)
    return node


def read_float(text):
    """A float from its hexadecimal notation."""
    try:
        return float.fromhex(exactly(str, text))
    except OverflowError as error:
        raise ValueError(text) from error


def receive(source):
    """The next frame; the process ends with the stream."""
    return read_exactly(source, int.from_bytes(read_exactly(source, 4), "big"))


def send(target, payload):
    """Write one frame."""
    frame = memoryview(len(payload).to_bytes(4, "big") + payload)
    while frame:
        frame = frame[os.write(target, frame) :]


def read_exactly(source, size):
    """`size` bytes of the stream."""
    chunks = []
    while size:
        chunk = os.read(source, min(size, 1 << 20))
        if not chunk:
            os._exit(0)
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


class Calls:
    """The line to the solution, and what went wrong on it.

    `trouble` is the last failure: "error" (it raised), "memory",
    "size", "protocol" (not a reply that our server writes), "ended" (there is no solution left).
    """

    def __init__(self, source, target, mutates):
        self.source, self.target, self.mutates = source, target, mutates
        self.trouble = None

    def stub(self, name):
        """What stands for the solution's `name` in the tests."""

        def stub(*arguments, **keywords):
            return self.call(name, arguments, keywords)

        stub.__name__ = name
        return stub

    def call(self, name, arguments, keywords):
        """What the solution's `name` gives for these arguments."""
        if self.trouble is not None:
            raise CallFailed
        try:
            payload = b"C" + marshal.dumps((name, list(arguments), keywords, self.mutates))
        except ValueError:
            # An instance is the solution's own doing, and must be no way out of the batch.
            if not holds_instance((arguments, keywords)):
                raise Unsendable(name) from None
            self.trouble = "error"
            raise CallFailed from None
        if len(payload) > MAX_CALL_BYTES:
            self.trouble = "size"
            raise CallFailed
        send(self.target, payload)
        reply = receive(self.source)
        self.trouble = REPLIES.get(reply[:1], "protocol")
        if self.trouble is not None:
            raise CallFailed
        try:
            value, *after = exactly(list, decode(reply[1:]))
            if self.mutates:
                give_back(arguments, exactly(list, after[0]))
        except (ValueError, TypeError, IndexError, RecursionError):
            self.trouble = "protocol"
            raise CallFailed from None
        return value

    def is_over(self):
        """True if no later call can be answered honestly."""
        return self.trouble in ("ended", "protocol")


REPLIES = {b"V": None, b"E": "error", b"M": "memory", b"L": "size", b"": "ended"}


def give_back(arguments, changed):
    """Make the caller's lists, dicts and sets what the call left of them, in place."""
    for argument, after in zip(arguments, changed):  # noqa: B905
        if type(argument) is not type(after):
            continue
        if type(argument) is list:
            argument[:] = after
        elif type(argument) in (dict, set):
            argument.clear()
            argument.update(after)


def evaluate(request, calls):
    """Run the tests; how many passed, and the first failure: "" if there was none.

    Raises:
        Unsendable: A test hands over no builtin value.
    """
    random.seed(0)
    names = {name: calls.stub(name) for name in request["names"]}
    namespace = {"__name__": "tests"}
    tests = [compile(test, "test", "exec") for test in request["tests"]]
    exec(compile(request["setup"], "setup", "exec"), namespace)
    namespace.update(names)
    passed, failure = 0, ""
    for test in tests:
        calls.trouble = None
        try:
            exec(test, namespace)
            found = calls.trouble or ""
        except Unsendable:
            raise
        except BaseException:  # noqa: BLE001  a test fails by whatever it raises
            found = calls.trouble or "wrong"
        passed += not found
        failure = failure or found
        if calls.is_over() or (found and request["stop"]):
            break
    return passed, failure


def judge(source, target):
    """One evaluation, in a process of its own."""
    request = json.loads(receive(source))
    verdict = {"nonce": request["nonce"]}
    try:
        passed, failure = evaluate(request, Calls(source, target, request["mutates"]))
        verdict.update(passed=passed, failure=failure)
    except Unsendable as error:
        verdict.update(passed=0, failure="unsendable", detail=str(error))
    except Exception as error:  # noqa: BLE001  the setup is the data set's
        verdict.update(passed=0, failure="setup", detail=repr(error)[:200])
    send(target, b"V" + json.dumps(verdict).encode())


def main():
    """One fork for each frame that says so, until the stream ends."""
    source, target = os.dup(0), os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    send(target, b"ready")
    while True:
        receive(source)
        child = os.fork()
        if child == 0:
            judge(source, target)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(OSError):  # whatever the tests left running
            os.kill(-1, signal.SIGKILL)
        send(target, b"D" + str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    main()
