"""A small OpenAI-compatible server on this machine that stands in for a judge's endpoint."""

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-secret-of-the-judge"


class Endpoint:
    """Answers each request by the next of `replies`, the last one for ever.

    A reply is what the judge says (a function of the user's message), a status, or an action on
    the handler.
    """

    def __init__(self, *replies):
        self.replies = list(replies)
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.bodies.append(body)
                    outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                    index = min(len(outer.bodies), len(outer.replies)) - 1
                    reply = outer.replies[index]
                try:
                    outer.answer(self, reply, body)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # it was not waited for
                finally:
                    with outer.lock:
                        outer.at_once -= 1

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, handler, reply, body):
        if isinstance(reply, int):
            text = json.dumps({"error": {"message": f"refused {self.url} {KEY}"}})
            return send(handler, reply, text)
        said = reply(body["messages"][1]["content"])
        if callable(said):
            return said(handler)
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        whole = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
        return send(handler, 200, json.dumps({**whole, "choices": [choice]}))


def send(handler, status: int, text: str, kind: str = "application/json") -> None:
    data = text.encode()
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(data)))
    if status == 429:
        handler.send_header("Retry-After-Ms", "10")
    handler.end_headers()
    handler.wfile.write(data)


def slow(seconds: float) -> Callable:
    """Says nothing for so long."""
    return lambda _: lambda handler: time.sleep(seconds)


def trickle(handler) -> None:
    """A byte at a time, so that no single read ever waits long."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def better(value: str) -> str:
    return json.dumps({"analysis": "Because.", "better": value})


def safe(value: bool) -> str:
    return json.dumps({"analysis": "Because.", "safe": value})


def fenced(message: str, name: str) -> str:
    """The text between the markers of a name, as a judge would find it."""
    (found,) = re.findall(rf"^\[{name} ([0-9a-f]{{16}})\]$", message, re.MULTILINE)
    _, _, rest = message.partition(f"[{name} {found}]\n")
    return rest.partition(f"\n[end of {name} {found}]")[0]


def fair(message: str) -> str:
    """Prefers the answer that says GOOD; neither or both is a tie."""
    first, second = ("GOOD" in fenced(message, f"answer {name}") for name in "AB")
    return better("tie" if first == second else "A" if first else "B")


@contextlib.contextmanager
def endpoint(monkeypatch, *replies) -> Iterator[Endpoint]:
    """A running endpoint whose URL and key stand in the environment."""
    running = Endpoint(*replies)
    monkeypatch.setenv("GROUPWISE_JUDGE_URL", running.url)
    monkeypatch.setenv("JUDGE_KEY", KEY)
    try:
        yield running
    finally:
        running.server.shutdown()
        running.server.server_close()
