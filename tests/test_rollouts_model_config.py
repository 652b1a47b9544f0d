"""What in a config.json keeps a model from being a policy."""

import pytest

from rollouts.model_config import policy_fault

DEEPSEEK = {
    "model_type": "deepseek_v3",
    "n_routed_experts": 8,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
}


def fault(*, lora: bool = False, cuda: bool = False, **fields) -> str:
    return policy_fault(DEEPSEEK | fields, lora=lora, cuda=cuda) or ""


def test_what_can_be_trained():
    assert policy_fault(DEEPSEEK, lora=False, cuda=False) is None
    assert policy_fault(DEEPSEEK, lora=True, cuda=True) is None
    assert policy_fault({"model_type": "llama"}, lora=True, cuda=False) is None
    assert fault(moe_layer_freq=1, rope_interleave=True, quantization_config=None) == ""
    # Sizes for which only CPUs have no kernel.
    assert fault(kv_lora_rank=256, cuda=True) == ""


@pytest.mark.parametrize("cuda", [False, True])
@pytest.mark.parametrize("lora", [False, True])
def test_quantised_weights(cuda: bool, lora: bool):
    """As the config of DeepSeek's own checkpoint has it."""
    fp8 = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8"}
    assert fault(quantization_config=fp8, cuda=cuda, lora=lora) == (
        "its weights are quantised (fp8), which cannot be trained: convert the checkpoint to "
        "bfloat16 first, and its config.json must then hold no quantization_config"
    )


@pytest.mark.parametrize(
    ("name", "value", "agreed"),
    [
        ("topk_method", "greedy", "'noaux_tc'"),
        ("topk_method", None, "'noaux_tc'"),
        ("scoring_func", "softmax", "'sigmoid'"),
        ("moe_layer_freq", 2, "1"),
        ("rope_interleave", False, "True"),
    ],
)
def test_what_engine_and_trainer_read_unalike(name: str, value: object, agreed: str):
    assert fault(**{name: value}) == (
        f"its config.json has {name} {value!r}, by which trainer and engine would compute "
        f"differently: only {agreed} can be trained"
    )


def test_left_out_the_engine_would_take_another_router():
    for name in ("topk_method", "scoring_func"):
        rest = {n: v for n, v in DEEPSEEK.items() if n != name}
        found = policy_fault(rest, lora=False, cuda=True)
        assert found and f"has {name} None" in found


def test_what_only_a_cpu_lacks():
    assert fault(lora=True).startswith("policy.lora.rank cannot be used with experts on a CPU")
    qwen = {"model_type": "qwen3_moe", "num_experts": 8}
    assert policy_fault(qwen, lora=False, cuda=False) is None
    assert policy_fault(qwen, lora=True, cuda=False) is not None
    assert fault(kv_lora_rank=256) == (
        "its latent attention has kv_lora_rank 256 and qk_rope_head_dim 64: vLLM computes only 512 "
        "and 64 on a CPU"
    )
