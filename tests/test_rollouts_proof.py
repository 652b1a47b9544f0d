"""The proof of the engine's weights: faults planted in the engine itself, behind the transport.

Each fault comes after an honest publish, or hides inside one, as a bug of the engine would;
what was published is right every time.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from rollouts.engine import Engine
from rollouts.exchange import EngineError
from rollouts.proof import Proof, WeightProofError
from rollouts.rollout import Request, Sampling

NUM_TENSORS = 15  # two layers of qkv, o, gate_up, down and two norms; embedding, head, last norm
PARTS = 4  # the fixtures' proof_parts: 4, 4, 4 and 3 tensors
LAYER = "model.layers.1"
on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="packed layers exist on CPU only")


@pytest.fixture(params=["bf16_engine", "engine"])
def proved(request, monkeypatch, weights: dict[str, torch.Tensor]) -> Iterator[Engine]:
    """An engine in either dtype, honestly published to; and again after the test."""
    engine = request.getfixturevalue(request.param)
    engine.publish(weights.items(), engine.version + 1)
    yield engine
    monkeypatch.undo()
    engine.publish(weights.items(), engine.version + 1)
    engine.prove(weights, whole=True)


def change_model(engine: Engine, change: Callable[[nn.Module], None]) -> None:
    engine._llm.apply_model(change)


def in_module(name: str, change: Callable[[nn.Module], None]) -> Callable[[nn.Module], None]:
    return lambda model: change(model.get_submodule(name))


def next_step(tensor: torch.Tensor, *index: int) -> torch.Tensor:
    """A copy with one element moved to the next number of bfloat16, or of its own type if wider."""
    moved = tensor.clone()
    value = moved[index]
    moved[index] = torch.nextafter(value, torch.tensor(torch.inf, dtype=value.dtype))
    assert (moved != tensor).sum() == 1
    return moved


def repack(layer: nn.Module, weight: torch.Tensor) -> None:
    """Pack `weight` into `layer` as vLLM does after loading; its plain weight stays as it was."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    plain = layer.weight
    layer.weight = nn.Parameter(weight.to(plain.dtype), requires_grad=False)
    dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
    layer.weight = plain


def stack(weights: Mapping[str, torch.Tensor], *names: str) -> torch.Tensor:
    return torch.cat([weights[f"{LAYER}.{name}.weight"] for name in names])


def spoil_loading(monkeypatch, engine: Engine, spoil: Callable[[dict], dict]) -> None:
    """Let the engine's next loads read `spoil(tensors)` instead of the tensors sent."""

    def wrap(model: nn.Module) -> None:
        load = model.load_weights
        monkeypatch.setattr(model, "load_weights", lambda pairs: load(spoil(dict(pairs)).items()))

    change_model(engine, wrap)


def swap(first: str, second: str) -> Callable[[dict], dict]:
    def spoil(tensors: dict) -> dict:
        return tensors | {first: tensors[second], second: tensors[first]}

    return spoil


def drop(name: str) -> Callable[[dict], dict]:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def new_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every tensor changed, as by an update; the tied head with its embedding."""
    return {name: (tensor * 1.5).contiguous() for name, tensor in weights.items()}


# An honest publish.


def test_the_first_proof_is_of_the_whole_and_the_next_of_a_part(make_engine, tiny_model, weights):
    engine = make_engine(tiny_model, "bfloat16")
    proofs = [engine.publish(weights.items(), version) for version in (1, 2, 3, 4, 5, 6)]
    total = {"num_total": NUM_TENSORS}
    assert proofs == [
        Proof(num_checked=15, version=1, **total),
        Proof(num_checked=4, version=2, **total),
        Proof(num_checked=4, version=3, **total),
        Proof(num_checked=3, version=4, **total),
        Proof(num_checked=4, version=5, **total),  # the rotation begins again
        Proof(num_checked=4, version=6, **total),
    ]
    assert engine.prove(weights, whole=True).num_checked == NUM_TENSORS


def test_a_head_of_its_own_passes(make_engine, untied_model: Path, read_weights):
    engine, weights = make_engine(untied_model, "bfloat16"), read_weights(untied_model)
    assert not torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])
    assert engine.publish(weights.items(), 1).num_checked == NUM_TENSORS
    changed = new_weights(weights)
    engine.publish(changed.items(), 2)
    assert engine.prove(changed, whole=True).num_checked == NUM_TENSORS


def test_new_weights_pass_as_a_whole(proved: Engine, weights):
    changed = new_weights(weights)
    proved.publish(changed.items(), proved.version + 1)
    assert proved.prove(changed, whole=True).num_checked == NUM_TENSORS
    with pytest.raises(WeightProofError):
        proved.prove(weights, whole=True)


def test_before_anything_was_published(make_engine, tiny_model: Path, weights):
    engine = make_engine(tiny_model, "bfloat16")
    with pytest.raises(WeightProofError, match="the engine holds version default"):
        engine.prove(weights)
    first = Request(id="first", token_ids=(3, 4), sampling=Sampling(), seed=0)
    with pytest.raises(AssertionError, match="needs a newer version than -1"):
        list(engine.sample([first]))


@pytest.mark.parametrize("step", [1, 2, 4, 5])
def test_the_rotation_covers_everything(proved: Engine, weights, step: int):
    """One fault is met within as many publishes as there are parts, whatever versions they bear."""
    for name in weights:
        found = 0
        wrong = weights | {name: next_step(weights[name], *[0] * weights[name].ndim)}
        for _ in range(PARTS):
            proved.version += step
            proved._llm.update_weight_version(str(proved.version))
            try:
                proved.prove(wrong)
            except WeightProofError:
                found += 1
                proved._num_proofs += 1  # a failed proof ends a run; here the rotation goes on
        assert found == 1, name


# Faults in loading.


@pytest.mark.parametrize(
    ("name", "blamed"),
    [
        ("model.embed_tokens.weight", "model.embed_tokens.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("model.norm.weight", "model.norm.weight"),
        (f"{LAYER}.self_attn.k_proj.weight", f"{LAYER}.self_attn.qkv_proj.weight"),
        (f"{LAYER}.mlp.down_proj.weight", f"{LAYER}.mlp.down_proj.weight"),
        (f"{LAYER}.input_layernorm.weight", f"{LAYER}.input_layernorm.weight"),
    ],
)
def test_a_skipped_tensor(monkeypatch, proved: Engine, weights, name: str, blamed: str):
    """The engine only warns, and keeps the old tensor or, of a stacked one, nothing."""
    changed = new_weights(weights)
    spoil_loading(monkeypatch, proved, drop(name))
    proved._load(changed, proved.version)
    with pytest.raises(WeightProofError, match=blamed):
        proved.prove(changed, whole=True)


@pytest.mark.parametrize(
    ("first", "second", "blamed"),
    [
        ("self_attn.k_proj", "self_attn.v_proj", "self_attn.qkv_proj"),
        ("mlp.gate_proj", "mlp.up_proj", "mlp.gate_up_proj"),
        ("input_layernorm", "post_attention_layernorm", "input_layernorm"),
    ],
)
def test_two_tensors_swapped(monkeypatch, proved: Engine, weights, first, second, blamed):
    spoil_loading(monkeypatch, proved, swap(f"{LAYER}.{first}.weight", f"{LAYER}.{second}.weight"))
    proved._load(weights, proved.version)
    with pytest.raises(WeightProofError, match=f"{LAYER}.{blamed}.weight: [0-9]+ of [0-9]+"):
        proved.prove(weights, whole=True)


def test_layers_swapped(monkeypatch, proved: Engine, weights):
    names = [f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 1)]
    spoil_loading(monkeypatch, proved, swap(*names))
    proved._load(weights, proved.version)
    with pytest.raises(WeightProofError, match=names[0]):
        proved.prove(weights, whole=True)


def test_query_heads_swapped(monkeypatch, proved: Engine, weights):
    """The rows of the two heads of 64 exchanged: the same numbers in another order."""
    name = f"{LAYER}.self_attn.q_proj.weight"
    spoil_loading(monkeypatch, proved, lambda sent: sent | {name: sent[name].roll(64, 0)})
    proved._load(weights, proved.version)
    with pytest.raises(WeightProofError, match=f"{LAYER}.self_attn.qkv_proj.weight"):
        proved.prove(weights, whole=True)


def test_a_transposed_square(monkeypatch, proved: Engine, weights):
    name = f"{LAYER}.self_attn.o_proj.weight"
    spoil_loading(monkeypatch, proved, lambda sent: sent | {name: sent[name].t().contiguous()})
    proved._load(weights, proved.version)
    with pytest.raises(WeightProofError, match=name):
        proved.prove(weights, whole=True)


def test_a_stale_version(monkeypatch, proved: Engine, weights):
    """The engine did not take the version: the weights may be there, or not."""
    version = proved.version
    monkeypatch.setattr(proved._llm, "update_weight_version", lambda new: None)
    with pytest.raises(WeightProofError, match=f"version {version}, published was {version + 1}"):
        proved.publish(weights.items(), version + 1)


def test_weights_that_never_arrived(monkeypatch, proved: Engine, weights):
    """The version is new, the weights are not."""
    monkeypatch.setattr(proved._llm, "collective_rpc", lambda *args, **kwargs: None)
    with pytest.raises(WeightProofError, match="differ from what was published"):
        proved.publish(new_weights(weights).items(), proved.version + 1)


# How much of it there is at once.


class MadeOnAccess(Mapping):
    """Copies of tensors, and the most elements of such copies that were alive at once."""

    def __init__(self, tensors):
        self.tensors, self.alive, self.most, self.asked = tensors, 0, 0, []

    def __getitem__(self, name):
        made = self.tensors[name].clone()
        self.asked.append(name)
        self.alive += made.numel()
        self.most = max(self.most, self.alive)
        weakref.finalize(made.untyped_storage(), self.gone, made.numel())
        return made

    def gone(self, count):
        self.alive -= count

    def __contains__(self, name):
        return name in self.tensors

    def __iter__(self):
        return iter(self.tensors)

    def __len__(self):
        return len(self.tensors)


def test_weights_stream_through_the_engine_and_its_proof(proved: Engine, weights):
    made = MadeOnAccess(weights)
    assert proved.publish(made, proved.version + 1).num_checked > 0
    assert made.asked[: len(weights)] == list(weights)
    # Of 361,856: head and embedding, which wait for vLLM's padding to the end, and a layer's MLP.
    assert made.most <= 2 * 33_152 + 3 * 32_768
    made.asked.clear()
    made.most = 0
    proof = proved.prove(made, whole=True)
    assert proof.num_checked == proof.num_total
    assert sorted(made.asked) == sorted(weights)
    assert made.most == 2 * 32_768  # gate and up, which the engine holds as one
    assert made.alive == 0


# Which tensors were published.


def test_a_tied_head_must_be_published(proved: Engine, weights):
    with pytest.raises(WeightProofError, match=r"computes with lm_head\.weight, which was not"):
        proved.publish(drop("lm_head.weight")(weights).items(), proved.version + 1)


def test_a_head_that_is_tied_no_more(proved: Engine, weights):
    """The engine has one plain tensor for both: it cannot hold two different ones."""
    untied = weights | {"lm_head.weight": next_step(weights["lm_head.weight"], 0, 0)}
    proved._load(untied, proved.version)
    with pytest.raises(WeightProofError, match=r"(embed_tokens|lm_head)\.weight: 1 of"):
        proved.prove(untied, whole=True)


@pytest.mark.parametrize("name", ["mlp.up_proj", "mlp.down_proj", "input_layernorm"])
def test_a_tensor_missing_from_the_publish(proved: Engine, weights, name: str):
    name = f"{LAYER}.{name}.weight"
    with pytest.raises(WeightProofError, match=f"{name}, which was not published .1 such"):
        proved.publish(drop(name)(weights).items(), proved.version + 1)


def test_a_tensor_the_engine_has_no_place_for(proved: Engine, weights):
    extra = weights | {f"{LAYER}.mlp.extra.weight": torch.ones(2, 2)}
    with pytest.raises(EngineError, match=r"refused version .*layers\.1\.mlp\.extra"):
        proved.publish(extra.items(), proved.version + 1)


def test_a_tensor_the_engine_ignores(proved: Engine, weights):
    """vLLM passes over a bias that it has no place for; the policy computed with it."""
    extra = weights | {f"{LAYER}.mlp.down_proj.bias": torch.ones(128)}
    with pytest.raises(WeightProofError, match=f"{LAYER}.mlp.down_proj.bias was published, but"):
        proved.publish(extra.items(), proved.version + 1)


# Faults in what the engine computes with: one element, by the smallest step.


@on_cpu
@pytest.mark.parametrize(
    ("layer", "pieces"),
    [
        ("self_attn.qkv_proj", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
        ("self_attn.o_proj", ("self_attn.o_proj",)),
        ("mlp.gate_up_proj", ("mlp.gate_proj", "mlp.up_proj")),
        ("mlp.down_proj", ("mlp.down_proj",)),
    ],
)
def test_one_element_of_a_packed_layer(proved: Engine, weights, layer: str, pieces: tuple[str]):
    """An honest repacking passes, one with an element moved by a step does not."""
    honest = stack(weights, *pieces)
    change_model(proved, in_module(f"{LAYER}.{layer}", lambda module: repack(module, honest)))
    proved.prove(weights, whole=True)
    for row in (0, len(honest) - 1):
        wrong = next_step(honest, row, 77)
        change_model(
            proved, in_module(f"{LAYER}.{layer}", lambda module, w=wrong: repack(module, w))
        )
        with pytest.raises(WeightProofError, match=f"{LAYER}.{layer}.weight: 1 of "):
            proved.prove(weights, whole=True)


@on_cpu
def test_one_element_of_the_packed_head(proved: Engine, weights):
    def fault(head: nn.Module) -> None:
        repack(head, next_step(head.weight.data, 258, 127))

    change_model(proved, in_module("lm_head", fault))
    with pytest.raises(WeightProofError, match=r"lm_head.weight.*: 1 of .*first at 33151"):
        proved.prove(weights, whole=True)  # 258 x 128 + 127 = 33,151


@on_cpu
def test_a_stale_packed_head(proved: Engine, weights):
    """The tied head's own packed copy is the one of the publish before; all else is new."""
    changed = new_weights(weights)
    kept = []
    change_model(proved, in_module("lm_head", lambda head: kept.append(head.cpu_linear)))
    proved._load(changed, proved.version)
    proved.prove(changed, whole=True)
    change_model(proved, in_module("lm_head", lambda head: setattr(head, "cpu_linear", kept[0])))
    with pytest.raises(WeightProofError, match=r"lm_head.weight"):
        proved.prove(changed, whole=True)


@pytest.mark.parametrize(
    ("module", "index"),
    [
        ("model.embed_tokens", (258, 127)),
        ("model.norm", (0,)),
        (f"{LAYER}.input_layernorm", (127,)),
        (f"{LAYER}.post_attention_layernorm", (64,)),
    ],
)
def test_one_element_of_a_plain_tensor(proved: Engine, weights, module: str, index: tuple[int]):
    """The embedding is looked up in the plain tensor, though a packed copy lies beside it.

    Where the head is tied, the plain tensor bears both names.
    """

    def fault(changed: nn.Module) -> None:
        changed.weight.data.copy_(next_step(changed.weight.data, *index))

    change_model(proved, in_module(module, fault))
    blamed = "lm_head" if module == "model.embed_tokens" else module
    with pytest.raises(WeightProofError, match=f"{blamed}.weight: 1 of "):
        proved.prove(weights, whole=True)


def test_one_element_of_an_embedding_without_a_tied_head(make_engine, untied_model, read_weights):
    engine, weights = make_engine(untied_model, "bfloat16"), read_weights(untied_model)
    engine.publish(weights.items(), 0)

    def fault(embedding: nn.Module) -> None:
        embedding.weight.data.copy_(next_step(embedding.weight.data, 258, 127))

    change_model(engine, in_module("model.embed_tokens", fault))
    with pytest.raises(WeightProofError, match=r"model\.embed_tokens\.weight: 1 of "):
        engine.prove(weights, whole=True)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_number_that_is_none(proved: Engine, weights, value: float):
    def fault(norm: nn.Module) -> None:
        norm.weight.data[3] = value

    change_model(proved, in_module("model.norm", fault))
    with pytest.raises(
        WeightProofError, match=r"model.norm.weight: 1 of 128 .* first at 3: (nan|inf)"
    ):
        proved.prove(weights, whole=True)
