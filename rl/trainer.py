"""What a run is told of its loop, and what it is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from rl.clock import Reporter
from rl.objective import LossConfig
from rl.packing import PackingConfig
from rl.policy import Policy
from rl.recording import KeptLogprobs
from rl.run_folder import RunFolder
from rollouts.collect import Collector
from rollouts.ledger import Ledger
from rollouts.sampler import Sampler


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, how much, how often. A round is one sampling; an update is one optimizer step."""

    num_rounds: int = 40
    """Rounds of the whole run."""
    problems_per_round: int = 16
    """Problems drawn for a round."""
    group_size: int = 16
    """Completions of each problem, G."""
    refills: int = 0
    """Dynamic sampling (DAPO): groups without signal are replaced by groups of further problems, at
    most so many times a round; 0 trains on what the round's problems gave."""
    updates_per_round: int = 1
    """Optimizer steps a round feeds; each takes an equal share of whole groups."""
    temperature: float = 1.0
    """Of sampling."""
    max_tokens: tuple[tuple[int, int], ...] = ((0, 64),)
    """(from this update on, limit of sampled tokens), in order; the first starts at 0."""
    seed: int = 0
    """Of the run: draws, requests and minibatches derive from it."""
    evaluate_every: int = 0
    """Rounds between evaluations on the validation split, each with a checkpoint; 0 for none."""
    best_by: Literal["pass_at_1", "pass_at_k", "maj_at_k"] = "pass_at_1"
    """The metric of the validation split by which the best checkpoint is kept."""
    final: Literal["last", "best"] = "last"
    """The run's result, the only one that the test split is read for: the last round's, or the best."""
    save_every: int = 10
    """Rounds between checkpoints: at most so many rounds of updates are repeated after a kill."""
    keep_last: int = 2
    """Checkpoints kept besides the best one."""
    max_staleness: int = 0
    """Rounds that sampling may run ahead of training, with rollouts:ray; 0 samples each round with the
    weights that it trains."""
    keep_logprobs: KeptLogprobs = "update"
    """A second file a round for recipes.view: advantages, and the trainer's logprobs as its updates
    computed them, or `after` the round's last one (a forward pass more); or none."""


class Publisher(Sampler, Protocol):
    """A sampler in this process: versioned, with sleep and a prefix cache."""

    version: int

    def reset_prefix_cache(self) -> None: ...
    def sleep(self) -> None: ...
    def wake(self, *parts: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What a run is made of."""

    config: TrainConfig
    packing: PackingConfig
    loss: LossConfig
    policy: Policy
    engine: Publisher
    collector: Collector
    ledger: Ledger
    folder: RunFolder
    report: Reporter
    evaluate: Callable[[str], None]
    """Evaluates the engine's weights on the validation split and writes it under a label."""
    should_stop: Callable[[], bool]
