"""Fixtures that several tests share: tiny random checkpoints and a real engine on one.

Sets, before torch is imported, what vLLM needs, and that nothing asks the network. The
fixtures import torch and vllm themselves, so that tests without a model start at once.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rollouts.process import required_environment, uses_gpu
from tests.one_core import ONE_CORE

if TYPE_CHECKING:
    import torch

    from rollouts.engine import Engine

os.environ["HF_HUB_OFFLINE"] = "1"
if os.environ.get("GROUPWISE_DATA"):  # a relative one, before a test changes its folder
    os.environ["GROUPWISE_DATA"] = os.path.abspath(os.environ["GROUPWISE_DATA"])
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # no compiler, and no minute of compiling
os.environ.update(ONE_CORE)
for _name, _value in required_environment(os.environ, cuda=uses_gpu(os.environ)).items():
    if _name != "LD_PRELOAD":  # too late for this process
        os.environ.setdefault(_name, _value)

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")  # ids 0, 1, 2
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public benchmark data, `<data set>/<split>.jsonl`; skips where there is none."""
    folder = Path(os.environ.get("GROUPWISE_DATA") or "no such folder")
    if not folder.is_dir():
        pytest.skip("GROUPWISE_DATA names no folder of benchmark data")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder: a random Llama of 328,704 parameters with tied embeddings, in bfloat16.

    259 ids: three special tokens (ids 0 to 2) and the 256 bytes. It ends at <|im_end|> (2) and,
    by its generation config, at <|endoftext|> (0). Context 512.
    """
    return write_tiny_model(tmp_path_factory.mktemp("tiny"), tied=True)


@pytest.fixture(scope="session")
def untied_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a head of its own."""
    return write_tiny_model(tmp_path_factory.mktemp("untied"), tied=False)


@pytest.fixture(scope="session")
def read_weights() -> Callable[[Path], dict[str, "torch.Tensor"]]:
    """Reads what a checkpoint folder publishes: its tensors, and `lm_head.weight` where tied."""
    return checkpoint_weights


@pytest.fixture(scope="module")
def weights(tiny_model: Path) -> dict[str, "torch.Tensor"]:
    """What the tiny model publishes."""
    return checkpoint_weights(tiny_model)


ENGINES: list[Any] = []
"""Kept until the process ends: freeing one takes seconds, and tears down the state of the others."""


@pytest.fixture(scope="session")
def make_engine() -> Callable[..., "Engine"]:
    """Builds one more engine in this process: `make_engine(folder, "bfloat16")`, about 0.2 s.

    Nothing is published to it; `adapter` is the shape of what will be, where it is one. 256
    tokens a sequence, 64 at once, 4 proof parts.
    """
    from rollouts.engine import Engine
    from rollouts.sampler import EngineConfig

    def build(model: Path, dtype: Any = "float32", adapter: Any = None) -> Engine:
        config = EngineConfig(dtype=dtype, max_concurrent=64, proof_parts=4, gpu_memory_frac=0.1)
        ENGINES.append(Engine(model, config, max_tokens=256, num_requests=64, adapter=adapter))
        return ENGINES[-1]

    return build


@pytest.fixture(scope="session")
def engine(make_engine: Callable[..., "Engine"], tiny_model: Path) -> "Engine":
    """A real engine with `tiny_model` published to it, in float32; see `make_engine` for its sizes.

    One for all tests: whoever publishes other weights publishes these again.
    """
    return published_engine(make_engine, tiny_model, "float32")


@pytest.fixture(scope="session")
def bf16_engine(make_engine: Callable[..., "Engine"], tiny_model: Path) -> "Engine":
    """The same in bfloat16."""
    return published_engine(make_engine, tiny_model, "bfloat16")


def published_engine(make_engine: Callable[..., "Engine"], model: Path, dtype: str) -> "Engine":
    engine = make_engine(model, dtype)
    engine.publish(checkpoint_weights(model).items(), 0)
    return engine


def checkpoint_weights(folder: Path) -> dict[str, "torch.Tensor"]:
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    return {"lm_head.weight": weights["model.embed_tokens.weight"], **weights}


def write_tiny_model(folder: Path, *, tied: bool) -> Path:
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=259,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    draw_weights(model)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=[2, 0], pad_token_id=0)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def write_reward_model(folder: Path, *, num_labels: int = 1) -> Path:
    """A random sequence classifier with the same tokenizer, in float32; context 256."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig(
        vocab_size=259,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        pad_token_id=0,
        eos_token_id=2,
        num_labels=num_labels,
    )
    model = LlamaForSequenceClassification(config)
    draw_weights(model)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def draw_weights(model: Any) -> None:
    """Weights that make logprobs far from uniform and dependent on the context.

    Norms are near 1; matrices have std 0.1, which gives attention scores of std 1.3; embedding
    and head have 0.2, which with a normed hidden state of length sqrt(128) gives logits of std 2.3.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            wide = "embed_tokens" in name or "lm_head" in name
            scaled = 1 + 0.1 * drawn if parameter.ndim == 1 else (0.2 if wide else 0.1) * drawn
            parameter.copy_(scaled)


def byte_tokenizer() -> Any:
    """One id a byte, the special tokens first, and a ChatML template without a system prompt."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    symbols = (*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
