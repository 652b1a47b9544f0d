"""Which rewards give the same score to the same input, and the key under which it is kept.

A key holds the reward's version and everything that it reads, hashed: model text is long.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from hashlib import sha256
from threading import Lock
from types import MethodType
from typing import Any, TypeVar

from rewards.problem import Problem, Response, Score

Reward = TypeVar("Reward", bound=Callable[..., Any])

PROBLEM_FIELDS = tuple(field.name for field in fields(Problem))
RESPONSE_FIELDS = tuple(field.name for field in fields(Response))
_ATTRIBUTE = "_purity"


@dataclass(frozen=True, kw_only=True)
class Purity:
    """A promise: the score depends on these fields alone, under this version of the code.

    Example: `Purity(version="rewards.tags:format_reward 1", reads=("text", "prefill"))`.
    """

    version: str
    reads: tuple[str, ...]


def pure(*, version: str, reads: Sequence[str]) -> Callable[[Reward], Reward]:
    """Mark a reward whose verdicts may be kept, reading `reads` of Problem and Response.

    Change `version` whenever the reward changes. Example:
    `@pure(version="1", reads=("answer", "text", "prefill"))` above a function.

    Raises:
        ValueError: A name in `reads` is no field of Problem or Response.
    """
    known = (*PROBLEM_FIELDS, *RESPONSE_FIELDS)
    for name in reads:
        if name not in known:
            raise ValueError(f"a pure reward reads {name!r}; the fields are {', '.join(known)}")

    def mark(reward: Reward) -> Reward:
        whole = f"{reward.__module__}:{reward.__qualname__} {version}"
        setattr(reward, _ATTRIBUTE, Purity(version=whole, reads=tuple(reads)))
        return reward

    return mark


def purity_of(reward: Callable[..., Any]) -> Purity | None:
    """What a reward promises, or None. A partial is as pure as its function.

    Arguments of a partial, and the object of a method, count as part of the version; a reward
    among them must be pure too.
    """
    if isinstance(reward, partial):
        return _purity_of_partial(reward)
    purity = getattr(reward, _ATTRIBUTE, None)
    if purity is not None and isinstance(reward, MethodType):
        return replace(purity, version=f"{purity.version} of {reward.__self__!r}")
    return purity


def cache_key(purity: Purity, problem: Problem, responses: Sequence[Response]) -> bytes:
    """A hash of the version and of every field that is read, each told apart by its length."""
    digest = sha256(_framed(purity.version))
    for name in purity.reads:
        owners = [problem] if name in PROBLEM_FIELDS else responses
        for owner in owners:
            digest.update(_framed(repr(getattr(owner, name))))
    return digest.digest()


class ScoreCache:
    """The scores used last, for several threads."""

    def __init__(self, max_entries: int):
        self._max_entries = max_entries
        self._kept: OrderedDict[bytes, list[Score]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: bytes) -> list[Score] | None:
        """The scores under a key, or None."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: bytes, scores: list[Score]) -> None:
        """Keep scores; the one not used for longest gives way."""
        with self._lock:
            self._kept[key] = scores
            if len(self._kept) > self._max_entries:
                self._kept.popitem(last=False)


def _purity_of_partial(reward: partial) -> Purity | None:
    own = purity_of(reward.func)
    if own is None:
        return None
    versions, reads = [own.version], list(own.reads)
    for argument in _leaves([*reward.args, *sorted(reward.keywords.items())]):
        if callable(argument):
            inner = purity_of(argument)
            if inner is None:
                return None
            versions.append(inner.version)
            reads += [name for name in inner.reads if name not in reads]
        else:
            versions.append(repr(argument))
    return Purity(version=" | ".join(versions), reads=tuple(reads))


def _leaves(value: Any) -> list[Any]:
    """Everything inside nested dictionaries, lists and tuples, in order."""
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


def _framed(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return len(data).to_bytes(8, "big") + data
