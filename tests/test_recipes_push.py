"""What goes to the hub, and that nothing goes unasked: a small server stands in for it."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from recipes import push
from recipes.finished import find_finished
from recipes.push import parcel_of
from tests.test_recipes_card import make_run

ROOT = Path(__file__).resolve().parent.parent


class Hub(BaseHTTPRequestHandler):
    """Takes a repository and a commit, as the hub's API does."""

    def do_GET(self):
        self._answer({"id": "me/first", "private": self.server.private, "siblings": []})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, body))
        if self.server.refuses:
            return self._answer({"error": "no right to write"}, status=401)
        host = f"http://127.0.0.1:{self.server.server_port}"
        if self.path == "/api/repos/create":
            self._answer({"url": f"{host}/me/first"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._answer(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for f in files
                    ]
                }
            )
        else:
            self._answer({"commitUrl": f"{host}/me/first/commit/1", "commitOid": "1"})

    def _answer(self, value: Any, status: int = 200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = HTTPServer(("127.0.0.1", 0), Hub)
    server.seen, server.private, server.refuses = [], True, False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def run(folder: Path, port: int, *words: str, **variables: str) -> tuple[int, str, str]:
    """The program in a process of its own: the hub's address is read at import."""
    environ = {n: v for n, v in os.environ.items() if n not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    environ |= {
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HOME": str(folder / "hf"),
        "HF_TOKEN": "hf_secret",
        "PYTHONPATH": str(ROOT),
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-m", "recipes.push", str(folder), "--to", "me/first", *words],
        env={name: value for name, value in environ.items() if value},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def committed(hub: HTTPServer) -> dict[str, bytes]:
    """Files of the one commit."""
    (body,) = [body for path, body in hub.seen if "/commit/" in path]
    rows = [json.loads(line) for line in body.splitlines()]
    return {
        row["value"]["path"]: base64.b64decode(row["value"]["content"])
        for row in rows
        if row["key"] == "file"
    }


def test_checkpoint_and_card_go_as_one_private_commit(tmp_path: Path, hub):
    folder = make_run(tmp_path / "run")
    code, out, err = run(folder, hub.server_port)
    assert (code, err) == (0, "")
    assert "to https://huggingface.co/me/first, private, goes:" in out
    assert f"it is at http://127.0.0.1:{hub.server_port}/me/first/commit/1" in out
    created = json.loads(hub.seen[0][1])
    assert (created["name"], created.get("private", created.get("visibility"))) in (
        ("first", True),
        ("first", "private"),
    )
    files = committed(hub)
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    assert files["model.safetensors"] == b"weights"
    assert files["README.md"].decode() == (folder / "final" / "README.md").read_text()
    assert b"# first" in files["README.md"]
    assert "hf_secret" not in out


def test_a_public_repository_takes_nothing_unasked(tmp_path: Path, hub):
    folder = make_run(tmp_path / "run")
    hub.private = False
    code, _, err = run(folder, hub.server_port)
    assert code == 2
    assert "me/first is there already and public: add --public" in err
    assert not any("/commit/" in path for path, _ in hub.seen)
    assert run(folder, hub.server_port, "--public")[0] == 0
    assert "model.safetensors" in committed(hub)


def test_a_dry_run_asks_nobody_and_writes_nothing(tmp_path: Path, hub):
    folder = make_run(tmp_path / "run")
    code, out, _ = run(folder, hub.server_port, "--dry-run", HF_TOKEN="")
    assert code == 0
    assert "would go:" in out and "  model.safetensors  0.00 MB" in out and "# first" in out
    assert hub.seen == []
    assert not (folder / "final" / "README.md").exists()


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"HF_TOKEN": ""}, "there is no token of the Hugging Face hub: `hf auth login`"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the hub cannot be reached (ConnectError"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
    ],
)
def test_what_is_missing_is_one_line(tmp_path: Path, hub, variables, told):
    code, _, err = run(make_run(tmp_path / "run"), hub.server_port, **variables)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert told in err


def test_a_refusal_is_one_line(tmp_path: Path, hub):
    hub.refuses = True
    code, _, err = run(make_run(tmp_path / "run"), hub.server_port)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert "the hub refused it" in err


@pytest.mark.parametrize("name", ["first", "me/first/x", "../x", "me/ first", "-me/x"])
def test_a_name_that_is_none(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = make_run(tmp_path / "run")
    assert push.main([str(folder), f"--to={name}", "--dry-run"]) == 2
    assert "give USER/NAME" in capsys.readouterr().err


def test_nothing_else_of_the_run_goes(tmp_path: Path):
    folder = make_run(tmp_path / "run")
    (folder / "rollouts").mkdir()
    (folder / "rollouts" / "round-000000.jsonl.zst").write_text("secret")
    (folder / "final" / ".tmp-x").write_text("half")
    (folder / "final" / "README.md").write_text("an older card")
    parcel = parcel_of(find_finished(folder), "me/first")
    assert sorted(parcel.files) == ["config.json", "model.safetensors"]
