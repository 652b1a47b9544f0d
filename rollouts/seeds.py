"""One seed for each request, from what the request is and never from when it ran.

Leaves out generators: the engine takes an integer.
"""

import hashlib

SEED_MASK = (1 << 62) - 1
"""Seeds are below 2**62: positive in every signed 64-bit field that they pass through."""


def request_seed(*parts: object) -> int:
    """The first 8 bytes of the SHA-256 of the parts joined by "/", masked to 62 bits.

    The same parts give the same seed on every machine. The join does not tell ("a/b", 1)
    from ("a", "b/1"), so let at most one part hold a slash, such as a problem's id, and keep
    the number of parts fixed.

    Example: `request_seed(0, "arithmetic/add/3+5", 1)`.
    """
    text = "/".join(str(part) for part in parts)
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") & SEED_MASK
