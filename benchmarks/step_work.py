"""What the subjects of `benchmarks.step --against` are given, and what each of them writes.

A work file (`StepWork`) or a file of rollouts (`FixedRollouts`) goes in, a result
(`StepResult`) comes out, all JSON. Imports no torch: the driver reads these as well.

Shapes: S steps, P problems, G group.
"""

import hashlib
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TimeToAccuracy:
    """Train on answers instead of on the coin, and stop once they are good enough.

    Every step brings problems that were not trained on, so its mean reward is the accuracy of
    the policy that the step starts from. No step of such a run is watched for memory.
    """

    answers: tuple[tuple[str, ...], ...]
    """[S][P], what `rewards.mathematics.numeric_reward` compares with."""
    target: float
    """Stop when the mean reward of the last `window` steps is at least this."""
    window: int = 3
    """Steps that the mean is taken over."""


@dataclass(frozen=True, kw_only=True)
class StepWork:
    """The same work for every subject; its first step is for warming up.

    Example: 3 timed steps of 8 x 8 completions: 4 steps of 8 prompts, group 8, max_tokens 64.
    """

    model: str
    """A checkpoint folder."""
    prompts: tuple[tuple[tuple[int, ...], ...], ...]
    """[S][P] token ids, in the order in which they are trained on."""
    texts: tuple[tuple[str, ...], ...]
    """[S][P], the prompts as text, for trainers that tokenize by themselves."""
    group: int = 8
    """Completions of each prompt, G."""
    max_tokens: int = 64
    """Most tokens of a completion, the end token included."""
    learning_rate: float = 2e-5
    """Constant, of AdamW without weight decay."""
    kv_gib: int = 2
    """Size of the engine's KV pool, in GiB."""
    temperature: float = 1.0
    """Of sampling, and of the logprobs that are trained."""
    dtype: str = "bfloat16"
    """The engine's and the forward pass's."""
    seed: int = 0
    """Of sampling."""
    lengths: tuple[tuple[tuple[int, ...], ...], ...] | None = None
    """[S][P][G] tokens of each completion, which no end token ends earlier; None: the model decides."""
    signal_groups: tuple[int, ...] | None = None
    """[S] how many of a step's groups, the first, the coin is thrown for; None: all of them."""
    time_to_accuracy: TimeToAccuracy | None = None
    """None: the coin decides, and every step is run."""

    def __post_init__(self) -> None:
        """Refuse work whose parts do not fit together."""
        answers = self.time_to_accuracy.answers if self.time_to_accuracy else self.texts
        sizes = [[len(step) for step in part] for part in (self.prompts, self.texts, answers)]
        if sizes[0] != sizes[1] or sizes[0] != sizes[2] or len(set(sizes[0])) != 1:
            raise ValueError(f"prompts, texts and answers need one shape [S][P], got {sizes}")
        if self.time_to_accuracy is None and len(self.prompts) < 2:
            raise ValueError(
                f"{len(self.prompts)} steps; the first is not timed, so give at least 2"
            )
        if self.lengths is not None:
            shapes = [[[len(group) for group in step] for step in self.lengths]]
            if shapes != [[[self.group] * len(step) for step in self.prompts]]:
                raise ValueError(f"lengths need one shape [S][P][{self.group}], got {shapes[0]}")

    @property
    def problems(self) -> int:
        """Prompts in a step, P."""
        return len(self.prompts[0])

    @property
    def longest(self) -> int:
        """Most tokens of a sequence, prompt and completion together."""
        return max(len(ids) for step in self.prompts for ids in step) + self.max_tokens

    def warms_up(self, step: int) -> bool:
        """True for a step whose times do not count."""
        return self.time_to_accuracy is None and step == 0

    def flat_lengths(self, step: int) -> list[int] | None:
        """The lengths of a step, group after group."""
        if self.lengths is None:
            return None
        return [length for group in self.lengths[step] for length in group]


@dataclass(frozen=True, kw_only=True)
class FixedRollouts:
    """One batch of rollouts, so that updates alone can be compared.

    Attributes:
        prompts: [P] token ids.
        completions: [P][G] token ids.
        logprobs: [P][G] of each sampled token, by the policy that drew it.
        rewards: [P][G].
    """

    prompts: tuple[tuple[int, ...], ...]
    completions: tuple[tuple[tuple[int, ...], ...], ...]
    logprobs: tuple[tuple[tuple[float, ...], ...], ...]
    rewards: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        """Refuse arrays that do not describe the same tokens."""
        lengths = [[len(ids) for ids in group] for group in self.completions]
        if lengths != [[len(row) for row in group] for group in self.logprobs]:
            raise ValueError("every sampled token needs one logprob")
        sizes = [len(group) for group in self.completions]
        if sizes != [len(group) for group in self.rewards] or len(set(sizes)) != 1:
            raise ValueError("every group needs the same number of completions and rewards")
        if len(self.prompts) != len(sizes) or not min(map(min, lengths)):
            raise ValueError("every group needs a prompt, and every completion a token")

    @property
    def group(self) -> int:
        """Completions of each prompt, G."""
        return len(self.rewards[0])

    @property
    def num_tokens(self) -> int:
        """Sampled tokens, those of groups without signal included."""
        return sum(len(ids) for group in self.completions for ids in group)

    @property
    def with_signal(self) -> tuple[int, ...]:
        """The groups whose rewards differ."""
        return tuple(i for i, rewards in enumerate(self.rewards) if max(rewards) > min(rewards))


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """One step; seconds of the wall clock. What the four phases leave over is `other_s`."""

    step_s: float
    sample_s: float = 0.0
    score_s: float = 0.0
    update_s: float = 0.0
    publish_s: float = 0.0
    sampled_tokens: int = 0
    """Drawn from the policy, end tokens included."""
    trained_tokens: int = 0
    """Sampled tokens that went through the update's forward and backward pass."""
    sequence_tokens: int = 0
    """Tokens of the sequences that were trained, prompts included, padding left out."""
    padded_tokens: int = 0
    """Tokens that the model computed in the update, prompts and padding included."""
    reward_mean: float = 0.0
    signal_frac: float = 0.0
    """Of the groups, those whose rewards differ."""
    warm_up: bool = False
    """The first of its kind: not to be counted as time."""
    batch: int = 0
    """Which of the given batches of rollouts was trained."""

    @property
    def other_s(self) -> float:
        """What is in none of the phases."""
        return self.step_s - self.sample_s - self.score_s - self.update_s - self.publish_s


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a subject measured; written after every step, so that a kill leaves the rest."""

    subject: str
    steps: tuple[StepRow, ...] = ()
    peak_memory_bytes: int = 0
    """Highest of the process and its children, from its start (`benchmarks.memory`)."""
    kv_pool_bytes: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    """What only this subject measures."""

    def timed(self, batch: int = 0) -> list[StepRow]:
        """The rows that count, of one batch."""
        return [row for row in self.steps if not row.warm_up and row.batch == batch]

    def median(self, name: str = "step_s", batch: int = 0) -> float:
        """Median of a field over the rows that count."""
        return statistics.median(getattr(row, name) for row in self.timed(batch))

    @property
    def peak_memory_without_pool_bytes(self) -> int:
        """The peak less the KV pool, which the engine fills with zeros when it starts."""
        return max(0, self.peak_memory_bytes - self.kv_pool_bytes)

    def write(self, path: Path) -> None:
        """Replace the file in one go; derived values stand beside the fields."""
        steps = [asdict(row) | {"other_s": row.other_s} for row in self.steps]
        without = {"peak_memory_without_pool_bytes": self.peak_memory_without_pool_bytes}
        _replace(path, asdict(self) | {"steps": steps} | without)


def write(path: Path, data: StepWork | FixedRollouts) -> None:
    """Write work or rollouts as JSON."""
    _replace(path, asdict(data))


def read_work(path: Path) -> StepWork:
    """A work file; ValueError where it is none."""
    data = _read(path)
    if data.get("time_to_accuracy") is not None:
        data["time_to_accuracy"] = _build(TimeToAccuracy, data["time_to_accuracy"], path)
    return _build(StepWork, data, path)


def read_rollouts(path: Path) -> FixedRollouts:
    """A file of rollouts; ValueError where it is none."""
    return _build(FixedRollouts, _read(path), path)


def read_result(path: Path) -> StepResult:
    """What a subject wrote."""
    data = _read(path)
    data.pop("peak_memory_without_pool_bytes")
    rows = [{k: v for k, v in row.items() if k != "other_s"} for row in data["steps"]]
    data["steps"] = tuple(_build(StepRow, row, path) for row in rows)
    return _build(StepResult, data, path)


def coin_value(text: str) -> float:
    """A reward that has nothing to do with the answer: 0 or 1 by a hash of the text.

    Nearly every group has signal under it: of eight fair coins, all are equal in 1 of 128.
    """
    return float(hashlib.sha256(text.encode()).digest()[0] % 2)


def rewards_of(work: StepWork, step: int, texts: Sequence[Sequence[str]]) -> list[list[float]]:
    """The rewards [P][G] of a step's completions, by the coin or by the work's answers."""
    return [[reward_of(work, step, row, text) for text in group] for row, group in enumerate(texts)]


def reward_of(work: StepWork, step: int, row: int, text: str) -> float:
    """The reward of one completion of a step's prompt."""
    if work.time_to_accuracy is None:
        thrown = work.signal_groups is None or row < work.signal_groups[step]
        return coin_value(text) if thrown else 0.0
    from rewards.mathematics import numeric_reward
    from rewards.problem import Problem, Response

    answer = work.time_to_accuracy.answers[step][row]
    problem = Problem(id=f"{step}", prompt="", answer=answer, source="work")
    return numeric_reward(problem, Response(text=text)).value


def good_enough(work: StepWork, rows: Sequence[StepRow]) -> bool:
    """True once the steps so far reach the target of `time_to_accuracy`."""
    goal = work.time_to_accuracy
    if goal is None or len(rows) < goal.window:
        return False
    return sum(row.reward_mean for row in rows[-goal.window :]) / goal.window >= goal.target


def _replace(path: Path, data: dict[str, Any]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(data))
    partial.replace(path)


def _read(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text())
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds no JSON object")
    return data


def _build(cls: type, data: dict[str, Any], path: Path) -> Any:
    try:
        return cls(**{name: _frozen(value) for name, value in data.items()})
    except TypeError as error:
        raise ValueError(f"{path} is no {cls.__name__}: {error}") from error


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
