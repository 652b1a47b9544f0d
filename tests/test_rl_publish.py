"""Weights under their checkpoint's names, made one layer at a time, whole from shards."""

import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rl.publish import HEAD, CheckpointWeights
from tests.packed_models import FAMILIES, deepseek_v3

ROOT = Path(__file__).resolve().parent.parent


def saved_and_loaded(model, folder):
    """What `save_pretrained` wrote, and the model that was loaded from there."""
    model.save_pretrained(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return load_file(folder / "model.safetensors"), loaded


def weights_of(model):
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    state = {n: t.detach() for n, t in model.state_dict().items() if n not in tied}
    return CheckpointWeights(model, state)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_they_are_what_is_saved_and_the_head(family, tmp_path):
    saved, model = saved_and_loaded(family(), tmp_path)
    weights = weights_of(model)
    assert set(weights) == set(saved) | {HEAD}
    assert len(weights) == len(list(weights)) == len(saved | {HEAD: 0})
    assert all(torch.equal(weights[name], tensor) for name, tensor in saved.items())
    head = model.get_output_embeddings().weight
    assert weights[HEAD].data_ptr() == head.data_ptr()
    told = {name: (shape.dtype, shape.shape) for name, shape in weights.shapes.items()}
    assert told == {name: (tensor.dtype, tensor.shape) for name, tensor in weights.items()}
    assert all(shape.is_meta for shape in weights.shapes.values())
    # In order, each layer's together.
    numbers = [name.split(".")[2] for name in weights if ".layers." in name]
    assert numbers == sorted(numbers)


def test_what_is_held_as_it_is_saved_is_not_copied(tmp_path):
    _, model = saved_and_loaded(FAMILIES[0](), tmp_path)
    own = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert {tensor.data_ptr() for tensor in weights_of(model).values()} == own


def test_names_are_known_without_making_anything(tmp_path, monkeypatch):
    saved, model = saved_and_loaded(deepseek_v3(), tmp_path)
    weights = weights_of(model)
    monkeypatch.setattr(CheckpointWeights, "__getitem__", None)
    assert sorted(weights) == sorted({*saved, HEAD})
    assert "model.layers.1.mlp.experts.0.gate_proj.weight" in weights
    assert "model.layers.1.mlp.experts.gate_up_proj" not in weights


def test_one_layers_tensors_at_a_time(tmp_path):
    config = deepseek_v3().config
    config.num_hidden_layers = 5
    _, model = saved_and_loaded(type(deepseek_v3())(config), tmp_path)
    weights = weights_of(model)
    own = {tensor.data_ptr() for tensor in model.state_dict().values()}
    made = {}  # layer: references to what was made for it
    for name, tensor in weights.items():
        if tensor.untyped_storage().data_ptr() in own:
            continue
        layer = name.split(".")[2]
        made.setdefault(layer, []).append(weakref.ref(tensor))
        for other, references in made.items():
            assert other == layer or not any(reference() for reference in references)
    assert {layer: len(references) for layer, references in made.items()} == {
        str(layer): 16 for layer in range(1, 5)
    }
