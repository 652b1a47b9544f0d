"""The command: what it writes, what it refuses, and what its server answers."""

import gzip
import http.client
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks.view_rounds import Synthetic, write_run
from recipes.cli import guarded
from recipes.page.report import shown_runs
from recipes.page.run_reader import open_run
from recipes.page.serving import PageServer
from recipes.view import main
from rl.run_folder import RunFolder

ROOT = Path(__file__).resolve().parent.parent
SMALL = Synthetic(num_rounds=3, num_groups=2, group_size=4, mean_tokens=8, vocabulary=300)


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path / "run", SMALL)
    return tmp_path / "run"


@pytest.fixture
def server(run):
    running = PageServer(shown_runs([open_run(run)]), 0)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


def get(server, path, **headers):
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    for name, value in {"Host": f"127.0.0.1:{port}", **headers}.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def test_the_page_is_written_beside_the_run_without_torch(run):
    code = f"""
import sys
from recipes.view import main
main([{str(run)!r}])
print([name for name in ("torch", "transformers", "vllm") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    assert told.startswith(f"{run}/view.html: ") and "24 rollouts read" in told
    assert (run / "view.html").read_text().startswith("<!doctype html>")


def refusal(argv, capsys):
    """The one line of a refusal."""
    assert guarded(lambda: main([str(word) for word in argv])) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_mistakes_end_with_one_line(run, tmp_path, capsys):
    assert refusal([tmp_path / "no"], capsys) == (
        f"error: {tmp_path}/no does not exist: name the folder of a run, such as runs/NAME"
    )
    (tmp_path / "bare").mkdir()
    assert "is no run folder: it holds no config.yaml" in refusal([tmp_path / "bare"], capsys)
    empty = RunFolder.create(tmp_path / "empty", "model: m\n", {}).path
    assert "is empty: no round yet; wait for its first round" in refusal([empty], capsys)
    assert not (empty / "view.html").exists()
    assert "is empty" in refusal([run, empty], capsys)
    assert "lies in no folder" in refusal([run, "--out", tmp_path / "no" / "x.html"], capsys)
    assert "is a folder" in refusal([run, "--out", tmp_path], capsys)
    assert "--page-mb is 0.5" in refusal([run, "--page-mb", "0.5"], capsys)
    (empty / "config.yaml").write_text("a: [")
    assert "config.yaml cannot be read" in refusal([empty], capsys)


def test_a_run_whose_files_are_all_broken_is_refused_with_the_reason(tmp_path, capsys):
    folder = RunFolder.create(tmp_path / "run", "model: m\n", {}).path
    (folder / "rollouts" / "round-000000.jsonl.zst").write_bytes(b"no zstd")
    assert "none of its round files can be read (ZstdError" in refusal([folder], capsys)


def test_what_is_left_out_is_told_in_one_line_each(run, capsys):
    (run / "rollouts" / "round-000001.jsonl.zst").write_bytes(b"half")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{broken\n{"round": 3, "x')
    main([str(run)])
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("run: round 1 is left out (ZstdError")
    assert told[1:] == [
        "run: metrics.jsonl: 1 broken line(s) left out",
        "run: metrics.jsonl: its last line is left out "
        "(half-written: the run is writing it, or was killed)",
    ]


def test_a_taken_port_is_one_line(run, server, capsys):
    port = server.server_address[1]
    assert f"--port {port} cannot be had" in refusal([run, "--serve", "--port", port], capsys)
    assert "--port 70000 cannot be had" in refusal([run, "--serve", "--port", "70000"], capsys)


def test_the_server_gives_page_state_rounds_and_pieces(server):
    assert server.server_address[0] == "127.0.0.1"
    status, headers, body = get(server, "/")
    assert status == 200 and body.startswith(b"<!doctype html>")
    assert "connect-src 'self'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    status, headers, body = get(server, "/state")
    state = json.loads(gzip.decompress(body))
    assert [r["round"] for r in state["runs"][0]["rounds"]] == [0, 1, 2]
    assert get(server, "/state", If_None_Match=headers["ETag"])[0] == 304
    assert gzip.decompress(get(server, "/round/0/2")[2])[4:].startswith(b'{"groups":')
    assert len(json.loads(gzip.decompress(get(server, "/pieces/0")[2]))["ids"]) == 300


@pytest.mark.parametrize(
    "path",
    ["/round/0/3", "/round/1/0", "/round/-1/0", "/round/0", "/round/0/0/0", "/round/0/x", "/pieces/9",
     "/../config.yaml", "/round/../../config.yaml", "/view.html", "/round/0/%30"],
)  # fmt: skip
def test_nothing_else_is_served(server, path):
    get(server, "/state")
    assert get(server, path)[0] == 404


def test_another_host_is_refused(server):
    # What a page elsewhere sends whose name was made to point at this machine.
    for host in ("evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", ""):
        status, _, body = get(server, "/state", Host=host)
        assert status == 403 and b"reward" not in body
    assert get(server, "/state", Origin="http://evil.example")[0] == 403
    port = server.server_address[1]
    assert get(server, "/state", Host=f"localhost:{port}")[0] == 200


def test_the_server_follows_a_run_that_is_training(run, server):
    tag = get(server, "/state")[1]["ETag"]
    folder = RunFolder(run)
    groups = open_run(run).groups(0)
    folder.write_round(3, groups)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"round": 3, "reward/mean": 0.')
    status, headers, body = get(server, "/state", If_None_Match=tag)
    told = json.loads(gzip.decompress(body))["runs"][0]
    assert status == 200 and headers["ETag"] != tag
    assert [r["round"] for r in told["rounds"]] == [0, 1, 2, 3]
    assert [r["trained"] for r in told["rounds"]] == [True, True, True, False]
    assert told["columns"]["round"] == [0, 1, 2] and told["unreadable"] == 0
    before = get(server, "/round/0/3")[2]
    folder.write_trained(3, list(open_run(run).trained(0).values()))
    assert get(server, "/round/0/3")[2] != before  # with the trainer's logprobs now
    folder.close()


def test_an_empty_run_can_be_served_before_its_first_round(tmp_path):
    folder = RunFolder.create(tmp_path / "new", "model: m\n", {}).path
    server = PageServer(shown_runs([open_run(folder)]), 0)
    assert json.loads(gzip.decompress(server.following.state()[0]))["runs"][0]["rounds"] == []
    server.server_close()
