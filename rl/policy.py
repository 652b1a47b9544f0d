"""The trainer's model: logprobs of packed batches, a frozen reference, and the weights to publish."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from transformers import AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion

from rl.attention import NAME as PACKED
from rl.compiling import compile_layers, compiled_layers, uncompile_layers
from rl.linear import use_native_linear
from rl.logprobs import sampled_logprobs
from rl.lora import (
    LoraSettings,
    adapter_state,
    add_adapters,
    base_state,
    factors,
    merged_state,
)
from rl.optimizer import MasterOptimizer, OptimizerConfig
from rl.packing import Batch, micro_batches
from rl.rows import Row, make_row
from rollouts.adapters import AdapterShape

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """How the trainer computes."""

    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Of the forward and backward passes, and of what is published; masters stay float32. float16
    has eight times the precision of bfloat16 and a narrow range: its loss is scaled."""
    micro_batch_tokens: int = 2048
    """Most tokens, prompts included, in one forward and backward pass."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    compile: bool = True
    """Fuse each layer's element-wise work by torch.compile, where the device's compiler is
    installed (rl/compiling.py)."""
    float32_head: bool = False
    """Compute logits in float32 whatever the dtype (MiniMax-M1, ScaleRL): slower, and nearer to
    an engine that does the same."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    """Train low-rank adapters instead of the full weights."""


class Policy:
    """The model being trained, its masters and optimizer, and the reference it is held to.

    Attributes:
        model: transformers' causal LM in the compute dtype.
        adapter: With LoRA the shape of what is trained and published, else None.
        optimizer: Float32 masters and moments of what is trained.
        packed: Whether sequences share a row; else each has a forward pass of its own.
        reference: What is trained, by name, as the KL term's reference has it; None before there is
            one, which with LoRA means the base.
    """

    def __init__(
        self, folder: Path, config: PolicyConfig, optimizer: OptimizerConfig, *, seed: int = 0
    ):
        """Load a checkpoint folder; `seed` draws the adapters."""
        self.config = config
        dtype = getattr(torch, config.dtype)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.adapter: AdapterShape | None = None
        scaled: dict[str, float] = {}
        if config.lora.rank:
            self.adapter = add_adapters(model, config.lora, dtype, seed)
            scaled = factors(model, config.lora)
        self.model = model.to(device).train()
        self.model.config.use_cache = False
        if config.gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.optimizer = MasterOptimizer(self.model, optimizer, dtype, scaled)
        use_native_linear(self.model)
        self.packed = True
        self.model.set_attn_implementation(PACKED)
        if reason := known_fault(self.model):
            self.unpack(reason)
        elif config.compile:
            compile_layers(self.model)
        self.reference: dict[str, Tensor] | None = None

    def unpack(self, reason: str) -> None:
        """Give each sequence a forward pass of its own from now on, by the model's own attention."""
        logger.warning("sequences are not packed: %s", reason)
        self.packed = False
        uncompile_layers(self.model)
        self.model.set_attn_implementation(plain_attention(self.model))

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
        hidden, places = self.hidden(batch)
        return sampled_logprobs(
            hidden,
            places,
            self.head.float() if self.config.float32_head else self.head,
            batch.token_ids,
            batch.sampled,
            temperature=temperature,
            softcap=getattr(self.model.config.get_text_config(), "final_logit_softcapping", None),
        )

    def hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Last hidden states [U, H], and where in them each token of the batch is, [T]."""
        if self.packed:
            row = make_row(batch)
            try:
                with compiled_layers(self.model):
                    return row_hidden(self.model, row), row.places
            except TorchDynamoException as error:
                reason = " ".join(str(error).splitlines()[:2]) or type(error).__name__
                logger.warning("layers are not compiled: %s", reason)
                uncompile_layers(self.model)
                return self.hidden(batch)
        sequences = batch.token_ids.split(batch.lengths)
        states = torch.cat([single_hidden(self.model, ids) for ids in sequences])
        return states, torch.arange(len(states), device=states.device)

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
        """Make the policy of now the reference; with LoRA a copy of the adapters is all of it."""
        self.reference = {n: p.detach().clone() for n, p in self._trained().items()}

    def published(self) -> dict[str, Tensor]:
        """What an engine is given: the weights, or with LoRA the adapters alone.

        The tensors are the ones that the trainer computes with, not copies.
        """
        return adapter_state(self.model) if self.adapter else self.weights()

    def weights(self) -> dict[str, Tensor]:
        """Weights in checkpoint format, as `save_pretrained` names and shapes them, plus the tied head.

        With LoRA those of the base. No copies.
        """
        tied = set(getattr(self.model, "all_tied_weights_keys", None) or ())
        state = {n: t for n, t in base_state(self.model).items() if n not in tied}
        state = revert_weight_conversion(self.model, state)
        if "lm_head.weight" not in state:
            state["lm_head.weight"] = self.head.detach()
        return state

    def save_pretrained(self, folder: Path) -> None:
        """A plain checkpoint folder, in the compute dtype, with any adapters merged."""
        state = merged_state(self.model) if self.adapter else None
        self.model.save_pretrained(folder, state_dict=state)

    def _trained(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    @contextmanager
    def _reference_weights(self) -> Iterator[None]:
        """The model holds the reference's weights inside, its own again after."""
        trained = self._trained()
        reference = self.reference
        if reference is None:
            assert self.adapter, "refresh_reference comes first"
            reference = {n: torch.zeros_like(p) for n, p in trained.items()}  # adds nothing
        own = {name: param.data for name, param in trained.items()}
        try:
            _assign(trained, reference)
            yield
        finally:
            _assign(trained, own)


def known_fault(model: nn.Module) -> str | None:
    """Why a model set to `PACKED` cannot share rows, told without computing; `rl.sharing` tells more."""
    name = type(model).__name__
    if getattr(model, "_is_stateful", False):
        return f"{name} carries a state from token to token"
    if model.config._attn_implementation != PACKED:
        return f"the attention of {name} cannot be replaced"
    return None


def plain_attention(model: nn.Module) -> str:
    """transformers' own attention for one sequence: its sdpa ignores soft-caps."""
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    return "sdpa" if getattr(model, "_supports_sdpa", True) and not capped else "eager"


def row_hidden(model: nn.Module, row: Row) -> Tensor:
    """Last hidden states [U, H] of a packed row. The model's attention must be `rl.attention.NAME`."""
    return _body(model, row.token_ids, row.positions, row_layout=row.layout)


def single_hidden(model: nn.Module, token_ids: Tensor) -> Tensor:
    """Last hidden states [T, H] of one sequence, by the model's own attention."""
    return _body(model, token_ids, torch.arange(len(token_ids), device=token_ids.device))


def _body(model: nn.Module, token_ids: Tensor, positions: Tensor, **layout: Any) -> Tensor:
    out = model.get_decoder()(
        input_ids=token_ids[None], position_ids=positions[None], use_cache=False, **layout
    )
    return out.last_hidden_state[0]


def _assign(params: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    for name, param in params.items():
        param.data = tensors[name]
