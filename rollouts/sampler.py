"""What the loop is written against: something that samples (and its settings), and a task.

Imports neither torch nor vLLM, so that a command line can speak before they load.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from rewards.problem import Problem, Response, Score
from rollouts.rollout import Completion, Request

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """What the engine needs beyond the model."""

    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Weights and activations; the trainer computes in the same."""
    max_concurrent: int = 128
    """Requests that are sampled at once; the KV pool is computed from it."""
    max_kv_gib: float = 4.0
    """Upper bound of the KV pool on CPU, in GiB. Requests that find no room wait."""
    gpu_memory_frac: float = 0.45
    """Of a GPU's memory, for weights and KV pool together. The trainer has the rest, and all of it while the engine sleeps."""
    compile: bool = False
    """Let vLLM compile the model: about 20% faster sampling, a minute's start, needs a C++ compiler on CPU."""
    proof_parts: int = 16
    """Each publish proves one part of this many, all of it at first and after a resume."""
    tensor_parallel: int = 1
    """Processes of a machine that share an engine, each with its part of the weights and KV cache."""


class Sampler(Protocol):
    """A source of completions whose weights can be replaced."""

    def sample(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Yield one completion a request, as they finish, in no promised order."""
        ...

    def publish(self, weights: Mapping[str, Any], version: int) -> None:
        """Replace the weights by tensors under their checkpoint names, and prove them."""
        ...


class Task(Protocol):
    """A data set with its reward. Problems of different splits never meet."""

    @property
    def name(self) -> str:
        """The first part of its problems' ids and sources."""
        ...

    def problems(self, split: Split) -> list[Problem]:
        """All problems of a split, in an order that never changes."""
        ...

    def score(self, problem: Problem, response: Response) -> Score:
        """Grade a response to one of its problems; never raises on model text."""
        ...
