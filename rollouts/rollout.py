"""The types of sampling: requests, completions, and rollouts gathered into scored groups.

A rollout is one flat token sequence; every array over tokens is aligned to `token_ids`.
"""

from array import array
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from rewards.problem import Problem, Response, Score

SIGNAL_TOLERANCE = 1e-9
"""Rewards of a group that are closer than this are equal: nothing can be learnt from them."""

VersionSpan = tuple[int, int, int]
"""(version, start, stop): the weights of `version` drew `token_ids[start:stop]`."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn. Training changes temperature only; the rest is for evaluation.

    Example: `Sampling(temperature=1.0, max_tokens=24)`.
    """

    temperature: float = 1.0
    max_tokens: int = 64
    top_p: float = 1.0
    top_k: int = -1


@dataclass(frozen=True, kw_only=True)
class Request:
    """One completion to be sampled.

    Example: the second sample of the first problem drawn in round 3 is
    `Request(id="3/0/1", token_ids=(1, 9690, ...), sampling=..., seed=77, min_version=3)`. A
    continuation is a request whose ids include earlier output.

    Attributes:
        id: Unique among the requests in flight.
        token_ids: The rendered prompt, as ids.
        seed: Of this request alone; the same seed and weights draw the same tokens.
        min_version: The engine's weights must be at least this new.
    """

    id: str
    token_ids: tuple[int, ...]
    sampling: Sampling
    seed: int
    min_version: int = 0


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What the engine sampled for a request.

    Example: `Completion(request_id="3/…/1", token_ids=(40, 2), logprobs=(-0.1, -0.02),
    text="8", finish="stop", versions=((3, 0, 2),))`; the end token 2 is among the ids, not in the text.

    Attributes:
        token_ids: The sampled ids only, the end-of-sequence token included.
        logprobs: Of each sampled id under the distribution it was drawn from.
        text: The ids decoded, special tokens left out.
        finish: "stop" (an end token) or "length" (the limit).
        versions: Spans over `token_ids` and the version of the weights that drew each.
    """

    request_id: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish: str
    versions: tuple[VersionSpan, ...]

    @property
    def num_tokens(self) -> int:
        """How many were sampled."""
        return len(self.token_ids)


@dataclass(frozen=True, kw_only=True)
class TokenArrays:
    """A rollout's tuples as arrays, the part of packing that needs no other rollout.

    Example: sampled ids (40, 2) after the prompt (1, 5, 6): token_ids [1 5 6 40 2], sampled
    [F F F T T], logprobs [0 0 0 -0.1 -0.02], num_sampled 2.

    Attributes:
        token_ids: [T] int64.
        sampled: [T] bool.
        logprobs: [T] float32.
        num_sampled: How many of `sampled` are True.
    """

    token_ids: np.ndarray
    sampled: np.ndarray
    logprobs: np.ndarray
    num_sampled: int


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One scored sequence: a prompt and what was sampled after it, never re-tokenised.

    Example: prompt ids (1, 5, 6) and sampled ids (40, 2) give token_ids (1, 5, 6, 40, 2),
    sampled (F, F, F, T, T), logprobs (0, 0, 0, -0.1, -0.02), versions ((3, 3, 5),).

    Attributes:
        token_ids: Prompt, sampled tokens (and later tool output) in one sequence, [T].
        sampled: True where the policy drew the token, [T].
        logprobs: The sampler's; 0.0 where nothing was sampled, [T].
        response: What the grader saw.
        score: What it said.
        versions: Spans over `token_ids` and the version that drew each.
    """

    token_ids: tuple[int, ...]
    sampled: tuple[bool, ...]
    logprobs: tuple[float, ...]
    response: Response
    score: Score
    versions: tuple[VersionSpan, ...]

    @cached_property
    def arrays(self) -> TokenArrays:
        """The tokens as arrays, made once: by whoever asks first, in whatever thread."""
        # Through the buffer protocol: two to five times as fast as numpy reads a tuple.
        return TokenArrays(
            token_ids=np.frombuffer(array("q", self.token_ids), dtype=np.int64),
            sampled=np.frombuffer(bytes(self.sampled), dtype=np.bool_),
            logprobs=np.frombuffer(array("f", self.logprobs), dtype=np.float32),
            num_sampled=sum(self.sampled),
        )

    def rescored(self, score: Score) -> "Rollout":
        """The same tokens, and the same arrays if they are made, under another score."""
        other = replace(self, score=score)
        if "arrays" in vars(self):
            vars(other)["arrays"] = self.arrays
        return other


@dataclass(frozen=True, kw_only=True)
class Group:
    """All rollouts of one problem in one round; advantages are computed within it.

    Example: four rollouts of "What is 3 + 5?" of which one is right: rewards (0, 1, 0, 0).
    """

    problem: Problem
    rollouts: tuple[Rollout, ...]

    @property
    def rewards(self) -> tuple[float, ...]:
        """The value of each rollout's score, [G]."""
        return tuple(rollout.score.value for rollout in self.rollouts)

    @property
    def has_signal(self) -> bool:
        """False where all rewards are equal."""
        return max(self.rewards) - min(self.rewards) > SIGNAL_TOLERANCE
