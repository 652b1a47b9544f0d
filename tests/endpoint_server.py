"""A small OpenAI-compatible server in this process, for tests: what it answers is a function."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(kw_only=True)
class Served:
    """What a server saw: each request's body, its headers, and how many were in hand at most."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    in_hand: int = 0
    most_in_hand: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One HTTP answer; `body` is sent as it is if it is text."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0


def said(content: str | None, *, finish: str = "stop", tokens: int = 3, **message: Any) -> Reply:
    """A chat completion."""
    return Reply(
        body={
            "id": "c", "object": "chat.completion", "created": 0, "model": "m",
            "choices": [{
                "index": 0, "finish_reason": finish,
                "message": {"role": "assistant", "content": content, **message},
            }],
            "usage": {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens},
        }
    )  # fmt: skip


class _Server(ThreadingHTTPServer):
    """With room for many connections at once: of five only, others are reset."""

    daemon_threads = True
    request_queue_size = 128


@contextmanager
def serving(reply: Callable[[dict[str, Any], int], Reply]) -> Iterator[Served]:
    """A server on 127.0.0.1; `reply` gets a request's body and its number from 0."""
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with served.lock:
                number = len(served.bodies)
                served.bodies.append(body)
                served.headers.append({k.lower(): v for k, v in self.headers.items()})
                served.in_hand += 1
                served.most_in_hand = max(served.most_in_hand, served.in_hand)
            answer = reply(body, number)
            time.sleep(answer.delay_s)
            with served.lock:
                served.in_hand -= 1
            text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
            kind = "text/html" if text.startswith("<") else "application/json"
            self.send_response(answer.status)
            for name, value in {"content-type": kind, **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            try:
                self.wfile.write(text.encode())
            except ConnectionError:
                return  # the client has given up

        def log_message(self, *_: Any) -> None:
            return

    server = _Server(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
