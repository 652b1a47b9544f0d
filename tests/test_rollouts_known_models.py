"""What is known of models by heart comes to the parameters of their checkpoints."""

import pytest

from rl.architecture import read_architecture
from rollouts.known_models import KNOWN_MODELS
from rollouts.model_config import read_model_config

PARAMETERS = {
    # As the checkpoints' safetensors hold them; DeepSeek-V3's 671,026,419,200 without the 58 x 256
    # biases of its routers, which are buffers, and without its multi-token module.
    "smollm2-135m-instruct": 134_515_008,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen2.5-32B": 32_763_876_352,
    "Qwen/Qwen2.5-Math-7B": 7_615_616_512,
    "Qwen/Qwen3-30B-A3B-Base": 30_532_122_624,
    "deepseek-ai/DeepSeek-V3-Base": 671_026_419_200 - 58 * 256,
}


@pytest.mark.parametrize("name", KNOWN_MODELS)
def test_parameters(name: str):
    assert read_architecture(read_model_config(name)).parameters == PARAMETERS[name]
