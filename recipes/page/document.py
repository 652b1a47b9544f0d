"""The page as one file: our own script and style, and data that cannot become either.

Everything that a run says reaches the page as JSON with `<`, `>` and `&` escaped, or as base64;
the script sets it as text. A content security policy allows the one script and the one style by
their hashes, and nothing else: no network (but `--serve`'s own), no inline handler, no frame.
"""

import base64
import json
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCRIPTS = (
    "elements", "state", "blobs", "tokens", "chart", "runs", "curves", "map", "filters", "groups",
    "cards", "rollouts", "page",
)  # fmt: skip
"""Files of js/, in the order in which they are joined."""


def policy(*, serve: bool) -> str:
    """The content security policy of the page."""
    return (
        f"default-src 'none'; script-src '{_hash(script())}'; style-src '{_hash(style())}'; "
        f"img-src data:; connect-src {_connect(serve)}; base-uri 'none'; form-action 'none'"
    )


def document(state: dict[str, Any], blobs: Iterable[tuple[str, bytes]], *, serve: bool) -> str:
    """The whole page. `blobs` are (id, bytes), the id made of letters, digits and dashes."""
    template = (HERE / "page.html").read_text(encoding="utf-8")
    head, rest = template.split("{{style}}")
    body, rest = rest.split("{{data}}")
    between, tail = rest.split("{{script}}")
    parts = [head.replace("{{policy}}", policy(serve=serve)), style(), body]
    parts.append(f'<script type="application/json" id="state">{data_json(state)}</script>\n')
    for name, data in blobs:
        assert name.replace("-", "").isalnum(), name
        packed = base64.b64encode(data).decode()
        parts.append(f'<script type="application/octet-stream" id="{name}">{packed}</script>\n')
    return "".join([*parts, between, script(), tail])


def data_json(value: Any) -> str:
    """JSON that ends no element and opens none, whatever it holds; pure ASCII."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def script() -> str:
    """All of js/ as one script."""
    files = [(HERE / "js" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    return '(() => {\n"use strict";\n' + "\n".join(files) + "})();\n"


@cache
def style() -> str:
    """The style sheet."""
    return (HERE / "page.css").read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode()


def _connect(serve: bool) -> str:
    return "'self'" if serve else "'none'"
