"""Inside the sandbox: loads a solution and answers calls of its functions.

Frames (4 bytes of length, then that many) come on descriptor 0 and go out on 1; the solution
sees /dev/null there. Arguments come marshalled from the evaluator; values go back as JSON of
builtin types, with a tag for each that JSON lacks. The solution shares this process and may
forge any answer: an answer is only a value. No import that costs: `os` and `json` are slow.
"""

import builtins
import marshal
import posix
import sys
from _json import encode_basestring_ascii

MAX_DEPTH = 50
MAX_REPLY_BYTES = 1 << 20
SMALL = 10**15


class TooDeep(Exception):
    """A value that is nested deeper than the evaluator reads."""


def encode(value, depth=0):
    """`value` as JSON text, by its exact type.

    1 is 1, 1.5 is {"float": "0x1.8000000000000p+0"}, (1, "a") is {"tuple": [1, "a"]}. A named
    tuple, a number of an enum, any instance of a subclass is sent as what it was made from. Of
    an instance of any other class only its truth crosses, as {"truth": true}.
    """
    kind = type(value)
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return str(value) if -SMALL < value < SMALL else '{"int": "%s"}' % hex(value)  # noqa: UP031
    if kind is str:
        return encode_basestring_ascii(value)
    if kind is float:
        return '{"float": "%s"}' % value.hex()  # noqa: UP031
    if kind is complex:
        return f'{{"complex": ["{value.real.hex()}", "{value.imag.hex()}"]}}'
    if kind is bytes:
        return '{"bytes": "%s"}' % value.hex()  # noqa: UP031
    if depth >= MAX_DEPTH:
        raise TooDeep
    if kind in (list, tuple, set, frozenset):
        items = "[" + ", ".join([encode(item, depth + 1) for item in value]) + "]"
        return items if kind is list else f'{{"{kind.__name__}": {items}}}'
    if kind is dict:
        pairs = [
            "[" + encode(key, depth + 1) + ", " + encode(item, depth + 1) + "]"
            for key, item in value.items()
        ]
        return '{"dict": [' + ", ".join(pairs) + "]}"
    for base, plain in PLAIN.items():
        if base in kind.__mro__:
            return encode(plain(value), depth)
    return '{"truth": %s}' % ("true" if value else "false")


# The plain value under an instance of a subclass, by the builtin's own methods: what the class
# says of itself does not count.
PLAIN = {
    int: int.__pos__,
    float: float.__pos__,
    complex: complex.__pos__,
    str: str.__str__,
    bytes: lambda value: bytes.__add__(value, b""),
    list: lambda value: [*list.__iter__(value)],
    tuple: lambda value: (*tuple.__iter__(value),),
    set: lambda value: {*set.__iter__(value)},
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    dict: lambda value: dict(dict.items(value)),
}


def receive(source):
    """The next frame, or None at the end of the stream."""
    header = _exactly(source, 4)
    return None if header is None else _exactly(source, int.from_bytes(header, "big"))


def send(target, payload):
    """Write one frame."""
    frame = memoryview(len(payload).to_bytes(4, "big") + payload)
    while frame:
        frame = frame[posix.write(target, frame) :]


def _exactly(source, size):
    chunks = []
    while size:
        chunk = posix.read(source, min(size, 1 << 20))
        if not chunk:
            return None
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def load(source, namespace):
    """Run a source in the namespace; what became of it."""
    try:
        exec(compile(source, "solution.py", "exec"), namespace)
    except MemoryError:
        return b"memory"
    except SyntaxError:
        return b"syntax"
    except BaseException:  # noqa: BLE001  hostile code: anything may come out of it
        return b"error"
    return b"loaded"


def answer(namespace, request):
    """The reply to one call: "V" with the value, and the arguments afterwards if asked for.

    Else one letter: "E" it raised, "M" out of memory, "L" too large or deep.
    """
    try:
        name, arguments, keywords, with_arguments = marshal.loads(request)
        value = namespace[name](*arguments, **keywords)
        reply = "[" + encode(value)
        if with_arguments:
            reply += ", " + encode(arguments)
        payload = b"V" + (reply + "]").encode()
        return payload if len(payload) <= MAX_REPLY_BYTES else b"L"
    except MemoryError:
        return b"M"
    except TooDeep:
        return b"L"
    except BaseException:  # noqa: BLE001
        return b"E"


def main():
    """Serve until the stream ends."""
    requests, answers = posix.dup(0), posix.dup(1)
    null = posix.open("/dev/null", posix.O_RDWR)
    for descriptor in (0, 1, 2):
        posix.dup2(null, descriptor)
    posix.close(null)
    builtins.exit = builtins.quit = sys.exit
    send(answers, b"ready")
    module = type(sys)("solution")
    sys.modules["solution"] = module
    # What the problem gives comes first, so that its outcome cannot be forged.
    for _ in range(2):
        source = receive(requests)
        if source is None:
            return
        send(answers, load(source.decode("utf-8", "surrogatepass"), module.__dict__))
    namespace = module.__dict__
    while (request := receive(requests)) is not None:
        send(answers, answer(namespace, request))


if __name__ == "__main__":
    main()
    posix._exit(0)
