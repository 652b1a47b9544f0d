"""Where an OpenAI-compatible server is and how it is asked; never with a key in it."""

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_CONCURRENT = 1000
"""Connections that openai's client opens at most; further requests would wait in it and time out."""


@dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """A server and how it is asked."""

    url: str = ""
    """Up to and with /v1, such as http://127.0.0.1:8000/v1; empty for none."""
    model: str = ""
    """The name under which the server has the model."""
    key_variable: str = ""
    """The environment variable that holds the key; empty for a server that wants none."""
    max_concurrent: int = 64
    """Requests in flight."""
    timeout_s: float = 600.0
    """For one try; a request with all its tries takes at most `retries` + 1 times as long."""
    retries: int = 4
    """Further tries after a refusal (429, 5xx, no connection) or an answer that is none, each after
    a longer pause or what the server asks for."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, and an address that would put a key into files."""
        if not self.url:
            return
        shown = urlsplit(self.shown_url)
        if shown.scheme not in ("http", "https") or not shown.hostname:
            raise ValueError(
                f"the endpoint's url is {self.shown_url!r}: write it as http://HOST:PORT/v1"
            )
        parts = urlsplit(self.url)
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(
                f"the endpoint's url {self.shown_url} carries a key or a query, which would be "
                "written to files: leave it out, and name an environment variable in key_variable"
            )
        if not self.model:
            raise ValueError(
                f"the endpoint {self.shown_url} needs the name of its model: give endpoint.model"
            )
        if self.key_variable and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_variable):
            raise ValueError(
                "key_variable is no name of an environment variable (it is not shown, since it may be "
                "the key itself): put the key into a variable and give its name"
            )
        many, tries = self.max_concurrent, self.retries
        if not 1 <= many <= MAX_CONCURRENT or tries < 0 or not 0 < self.timeout_s < float("inf"):
            raise ValueError(
                f"max_concurrent is {many}, retries {tries}, timeout_s {self.timeout_s:g}: use 1 to "
                f"{MAX_CONCURRENT}, at least 0, and more than 0 seconds"
            )

    @property
    def shown_url(self) -> str:
        """The address without user, password, query and fragment."""
        try:
            parts = urlsplit(self.url)
            host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or ""
        except ValueError:  # such as a port that is no number
            return "(not shown)"
        return f"{parts.scheme}://{host}{parts.path}"

    def key(self) -> str:
        """The key; "none" where none is wanted. Raises ValueError if its variable is not set."""
        if not self.key_variable:
            return "none"
        if not (key := os.environ.get(self.key_variable, "").strip()):
            raise ValueError(
                f"the key of {self.shown_url} is to be in the environment variable "
                f"{self.key_variable}, which is not set: export it first"
            )
        if not key.isascii() or not key.isprintable():
            raise ValueError(
                f"the key in {self.key_variable} holds characters that no header takes: set it again"
            )
        return key
