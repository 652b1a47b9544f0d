"""Predicted peak memory against that of real short runs, each from start to final folder."""

from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from benchmarks.plan import measure
from recipes.plan import as_json, planned
from tests.conftest import byte_tokenizer

TOLERANCE = 0.2
RUN = """quickstart --no-best-prompt --policy.no-compile --scoring.workers 0 --train.num-rounds 1
    --train.problems-per-round 4 --train.group-size 8 --train.max-tokens 0 64 --train.keep-last 1
    --loss.entropy-coefficient 1e-9 --policy.micro-batch-tokens 2048 --test.num-problems 2
    --test.num-samples 2 --test.max-tokens 8 --validation.max-tokens 8"""
SMALL = "--policy.gradient-checkpointing --policy.micro-batch-tokens 512"
CASES = {"as it is": ""}
MORE = {
    "least": f"{SMALL} --optimizer.states bfloat16",
    "adapters, long completions": "--policy.lora.rank 16 --train.max-tokens 0 320 "
    "--train.problems-per-round 1",
    "micro-batch": "--policy.micro-batch-tokens 512",
    "checkpointing": SMALL,
    "states": "--optimizer.states bfloat16",
    "adapters": "--policy.lora.rank 64",
    "float32": "--policy.dtype float32 --engine.dtype float32",
    "reference": "--loss.kl-coefficient 0.01",
    "engines on Ray": f"{SMALL} rollouts:ray --rollouts.num-workers 2",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 47 million parameters: weights, states and activations of some 0.2 GB each."""
    folder = tmp_path_factory.mktemp("planned")
    config = LlamaConfig(
        vocab_size=16_384,
        hidden_size=576,
        intermediate_size=1_536,
        num_hidden_layers=12,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=1_024,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    made = LlamaForCausalLM(config).to(torch.bfloat16)
    made.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=[2, 0], pad_token_id=0)
    made.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def check(words: list[str], folder: Path, label: str) -> None:
    predicted = as_json(planned([*words, "--prompt-tokens", "100"]))["peak_bytes"]
    measured = measure(words, folder / "run")["peak_bytes"]
    print(f"{label}: predicted {predicted / 1e9:.2f} GB, measured {measured / 1e9:.2f} GB")
    assert predicted == pytest.approx(measured, rel=TOLERANCE), label


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_peak_is_foretold(name: str, model: Path, tmp_path: Path):
    check([*RUN.split(), *CASES[name].split(), "--model", str(model)], tmp_path, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_the_peak_is_foretold_for_more(name: str, model: Path, tmp_path: Path):
    check([*RUN.split(), *MORE[name].split(), "--model", str(model)], tmp_path, name)
