"""The trainer's model: logprobs of packed batches, a frozen reference, and the weights to publish."""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.autograd.graph import save_on_cpu
from transformers import AutoModelForCausalLM

from rl.attention import NAME as PACKED
from rl.compiling import compile_layers, compiled_layers, uncompile_layers
from rl.dealing import computed, dealt, parts_of
from rl.forward import known_fault, plain_attention, row_hidden, single_hidden
from rl.fsdp import (
    assign,
    few_whole_layers,
    float32_shards,
    is_sharded,
    local,
    part_of,
    shard,
    skeleton,
    whole_state,
)
from rl.linear import use_native_linear, use_plain_linear
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
from rl.packing import Batch
from rl.publish import CheckpointWeights, check_same_buffers
from rl.ranks import ALONE, Ranks
from rl.rows import make_row
from rl.sharing import few_layers
from rollouts.adapters import AdapterShape

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """How the trainer computes."""

    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Of the forward and backward passes, and of what is published; masters stay float32. float16
    has eight times the precision of bfloat16 and a narrow range: its loss is scaled."""
    micro_batch_tokens: int = 4096
    """Most tokens, prompts included, in one forward and backward pass."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    activation_offload: bool = False
    """Keep what the layers need for the backward pass in the host's memory until then. Without
    gradient checkpointing that is much, weights included; with it each layer's input. Nothing
    moves on a CPU."""
    compile: bool = True
    """Fuse each layer's element-wise work by torch.compile, where the device's compiler is
    installed (rl/compiling.py)."""
    float32_head: bool = False
    """Compute logits in float32 whatever the dtype (MiniMax-M1, ScaleRL): slower, and nearer to
    an engine that does the same."""
    fsdp: bool = False
    """With several processes: shard parameters, gradients and moments over them (rl/fsdp.py), in
    place of a whole copy in each."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    """Train low-rank adapters instead of the full weights."""


class Policy:
    """The model being trained, its masters and optimizer, and the reference it is held to.

    Attributes:
        model: transformers' causal LM in the compute dtype.
        adapter: With LoRA the shape of what is trained and published, else None.
        optimizer: Float32 masters and moments of what is trained.
        packed: Whether sequences share a row; else each has a forward pass of its own.
        reference: What is trained, by name, as the KL term's reference has it (this process's part
            of it, if sharded); None before there is one, which with LoRA means the base.
        ranks: The processes that train it together.
    """

    def __init__(
        self,
        folder: Path,
        config: PolicyConfig,
        optimizer: OptimizerConfig,
        *,
        seed: int = 0,
        ranks: Ranks = ALONE,
    ):
        """Load a checkpoint folder; `seed` draws the adapters."""
        self.config, self.ranks = config, ranks
        self.dtype = dtype = getattr(torch, config.dtype)
        self.sharded = config.fsdp and self.ranks.count > 1
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.adapter: AdapterShape | None = None
        scaled: dict[str, float] = {}
        if config.lora.rank:
            self.adapter = add_adapters(model, config.lora, dtype, seed)
            scaled = factors(model, config.lora)
        self.model = model.to("cpu" if self.sharded else self.ranks.device).train()
        self.model.config.use_cache = False
        if config.gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self._compute: Callable[[Batch, float], tuple[Tensor, Tensor]] = self._computed
        if self.sharded:
            self._compute = shard(
                self.model, self._computed, self.ranks, dtype, offload=optimizer.offload
            )
        self.optimizer = MasterOptimizer(self.model, optimizer, dtype, scaled, self.ranks)
        use_native_linear(self.model)
        self.packed = True
        self.model.set_attn_implementation(PACKED)
        if reason := known_fault(self.model):
            self.unpack(reason)
        elif config.compile and not self.sharded:
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
        return self.ranks.device

    @property
    def head(self) -> Tensor:
        """The output embedding, [V, H]."""
        return self.model.get_output_embeddings().weight

    def logprobs(self, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
        """Logprob and entropy of each sampled token, zeros elsewhere, both [T] float32.

        Where the model is sharded all processes must call it together, each with a batch of its own.
        """
        return self._compute(batch, temperature)

    def _computed(self, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
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
        with self._activations():
            return self._hidden(batch)

    def _activations(self) -> AbstractContextManager[None]:
        """Where what is saved for the backward pass of the work inside is kept."""
        if not self.config.activation_offload:
            return nullcontext()
        return save_on_cpu(pin_memory=self.device.type == "cuda")

    def _hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.packed:
            row = make_row(batch)
            try:
                with compiled_layers(self.model):
                    return row_hidden(self.model, row), row.places
            except TorchDynamoException as error:
                reason = " ".join(str(error).splitlines()[:2]) or type(error).__name__
                logger.warning("layers are not compiled: %s", reason)
                uncompile_layers(self.model)
                return self._hidden(batch)
        sequences = batch.token_ids.split(batch.lengths)
        states = torch.cat([single_hidden(self.model, ids) for ids in sequences])
        return states, torch.arange(len(states), device=states.device)

    def micro_batches(self, batch: Batch) -> list[Batch]:
        """This process's parts of an update's batch; if sharded as many as any process has."""
        return dealt(self._parts(batch), self.ranks, equal=self.sharded)

    def _parts(self, batch: Batch) -> list[Batch]:
        return parts_of(batch, self.config.micro_batch_tokens, self.ranks.count)

    @torch.no_grad()
    def frozen_logprobs(self, batch: Batch, temperature: float) -> Tensor:
        """Logprobs of a whole batch without gradient, in micro-batches, [T] on the CPU."""

        def compute(part: Batch) -> Tensor:
            return self.logprobs(part.to(self.device), temperature)[0].cpu()

        if not len(batch):
            return torch.zeros(0)
        return computed(self._parts(batch), self.ranks, compute, equal=self.sharded)

    def reference_logprobs(self, batch: Batch, temperature: float) -> Tensor:
        """As `frozen_logprobs`, by the reference."""
        with self._reference_weights():
            return self.frozen_logprobs(batch, temperature)

    def refresh_reference(self) -> None:
        """Make the policy of now the reference; with LoRA a copy of the adapters is all of it."""
        self.reference = {
            name: local(param).to(self.dtype, copy=True) for name, param in self._trained().items()
        }

    def read_reference(self, folder: Path) -> None:
        """Make another checkpoint of this architecture the reference."""
        other = AutoModelForCausalLM.from_pretrained(folder, dtype=self.dtype)
        check_same_buffers(self.model, other)
        self.load_reference({name: param.detach() for name, param in other.named_parameters()})

    def load_reference(self, tensors: Mapping[str, Tensor]) -> None:
        """Make whole tensors the reference; of sharded ones this process's part."""
        trained = self._trained()
        self.reference = {
            n: part_of(t, trained[n]).to(local(trained[n]).device) for n, t in tensors.items()
        }

    def published(self) -> Mapping[str, Tensor]:
        """What an engine is given, in order: the weights, or with LoRA the adapters alone.

        The trainer's own tensors where an engine takes them as they are; others made on access.
        """
        return adapter_state(self.model) if self.adapter else self.weights()

    def weights(self) -> Mapping[str, Tensor]:
        """Weights in checkpoint format (`CheckpointWeights`); with LoRA those of the base."""
        state = self._untied_state()
        if self.sharded:  # gathered in the compute dtype
            state = {n: t.to(self.dtype) if is_sharded(t) else t for n, t in state.items()}
        return CheckpointWeights(self.model, state)

    def save_pretrained(self, folder: Path | None) -> None:
        """A plain checkpoint, adapters merged; processes that only give their shards say None."""
        model, state = self.model, None
        if self.adapter:
            state = merged_state(self.model)
        elif self.sharded:  # gathered one by one, and kept by the process that writes
            model = skeleton(self.model, self.dtype)
            whole = whole_state(self._untied_state(), self.dtype)
            state = {name: tensor.cpu() for name, tensor in whole if folder}
        if folder:
            model.save_pretrained(folder, state_dict=state)

    def float32_copy(self) -> nn.Module:
        """The bytes that compute in float32, by transformers alone; sharded as the model is."""
        if self.sharded:
            return float32_shards(self.model, self.dtype, self.ranks)
        exact = copy.deepcopy(self.model).float()
        use_plain_linear(exact)
        exact.set_attn_implementation(plain_attention(exact))
        return exact.eval()

    def few_layers(self, exact: nn.Module) -> tuple[nn.Module, dict[str, str]]:
        """`rl.sharing.few_layers` of a float32 copy, whole where that is sharded."""
        if self.sharded:
            return few_whole_layers(self.model, self.dtype, self.device)
        return few_layers(exact)

    def _untied_state(self) -> dict[str, Tensor]:
        tied = set(getattr(self.model, "all_tied_weights_keys", None) or ())
        return {n: t for n, t in base_state(self.model).items() if n not in tied}

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
        own = {n: local(p).clone() if self.sharded else p.data for n, p in trained.items()}
        try:
            for name, param in trained.items():
                assign(param, reference[name])
            yield
        finally:
            for name, param in trained.items():
                assign(param, own[name])
