"""All that a run's memory and time depend on, one value for the planner's arithmetic."""

from dataclasses import dataclass

from rl.activations import Lengths, row_places
from rl.architecture import Architecture
from rl.optimizer import OptimizerConfig
from rl.policy import PolicyConfig
from rollouts.device_memory import ITEM_BYTES
from rollouts.sampler import EngineConfig


@dataclass(frozen=True, kw_only=True)
class Demand:
    """All that memory depends on.

    Attributes:
        lengths: Of training's sequences.
        groups, group_size: Of one update.
        reference: Whether a KL term keeps one.
        engine_tokens: Longest sequence that the engine must hold.
        requests: Most that it is given at once.
        compiled: Whether layers are fused.
        scorers: Scoring processes.
        adapted: With LoRA, inputs and outputs of each adapted layer; else empty.
        gpu_bytes: Of the GPU; None on a CPU.
        native: Whether the kernels in C++ compute (rl/native.py).
        shards: Processes over which the trainer's states are spread (FSDP).
    """

    arch: Architecture
    policy: PolicyConfig
    optimizer: OptimizerConfig
    engine: EngineConfig
    lengths: Lengths
    groups: int
    group_size: int
    reference: bool
    engine_tokens: int
    requests: int
    compiled: bool
    scorers: int
    adapted: tuple[tuple[int, int], ...] = ()
    gpu_bytes: int | None = None
    native: bool = False
    shards: int = 1

    @property
    def itemsize(self) -> int:
        """Bytes of a weight that is computed with."""
        return ITEM_BYTES[self.policy.dtype]

    @property
    def adapter_parameters(self) -> int:
        """Of all adapters, 0 without LoRA."""
        return self.policy.lora.rank * sum(map(sum, self.adapted))

    @property
    def full_states(self) -> bool:
        """Whether masters and moments are float32: those of adapters always are."""
        return self.optimizer.states != "bfloat16" or bool(self.adapted)

    @property
    def concurrent(self) -> int:
        """Requests that the engine samples at once."""
        return min(self.engine.max_concurrent, self.requests)

    @property
    def places(self) -> int:
        """Of the fullest row: a micro-batch, or the whole update where that is smaller."""
        whole = self.groups * (self.lengths.prompt + self.group_size * self.lengths.longest)
        return row_places(min(self.policy.micro_batch_tokens, whole))
