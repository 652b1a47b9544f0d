"""A round's groups packed for the page: one gzip blob, to be read beside the run's pieces.

A blob is a 4-byte little-endian length, a JSON header of that length, and planes of bytes: the
low bytes of all token ids, their next bytes, logprobs, log-ratios. Planes compress better than
the ids themselves. Logprobs and log-ratios take one byte each, finest near 0:

    logprob   = -20 (q / 254)^2                     0.00008 off at 0, 0.02 at -1, 0.08 at -20
    log-ratio = 2 ((q - 127) / 127)^2, signed       0.00003 off at 0, 0.005 at 0.2, cut at 2

q = 255: there is none. The page's js/blobs.js is the other side of this.
"""

import gzip
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from recipes.page.pieces import Pieces
from recipes.page.run_reader import shown_value
from rl.trained import Trained
from rollouts.rollout import Group, Rollout

LOWEST_LOGPROB = 20.0
WIDEST_RATIO = 2.0
ABSENT = 255
COMPRESSION = 6


def encode_round(
    groups: Sequence[Group],
    trained: Mapping[tuple[int, int], Trained] | None,
    pieces: Pieces | None,
    places: Sequence[int] | None = None,
) -> bytes:
    """The blob of a round, or of the groups at some `places` of it.

    Without `pieces` it holds texts in place of tokens.
    """
    places = range(len(groups)) if places is None else places
    kept = [(place, groups[place]) for place in places]
    header: dict[str, Any] = {
        "groups": [_group(place, group, trained, pieces) for place, group in kept],
        "has_trainer": trained is not None,
    }
    planes: list[bytes] = []
    if pieces:
        sequences = [ids for _, group in kept for ids in _token_ids(group)]
        flat = np.concatenate([np.asarray(s, dtype=np.int64) for s in sequences] or [_NONE])
        header["id_planes"] = 2 if flat.max(initial=0) < 1 << 16 else 3
        for place in range(header["id_planes"]):
            planes.append(((flat >> 8 * place) & 255).astype(np.uint8).tobytes())
        planes.append(b"".join(_logprobs(r) for _, group in kept for r in group.rollouts))
        if trained is not None:
            planes.append(
                b"".join(
                    _ratios(rollout, trained.get((place, sample)))
                    for place, group in kept
                    for sample, rollout in enumerate(group.rollouts)
                )
            )
    told = json.dumps(header, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    whole = struct.pack("<I", len(told)) + told + b"".join(planes)
    return gzip.compress(whole, COMPRESSION, mtime=0)


_NONE = np.zeros(0, dtype=np.int64)


def encode_pieces(pieces: Pieces, token_ids: Iterable[int]) -> bytes:
    """The blob of what tokens are made of: texts, or bytes where these are no whole characters."""
    known = sorted(token for token in set(token_ids) if token in pieces.of)
    told = {
        "ids": known,
        "pieces": [_piece(pieces.of[token]) for token in known],
        "special": sorted(pieces.special & set(known)),
    }
    return gzip.compress(json.dumps(told, separators=(",", ":")).encode(), COMPRESSION, mtime=0)


def _group(
    place: int,
    group: Group,
    trained: Mapping[tuple[int, int], Trained] | None,
    pieces: Pieces | None,
) -> dict[str, Any]:
    problem = group.problem
    return {
        "place": place,
        "id": problem.id,
        "source": problem.source,
        "answer": shown_value(problem.answer),
        "prompt": shown_value(problem.prompt),
        "prompt_tokens": _prompt_length(group),
        "rollouts": [
            _rollout(r, (trained or {}).get((place, sample)), pieces)
            for sample, r in enumerate(group.rollouts)
        ],
    }


def _rollout(rollout: Rollout, trained: Trained | None, pieces: Pieces | None) -> dict[str, Any]:
    response, score = rollout.response, rollout.score
    drawn = [p for p, flag in zip(rollout.logprobs, rollout.sampled, strict=True) if flag]
    told: dict[str, Any] = {
        "tokens": len(rollout.token_ids) - _prompt_tokens(rollout),
        "sampled": len(drawn),
        "finish": response.finish,
        "limit": response.max_tokens,
        "verdict": str(score.verdict),
        "value": _shown(score.value),
        "parts": {name: _shown(value) for name, value in score.parts.items()},
        "versions": sorted({version for version, _, _ in rollout.versions}),
        "logprob": _shown(sum(drawn) / len(drawn)) if drawn else None,
    }
    if response.prefill:
        told["prefill"] = response.prefill
    if trained is not None:
        told |= {"advantage": _shown(trained.advantage), "update": trained.update}
    if pieces is None:
        told["text"] = response.text
    return told


def _token_ids(group: Group) -> list[Sequence[int]]:
    """The prompt once, then what follows it in each rollout."""
    start = _prompt_length(group)
    prompt = group.rollouts[0].token_ids[:start] if group.rollouts else ()
    return [prompt, *(r.token_ids[_prompt_tokens(r) :] for r in group.rollouts)]


def _prompt_length(group: Group) -> int:
    return _prompt_tokens(group.rollouts[0]) if group.rollouts else 0


def _prompt_tokens(rollout: Rollout) -> int:
    """Tokens before the first sampled one; all of them if none was sampled."""
    return rollout.sampled.index(True) if True in rollout.sampled else len(rollout.sampled)


def _piece(data: bytes) -> str | list[int]:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return list(data)


def _logprobs(rollout: Rollout) -> bytes:
    start = _prompt_tokens(rollout)
    arrays = rollout.arrays
    low = np.clip(np.nan_to_num(-arrays.logprobs[start:], nan=LOWEST_LOGPROB), 0, LOWEST_LOGPROB)
    codes = np.rint(254 * np.sqrt(low / LOWEST_LOGPROB))
    return np.where(arrays.sampled[start:], codes, ABSENT).astype(np.uint8).tobytes()


def _ratios(rollout: Rollout, trained: Trained | None) -> bytes:
    """log pi - log mu of each token after the prompt."""
    start = _prompt_tokens(rollout)
    arrays = rollout.arrays
    sampled = arrays.sampled[start:]
    codes = np.full(len(sampled), ABSENT, dtype=np.uint8)
    if trained is not None and len(trained.logprobs) == arrays.num_sampled:
        gap = np.nan_to_num(trained.logprobs - arrays.logprobs[start:][sampled])
        wide = np.clip(gap, -WIDEST_RATIO, WIDEST_RATIO) / WIDEST_RATIO
        codes[sampled] = np.rint(127 + 127 * np.sign(wide) * np.sqrt(np.abs(wide)))
    return codes.tobytes()


def _shown(value: float) -> float | None:
    """Five digits; JSON has no infinities."""
    return float(f"{value:.5g}") if np.isfinite(value) else None
