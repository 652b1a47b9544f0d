"""Layers fused by torch.compile compute what they are; and what happens where nothing compiles."""

import copy
import logging

import pytest
import torch
import torch._dynamo
from torch._dynamo.exc import BackendCompilerFailed, TorchDynamoException
from torch._dynamo.utils import counters
from transformers import LlamaForCausalLM

import rl.compiling
import rl.policy
import rollouts.process
from rl.compiling import compile_layers, compiler, uncompile_layers
from rl.objective import LossConfig
from rl.optimizer import OptimizerConfig
from rl.policy import Policy, PolicyConfig
from rl.update import update
from tests.packed_models import batch_of, deepseek_v3, llama

# Rows of 64 places and of 128.
SHORT, LONG = batch_of([(5, [9, 3]), (4, [7])]), batch_of([(40, [30, 3]), (9, [20])])
TEMPERATURE = 0.7
needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler, no Triton")


@pytest.fixture(autouse=True)
def without_the_tests_setting(monkeypatch):
    """In other tests torch.compile does nothing (conftest.py)."""
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama")
    llama().save_pretrained(path)
    return path


def make_policy(folder, **config):
    config = PolicyConfig(**{"dtype": "float32"} | config)
    # Moments without memory are gradients.
    return Policy(folder, config, OptimizerConfig(max_grad_norm=1e9, betas=(0.0, 0.999)))


def trained(batch):
    """The same tokens with something to learn at each."""
    draw = torch.Generator().manual_seed(3)
    advantages = torch.randn(len(batch), generator=draw)
    weights = batch.sampled / batch.sampled.sum()
    behaviour = -3 * torch.rand(len(batch), generator=draw)
    return batch.__class__(
        token_ids=batch.token_ids,
        positions=batch.positions,
        segments=batch.segments,
        sampled=batch.sampled,
        behaviour_logprobs=behaviour,
        advantages=advantages,
        token_weights=weights,
    )


def step(policy, batch):
    """An update's metrics, and its gradients."""
    config = LossConfig(entropy_coefficient=0.01)
    metrics = update(policy, trained(batch), config, temperature=TEMPERATURE, rate=0.0)
    state = policy.optimizer.state()
    return metrics, {n: t.clone() for n, t in state.items() if n.startswith("exp_avg/")}


def num_compiled(model):
    return sum(module._compiled_call_impl is not None for module in model.modules())


def failing(error):
    """In place of a layer's compiled call."""

    def call(*_, **__):
        raise error

    return call


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.name.startswith("rl.")]


@needs_compiler
def test_compiled_updates_are_the_plain_ones(folder):
    """And are compiled once for all layers of a kind and rows of any length."""
    torch._dynamo.reset()
    counters.clear()
    plain, policy = make_policy(folder, compile=False), make_policy(folder)
    checkpointed = make_policy(folder, gradient_checkpointing=True)
    assert [num_compiled(p.model) for p in (plain, policy, checkpointed)] == [0, 2, 2]
    graphs = []
    with torch._dynamo.config.patch(disable=True):  # as the engine leaves it
        for compiled, batch in (
            (policy, SHORT),
            (policy, LONG),
            (checkpointed, LONG),
            (policy, SHORT),
        ):
            assert_same(step(compiled, batch), step(plain, batch))
            graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0 and graphs == graphs[:1] * 4


def assert_same(found, expected):
    """Metrics and gradients; these to 1e-5 of the whole's size."""
    assert found[0] == pytest.approx(expected[0], rel=1e-4, abs=1e-6)
    size = torch.stack([g.norm() for g in expected[1].values()]).norm()
    gaps = {n: ((found[1][n] - g).norm() / size).item() for n, g in expected[1].items()}
    assert max(gaps.values()) < 1e-5, gaps


@needs_compiler
def test_a_copy_of_a_compiled_model_is_not_compiled(folder):
    policy = make_policy(folder)
    assert num_compiled(policy.model) == 2
    assert num_compiled(copy.deepcopy(policy.model)) == 0
    assert num_compiled(policy.model) == 2


@needs_compiler
def test_an_unpacked_policy_is_not_compiled(folder):
    policy = make_policy(folder)
    policy.unpack("a test")
    assert num_compiled(policy.model) == 0
    # Else these would raise.
    assert policy.frozen_logprobs(SHORT, TEMPERATURE)[SHORT.sampled].lt(0).all()


def test_the_setting_leaves_layers_as_they_are(folder):
    assert num_compiled(make_policy(folder, compile=False).model) == 0


def test_without_a_compiler_nothing_is_compiled(folder, monkeypatch, caplog):
    monkeypatch.setattr(rl.compiling, "compiler", lambda: None)
    with caplog.at_level(logging.WARNING, logger="rl"):
        policy = make_policy(folder)
    assert num_compiled(policy.model) == 0
    assert warnings(caplog) == []


def test_layers_alone_are_compiled(monkeypatch):
    monkeypatch.setattr(rl.compiling, "compiler", lambda: "some compiler")
    model = llama()
    compile_layers(model)
    compiled = [m for m in model.modules() if m._compiled_call_impl]
    assert compiled == list(model.get_decoder().layers)
    uncompile_layers(model)
    assert num_compiled(model) == 0


def test_a_model_without_a_list_of_layers_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(rl.compiling, "compiler", lambda: "some compiler")
    model = llama()
    del model.get_decoder().layers
    compile_layers(model)
    assert num_compiled(model) == 0


def test_the_compiler_is_the_first_that_is_installed(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    installed = {"g++", "clang++"}
    monkeypatch.setattr(rollouts.process.shutil, "which", lambda name: name in installed)
    monkeypatch.delenv("CXX", raising=False)
    assert compiler() == "g++"
    monkeypatch.setenv("CXX", "clang++")
    assert compiler() == "clang++"
    monkeypatch.setenv("CXX", "no such compiler")
    assert compiler() == "g++"
    installed.remove("g++")
    assert compiler() == "clang++"
    installed.clear()
    assert compiler() is None


@pytest.mark.parametrize("found", ["triton", None])
def test_on_cuda_the_compiler_is_triton(monkeypatch, found):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(rl.compiling, "find_spec", lambda name: found and name == "triton")
    assert compiler() == found


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BackendCompilerFailed(failing, OSError("no linker\nat all"), None), "OSError: no linker"),
        (TorchDynamoException("unsupported\nFrom user code"), "unsupported"),
        (TorchDynamoException(), "TorchDynamoException"),
    ],
    ids=["backend", "dynamo", "nothing said"],
)
def test_layers_that_do_not_compile_run_as_they_are(folder, caplog, error, words):
    plain, policy = make_policy(folder, compile=False), make_policy(folder)
    for layer in policy.model.get_decoder().layers:
        layer._compiled_call_impl = failing(error)
    with caplog.at_level(logging.WARNING, logger="rl"):
        metrics, found = step(policy, SHORT)
        step(policy, LONG)
    (warning,) = warnings(caplog)
    assert warning.startswith("layers are not compiled: ") and words in warning
    assert "\n" not in warning
    assert num_compiled(policy.model) == 0
    assert policy.packed
    expected_metrics, expected = step(plain, SHORT)
    assert metrics == expected_metrics
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


def test_other_errors_of_a_layer_are_not_hidden(folder):
    policy = make_policy(folder, compile=False)
    policy.model.get_decoder().layers[1]._compiled_call_impl = failing(RuntimeError("broken"))
    with pytest.raises(RuntimeError, match="broken"):
        step(policy, SHORT)


def test_dynamo_is_on_inside_alone():
    with torch._dynamo.config.patch(disable=True):
        with rl.compiling.compiled_layers(LlamaForCausalLM):
            assert not torch._dynamo.config.disable
        assert torch._dynamo.config.disable


@needs_compiler
def test_layers_with_experts_run_as_they_are():
    """How many tokens an expert gets is not known before it computes: inductor refuses it."""
    model = deepseek_v3()
    compile_layers(model)
    compiled = [layer._compiled_call_impl is not None for layer in model.model.layers]
    assert compiled == [True, False]
