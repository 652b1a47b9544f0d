"""What tests/test_rollouts_sharing.py runs under torchrun: an engine that all processes share.

`torchrun --nproc-per-node N tests/sharing_program.py FOLDER MODEL...`: publishes each checkpoint of
the folder to an engine of its own, proves faults, samples, and writes what this process found.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Phi3Config, Phi3ForCausalLM

from rl.ranks import Ranks, find_ranks, leave
from rl.split_sampling import gather_shares
from rollouts.exchange import EngineError
from rollouts.proof import WeightProofError
from rollouts.rollout import Request, Sampling
from rollouts.sampler import EngineConfig
from tests.conftest import byte_tokenizer, checkpoint_weights, draw_weights, write_tiny_model
from tests.expert_models import write_deepseek_v3, write_qwen3_moe

LLAMA = {"vocab_size": 259, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 1}
NUM_REQUESTS = 8
REQUESTS = [
    Request(
        id=str(index),
        token_ids=(1, 60 + index, 90, 120),
        sampling=Sampling(max_tokens=12),
        seed=index,
    )
    for index in range(NUM_REQUESTS)
]


@dataclass(frozen=True)
class Checked:
    """Tensors of a checkpoint in which a fault is put: each of two processes has a part, or all."""

    count: int
    """Tensors of the engine."""
    cut: tuple[str, ...]
    whole: tuple[str, ...]


HEADS = ("model.embed_tokens.weight", "lm_head.weight")
ROWS = "model.layers.1.self_attn."
MLP = "model.layers.1.mlp."
MODELS = {  # with experts first: vLLM makes their group of processes with the first engine only
    "deepseek_v3": Checked(
        count=51,
        cut=(
            *(f"{ROWS}{name}.weight" for name in ("q_b_proj", "kv_b_proj")),
            *(f"{MLP}experts.7.{name}_proj.weight" for name in ("up", "down")),
            f"{MLP}shared_experts.down_proj.weight",
        ),
        whole=(
            f"{ROWS}kv_a_proj_with_mqa.weight",
            *(f"{MLP}gate.{name}" for name in ("weight", "e_score_correction_bias")),
        ),
    ),
    "qwen3_moe": Checked(
        count=21,
        cut=(
            *(f"{ROWS}{name}_proj.weight" for name in ("q", "k", "v", "o")),
            *(f"{MLP}experts.0.{name}_proj.weight" for name in ("gate", "up", "down")),
        ),
        whole=(f"{ROWS}q_norm.weight", f"{MLP}gate.weight", "model.norm.weight"),
    ),
    "llama": Checked(  # one head of keys and values, which both hold
        count=15,
        cut=(
            *HEADS,
            *(f"{ROWS}{name}_proj.weight" for name in ("q", "o")),
            *(f"{MLP}{name}_proj.weight" for name in ("gate", "up", "down")),
        ),
        whole=(
            *(f"{ROWS}{name}_proj.weight" for name in ("k", "v")),
            "model.layers.1.input_layernorm.weight",
        ),
    ),
    "phi3": Checked(  # queries, keys and values in one tensor, and gate and up
        count=9,
        cut=(
            *(f"model.layers.0.self_attn.{name}_proj.weight" for name in ("qkv", "o")),
            *(f"model.layers.0.mlp.{name}_proj.weight" for name in ("gate_up", "down")),
        ),
        whole=("model.layers.0.input_layernorm.weight",),
    ),
}
FAULTS = {"first": 0, "last": -1}
ENGINES: list[Any] = []
"""Kept until the process ends: freeing one ends the group of processes."""


def write_models(folder: Path) -> None:
    """A checkpoint folder for each."""
    write_tiny_model(folder / "llama", tied=True)
    write_deepseek_v3(folder / "deepseek_v3")
    write_qwen3_moe(folder / "qwen3_moe")
    shape = LLAMA | {"num_attention_heads": 4, "num_key_value_heads": 2}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    model = Phi3ForCausalLM(Phi3Config(**shape, **ends, max_position_embeddings=512))
    draw_weights(model)
    model.save_pretrained(folder / "phi3")
    byte_tokenizer().save_pretrained(folder / "phi3")


def is_caught(engine: Any, weights: dict[str, torch.Tensor], name: str, place: int) -> bool:
    """Whether this process's proof sees that one element is not what was published."""
    tensor = weights[name].clone()
    tensor.view(-1)[place] += 1
    try:
        engine.prove(weights | {name: tensor}, whole=True)
    except WeightProofError as error:
        assert ": 1 of " in str(error)
        return True
    return False


def found(folder: Path, checked: Checked, ranks: Ranks) -> dict[str, Any]:
    """What a test reads: proofs of honest and of wrong weights, and completions."""
    from rollouts.engine import Engine

    config = EngineConfig(dtype="float32", tensor_parallel=ranks.count)
    engine = Engine(folder, config, max_tokens=64, num_requests=NUM_REQUESTS)
    ENGINES.append(engine)
    weights = checkpoint_weights(folder)
    engine.publish(weights, 0)
    weights = {name: 1.25 * tensor for name, tensor in weights.items()}
    engine.publish(weights, 1)
    return {
        "proof": engine.prove(weights, whole=True),
        "caught": {
            (name, fault): is_caught(engine, weights, name, place)
            for name in (*checked.cut, *checked.whole)
            for fault, place in FAULTS.items()
        },
        "completions": sorted(engine.sample(REQUESTS), key=lambda each: each.request_id),
        "kv_pool_bytes": engine.kv_pool_bytes,
    }


def told_apart(ranks: Ranks) -> str:
    """What is said where processes that share an engine were given different tokens."""
    together = Ranks(ranks.index, ranks.count, per_engine=ranks.count)
    assert gather_shares(together, [ranks.index], [(1, 2)]) == [0]
    try:
        gather_shares(together, [ranks.index], [(1, ranks.index)])
    except EngineError as error:
        return str(error)
    return ""


def main() -> None:
    folder, ranks = Path(sys.argv[1]), find_ranks()
    results = {n: found(folder / n, MODELS[n], ranks) for n in sys.argv[2:]}
    results["apart"] = told_apart(ranks)
    torch.save(results, folder / f"result-{ranks.index}-of-{ranks.count}.pt")
    leave()


if __name__ == "__main__":
    main()
