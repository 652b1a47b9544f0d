"""The trainer's model: logprobs of packed batches, a frozen reference, and the weights to publish."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion

from rl.attention import NAME as PACKED
from rl.attention import RowLayout
from rl.logprobs import sampled_logprobs
from rl.optimizer import MasterOptimizer, OptimizerConfig
from rl.packing import Batch, micro_batches

logger = logging.getLogger(__name__)

ROW_MULTIPLE = 64
"""Packed rows are filled up to a multiple of so many tokens: oneDNN compiles kernels for every
shape that it meets and keeps a thousand of them, which is time and memory."""


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """How the trainer computes."""

    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the forward and backward passes, and of what is published; masters stay float32."""
    micro_batch_tokens: int = 2048
    """Most tokens, prompts included, in one forward and backward pass."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""


class Policy:
    """The model being trained, its masters and optimizer, and the reference it is held to.

    Attributes:
        model: transformers' causal LM in the compute dtype.
        optimizer: Float32 masters and moments.
        packed: Whether sequences share a row; else each has a forward pass of its own.
        reference: Frozen weights by name for the KL term, or None.
    """

    def __init__(self, folder: Path, config: PolicyConfig, optimizer: OptimizerConfig):
        self.config = config
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.model = model.to(device).train()
        self.model.set_attn_implementation(PACKED)
        self.model.config.use_cache = False
        if config.gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.optimizer = MasterOptimizer(self.model, optimizer, getattr(torch, config.dtype))
        self.packed = True
        self.reference: dict[str, Tensor] | None = None

    def unpack(self, reason: str) -> None:
        """Give each sequence a forward pass of its own from now on, by the model's own attention."""
        logger.warning("sequences are not packed: %s", reason)
        self.packed = False
        self.model.set_attn_implementation("sdpa")

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.model.device

    @property
    def head(self) -> Tensor:
        """The output embedding, [V, H]."""
        return self.model.get_output_embeddings().weight

    def logprobs(self, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
        """Logprob and entropy of each sampled token, zeros elsewhere, both [T] float32."""
        hidden = self.hidden(batch)
        return sampled_logprobs(
            hidden, self.head, batch.token_ids, batch.sampled, temperature=temperature
        )

    def hidden(self, batch: Batch) -> Tensor:
        """Last hidden states of a packed batch, [T, H]."""
        if self.packed:
            return packed_hidden(self.model, *filled_row(batch))[: len(batch)]
        sequences = batch.token_ids.split(batch.lengths)
        return torch.cat([single_hidden(self.model, ids) for ids in sequences])

    @torch.no_grad()
    def frozen_logprobs(self, batch: Batch, temperature: float) -> Tensor:
        """Logprobs of a whole batch without gradient, in micro-batches, [T] on the CPU."""
        if not len(batch):
            return torch.zeros(0)
        parts = micro_batches(batch, self.config.micro_batch_tokens)
        return torch.cat([self.logprobs(p.to(self.device), temperature)[0].cpu() for p in parts])

    def reference_logprobs(self, batch: Batch, temperature: float) -> Tensor:
        """As `frozen_logprobs`, by the reference."""
        with self._reference_weights():
            return self.frozen_logprobs(batch, temperature)

    def refresh_reference(self) -> None:
        """Make the policy of now the reference."""
        self.reference = {n: p.detach().clone() for n, p in self.model.named_parameters()}

    def published(self) -> dict[str, Tensor]:
        """Weights in checkpoint format, as `save_pretrained` names and shapes them, plus the tied head.

        The tensors are the ones that the trainer computes with, not copies.
        """
        state = self._saved_state()
        if "lm_head.weight" not in state:
            state["lm_head.weight"] = self.head.detach()
        return state

    def save_pretrained(self, folder: Path) -> None:
        """A plain checkpoint folder, in the compute dtype."""
        self.model.save_pretrained(folder)

    def _saved_state(self) -> dict[str, Tensor]:
        tied = set(getattr(self.model, "all_tied_weights_keys", None) or ())
        state = {n: t.detach() for n, t in self.model.state_dict().items() if n not in tied}
        return revert_weight_conversion(self.model, state)

    @contextmanager
    def _reference_weights(self) -> Iterator[None]:
        """The model holds the reference's weights inside, its own again after."""
        assert self.reference is not None, "refresh_reference comes first"
        own = {name: param.data for name, param in self.model.named_parameters()}
        try:
            _assign(self.model, self.reference)
            yield
        finally:
            _assign(self.model, own)


def filled_row(batch: Batch) -> tuple[Tensor, Tensor, list[int]]:
    """Ids, positions and lengths of a batch with one more sequence, of zeros, that fills the row."""
    ids, positions, lengths = batch.token_ids, batch.positions, batch.lengths
    if gap := -len(batch) % ROW_MULTIPLE:
        ids = torch.cat([ids, ids.new_zeros(gap)])
        positions = torch.cat([positions, torch.arange(gap, device=positions.device)])
        lengths = [*lengths, gap]
    return ids, positions, lengths


def packed_hidden(
    model: nn.Module, token_ids: Tensor, positions: Tensor, lengths: list[int]
) -> Tensor:
    """Last hidden states [T, H] of sequences packed into one row, each seeing itself alone.

    The model's attention must be `rl.attention.NAME`.
    """
    layout = RowLayout.of(lengths, token_ids.device)
    return _body(model, token_ids, positions, row_layout=layout)


def single_hidden(model: nn.Module, token_ids: Tensor) -> Tensor:
    """Last hidden states [T, H] of one sequence, by the model's own attention."""
    return _body(model, token_ids, torch.arange(len(token_ids), device=token_ids.device))


def _body(model: nn.Module, token_ids: Tensor, positions: Tensor, **layout: Any) -> Tensor:
    out = model.get_decoder()(
        input_ids=token_ids[None], position_ids=positions[None], use_cache=False, **layout
    )
    return out.last_hidden_state[0]


def _assign(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, param in model.named_parameters():
        param.data = tensors[name]
