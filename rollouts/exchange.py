"""Requests into an engine and completions out of it, checked both ways."""

from collections.abc import Set
from typing import Any

from rollouts.rollout import Completion, Request, VersionSpan

UNPUBLISHED = "default"
"""vLLM's name for weights that it read from the checkpoint."""


class EngineError(RuntimeError):
    """The engine died or broke its contract; the run can be resumed."""


class TransferError(RuntimeError):
    """Weights did not arrive everywhere; the workers that waited for them are of no use now."""


def check_fits(request: Request, limit: int) -> None:
    """Raise ValueError if prompt and completion together exceed `limit` tokens."""
    num_tokens = len(request.token_ids)
    if num_tokens + request.sampling.max_tokens > limit:
        raise ValueError(
            f"request {request.id}: {num_tokens} prompt tokens and max_tokens "
            f"{request.sampling.max_tokens} exceed the engine's {limit}: lower max_tokens, or drop "
            "longer prompts"
        )


def sampling_fields(request: Request) -> dict[str, Any]:
    """What vLLM is told of how to sample a request."""
    sampling = request.sampling
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_tokens": sampling.max_tokens,
        "seed": request.seed,
        "logprobs": 0,
        "flat_logprobs": True,
        "detokenize": False,
    }


def completion_of(output: Any, request: Request, tokenizer: Any, ends: Set[int]) -> Completion:
    """A finished request's completion; `ends` are the ids that end one.

    Raises EngineError where it continued something else, or ended without a reason that we know.
    """
    if tuple(output.prompt_token_ids) != request.token_ids:
        raise EngineError(f"request {request.id}: the engine continued other prompt ids")
    sampled = output.outputs[0]
    if sampled.finish_reason not in ("stop", "length"):
        raise EngineError(f"request {request.id} finished as {sampled.finish_reason!r}")
    token_ids = tuple(sampled.token_ids)
    ended = sampled.finish_reason == "stop"
    if ended and token_ids[-1] not in ends:
        raise EngineError(f"request {request.id} stopped at {token_ids[-1]}, no end token")
    return Completion(
        request_id=request.id,
        token_ids=token_ids,
        logprobs=tuple(sampled.logprobs.logprobs),
        text=tokenizer.decode(token_ids[:-1] if ended else token_ids, skip_special_tokens=True),
        finish="stop" if ended else "length",
        versions=tuple(_span(span) for span in sampled.weight_versions or ()),
    )


def _span(span: Any) -> VersionSpan:
    version = -1 if span.version == UNPUBLISHED else int(span.version)
    return version, span.start, span.end
