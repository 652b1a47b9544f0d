"""LiveCodeBench: contest problems, as programs with input and output or as methods to complete.

Both run as programs in the sandbox of rewards/programs.py. Leaves out self-repair and the
prediction of outputs.
"""

import base64
import inspect
import json
import pickletools
import re
import zlib
from dataclasses import dataclass
from typing import Any

from rewards.unit_tests import StdioTests
from rollouts.tasks.dataset import text_of
from rollouts.tasks.programs import BLOCK, Programs
from rollouts.tasks.rows import Row

MAX_TESTS_BYTES = 1 << 28
"""Of a problem's hidden cases once unpacked; the largest have tens of MB."""

IMPORTS = """\
import bisect, collections, functools, heapq, io, itertools, json, math, operator, random, re, string, sys
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from typing import *
from builtins import *
"""
"""What the contest sites have imported; builtins last, for math has a `pow` of its own."""

HIDE = "sys.stdout = io.StringIO()\n"
"""What a method prints is not its answer."""


def _plain(value: Any) -> Any:
    """One spelling of values that Python calls equal: 2.0 and 2, True and 1, a tuple and a list."""
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    whole = isinstance(value, bool) or (isinstance(value, float) and value.is_integer())
    return int(value) if whole else value


CALL = (
    f"\n\n{inspect.getsource(_plain)}"
    + """
if True:
    import json as _json, sys as _sys
    _given = [_json.loads(_line) for _line in _sys.stdin.read().splitlines() if _line.strip()]
    _found = (Solution().NAME if "Solution" in globals() else NAME)(*_given)
    print(_json.dumps(_plain(_found), sort_keys=True), file=_sys.__stdout__)
"""
)
"""A bare function serves where there is no class, as in the benchmark's own harness."""

TEXT_ONLY = re.compile("PROTO|FRAME|(SHORT_)?BINUNICODE8?|UNICODE|MEMOIZE|(LONG_)?(BIN)?PUT|STOP")
"""Opcodes of a pickled text."""


@dataclass(frozen=True, kw_only=True)
class LiveCodeBench(Programs):
    """The window of problems that `subset` names (Jain et al. 2024).

    From the mirror that needs no loading script; v4_v5 is the window of lighteval's own task.
    """

    path: str = "lighteval/code_generation_lite"
    subset: str = "v4_v5"
    train_split: str = ""
    test_split: str = "test"
    prompt_column: str = "question_content"
    timeout_s: float = 6.0
    name: str = "livecodebench"

    def id_of(self, row: Row, place: str) -> str:
        """The site's own, such as "abc387_b"."""
        return text_of(row, "question_id", place)

    def ask(self, row: Row, place: str) -> str:
        """The question, and the class to complete where there is one."""
        question = text_of(row, self.prompt_column, place).strip()
        starter = row.get("starter_code") or ""
        if starter.strip():
            return f"{question}\n\nComplete this class.\n\n```python\n{starter.rstrip()}\n```\n\n{BLOCK}"
        return f"{question}\n\nRead from stdin and print to stdout. {BLOCK}"

    def tests_of(self, row: Row, place: str) -> StdioTests:
        """Public and hidden cases; those of a method have a JSON value in each line."""
        cases = [
            case
            for column in ("public_test_cases", "private_test_cases")
            for case in _cases(text_of(row, column, place), f"{place}: field {column!r}")
        ]
        if not cases:
            raise ValueError("it has no test cases")
        try:
            pairs = [(case["input"], case["output"]) for case in cases]
            if cases[0].get("testtype") != "functional":
                return StdioTests(cases=tuple(pairs), tolerance=0.0, before=IMPORTS)
            name = json.loads(text_of(row, "metadata", place))["func_name"]
            values = [(given, _in_plain_json(output)) for given, output in pairs]
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"its tests are no cases of input and output ({error!r})") from error
        if not str(name).isidentifier():
            raise ValueError(f"the method's name is {name!r}")
        return StdioTests(
            cases=tuple(values), before=IMPORTS + HIDE, after=CALL.replace("NAME", name)
        )


def _cases(text: str, place: str) -> list[dict[str, Any]]:
    """JSON, or the same pickled, deflated and in base 64, as the hidden cases are."""
    try:
        found = json.loads(text if text[:1] in "[{" else _unpacked(text))
    except (ValueError, zlib.error, RecursionError) as error:
        raise ValueError(f"{place} holds no test cases ({error})") from error
    if not isinstance(found, list):
        raise ValueError(f"{place} is a JSON {type(found).__name__}; it must be a list of cases")
    return found


def _unpacked(text: str) -> str:
    inflater = zlib.decompressobj()
    data = inflater.decompress(base64.b64decode(text, validate=True), MAX_TESTS_BYTES)
    if inflater.unconsumed_tail:
        raise ValueError(f"more than {MAX_TESTS_BYTES} bytes")
    texts = []
    for opcode, argument, _ in pickletools.genops(data):  # reads, and runs nothing
        if not TEXT_ONLY.fullmatch(opcode.name):
            raise ValueError(f"its pickle holds more than a text: {opcode.name} {argument or ''}")
        texts += [argument] if isinstance(argument, str) else []
    if len(texts) != 1:
        raise ValueError(f"its pickle holds {len(texts)} texts")
    return texts[0]


def _in_plain_json(output: str) -> str:
    """An expected value as the driver prints it."""
    return json.dumps(_plain(json.loads(output)), sort_keys=True)
