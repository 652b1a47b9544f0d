"""Train, validation and test by a hash of the content, the same for ever and on any machine."""

from hashlib import sha256

from rollouts.sampler import Split

TENTHS: tuple[Split, ...] = (*("train",) * 8, "validation", "test")
"""80% train, 10% validation (choices are made on it), 10% test (read once)."""


def split_of(key: str) -> Split:
    """The split of the problem whose content is `key`; twins must share a key.

    The SHA-256 of the key as a number, modulo 10, looked up in `TENTHS`.
    """
    return TENTHS[int.from_bytes(sha256(key.encode()).digest()) % len(TENTHS)]
