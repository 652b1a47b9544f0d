"""A model's weights as its checkpoint names and shapes them, made one layer at a time, on access.

An engine takes them in their order and its proof reads some again, so nobody ever holds a second
copy of a model whose weights must first be split, joined or gathered.
"""

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.core_model_loading import revert_weight_conversion

HEAD = "lm_head.weight"
_LAYER = re.compile(r"(.+?\.\d+)\.")


class CheckpointWeights(Mapping[str, Tensor]):
    """Weights by checkpoint name, as `save_pretrained` writes them, and a tied head too.

    A tensor that the model holds as it is saved is given as it is, without a copy. Others are
    made when they are asked for, with their layer, which is kept until another is. Shards
    (DTensors) are gathered: then every rank must ask for the same names in the same order.
    """

    def __init__(self, model: nn.Module, state: Mapping[str, Tensor]):
        """Take the model's state by its own names, its tied names left out; computes nothing."""
        self._model, self._state = model, state
        self._held: dict[str, str] = {}  # checkpoint name: the model's
        self._layers: dict[str, list[str]] = {}  # checkpoint name: the model's of its layer
        self.shapes: dict[str, Tensor] = {}  # checkpoint name: a tensor without data
        head = model.get_output_embeddings().weight
        self._head = next(own for own, param in model.named_parameters() if param is head)
        self._made: tuple[list[str], dict[str, Tensor]] = ([], {})
        for own in _by_layer(state):
            empty = {name: torch.empty_like(state[name], device="meta") for name in own}
            sources = {id(tensor): name for name, tensor in empty.items()}
            for name, tensor in revert_weight_conversion(model, empty).items():
                if id(tensor) in sources:
                    self._held[name] = sources[id(tensor)]
                self._layers[name] = own
                self.shapes[name] = tensor
        if HEAD not in self.shapes:
            self.shapes[HEAD] = torch.empty_like(state[self._head], device="meta")

    def __getitem__(self, name: str) -> Tensor:
        if name == HEAD and name not in self._layers:
            return _whole(self._state[self._head])
        if name in self._held:
            return _whole(self._state[self._held[name]])
        own = self._layers[name]
        if self._made[0] is not own:
            self._made = ([], {})  # before the next is made, not after
            whole = {name: _whole(self._state[name]) for name in own}
            self._made = (own, revert_weight_conversion(self._model, whole))
        return self._made[1][name]

    def __contains__(self, name: object) -> bool:
        return name in self._layers or name == HEAD

    def __iter__(self) -> Iterator[str]:
        yield from self._layers
        if HEAD not in self._layers:
            yield HEAD

    def __len__(self) -> int:
        return len(self._layers.keys() | {HEAD})


def saved_buffers(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint of the model holds beside parameters: DeepSeek-V3's router biases, frozen."""
    params = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in params}


def check_same_buffers(model: nn.Module, reference: nn.Module) -> None:
    """Raise ValueError if a reference has others: it is computed in the model, with the model's."""
    theirs = saved_buffers(reference)
    for name, tensor in saved_buffers(model).items():
        if not torch.equal(tensor, theirs[name].to(tensor)):
            raise ValueError(
                f"loss.reference_model has another {name} than the model, which stays as it is in "
                "training: choose the checkpoint that this training started from"
            )


def _by_layer(state: Mapping[str, Tensor]) -> list[list[str]]:
    """The names of each layer, and each of the others alone, in their order."""
    layers: dict[str, list[str]] = {}
    for name in state:
        found = _LAYER.match(name)
        layers.setdefault(found[1] if found else name, []).append(name)
    return list(layers.values())


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
