"""The reward for programs: 1 if what the response wrote passes the problem's tests, else 0.

The solution runs alone in a sandbox and has no say in its own verdict: unit tests run in another
sandbox and see only decoded builtin values (rewards/evaluation.py), outputs are compared here.
Leaves out languages other than Python, and tests that hand over functions or instances.
"""

import logging
import math
import re
import time
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from rewards.answers import after_thinking
from rewards.evaluation import EvaluationFailed, Outcome, SandboxFailed, run_calls, start_jailed
from rewards.jailed.stdio_runner import MEMORY_EXIT, SYNTAX_EXIT
from rewards.problem import Problem, Response, Score, Verdict
from rewards.streams import TooLong, exchange, kill
from rewards.unit_tests import CallTests, StdioTests, parse_tests

logger = logging.getLogger(__name__)

MAX_SOURCE_CHARS = 1 << 18
MAX_OUTPUT_BYTES = 8 << 20

FENCE = "```"
PYTHON = re.compile(r"\s*(?:python|py)[\d.]*\b", re.IGNORECASE)
VERDICTS = {
    "": Verdict.CORRECT,
    "wrong": Verdict.WRONG,
    "error": Verdict.WRONG,
    "crash": Verdict.WRONG,
    "syntax": Verdict.MALFORMED,
    "protocol": Verdict.MALFORMED,
    "size": Verdict.TOO_LARGE,
    "memory": Verdict.MEMORY,
    "timeout": Verdict.TIMEOUT,
}
"""The verdict for each `Outcome.failure`."""


def program_reward(problem: Problem, response: Response) -> Score:
    """1 if the program passes every test, else 0.

    `problem.answer` is the JSON of `CallTests` or `StdioTests` (rewards/unit_tests.py). The
    program is the last fenced block of Python after the last `</think>`, if there are several
    the last that defines what the tests call, and without a block all of that text.

    The verdict is that of the first failed test. `parts` holds "accuracy" (the value), "crash"
    and "protocol" (1 if the program died, or forged replies). A sandbox that does not start is
    sandbox_error, tests that cannot be run are grader_error.

    Example: `answer=CallTests(names=("add",), tests=("assert add(1, 2) == 3",)).to_json()` and
    the response "```python\\ndef add(a, b):\\n    return a + b\\n```" score 1, correct.

    Raises:
        ValueError: `problem.answer` is not such JSON; never because of the response.
        SandboxUnavailable: No sandbox works on this machine.
    """
    return _score(problem, response, fraction=False)


def program_fraction_reward(problem: Problem, response: Response) -> Score:
    """The share of tests passed, for partial credit; all else as in `program_reward`.

    The tests after a failed one are run too, unless the program has died or its time is up: a
    program that hangs on one input may hang on all. A HumanEval problem is one test, so it has
    no shares.
    """
    return _score(problem, response, fraction=True)


def extract_program(text: str, name: str = "") -> str:
    """The content of the last closed fenced block; else of one never closed; else `text`.

    A block that defines `name` goes before any other, and then one that says it is Python: an
    example of use, a shell's line or some output often comes last. `<answer>` tags around the
    whole text are taken off first.

    A fence is a line that begins with three backticks or more, behind white space or not. The
    closing one has as many or more, nothing after them, and at most three columns more before
    them (CommonMark 0.31, 4.5), so a fence in a docstring closes nothing. The indentation of the
    opening fence is taken off each line.

    Example: "It is\\n```python\\nx = 1\\n```\\ndone" gives "x = 1\\n".
    """
    whole = text.strip()
    if whole.startswith("<answer>") and whole.endswith("</answer>"):
        text = whole.removeprefix("<answer>").removesuffix("</answer>")
    lines = text.splitlines(keepends=True)
    blocks = _blocks(lines)
    if not blocks:
        return text
    programs = [
        "".join(_outdent(line, indent) for line in lines[first:last])
        for _, first, last, indent in sorted(blocks)
    ]
    defining = [program for program in programs if name and _defines(program, name)]
    return (defining or programs)[-1]


def _blocks(lines: list[str]) -> list[tuple[bool, int, int, int]]:
    """The closed blocks, or one that is never closed if there is no other.

    Each is whether it says that it is Python, its first line, the line after its last, and the
    indentation of its opening fence.
    """
    blocks: list[tuple[bool, int, int, int]] = []
    opened, ticks, indent, is_python = 0, 0, 0, False  # 0: outside of a block
    for number, line in enumerate(lines):
        words = line.strip()
        if not words.startswith(FENCE):
            continue
        column, label = len(line) - len(line.lstrip()), words.lstrip("`")
        if not opened:
            opened, ticks, indent = number + 1, len(words) - len(label), column
            is_python = PYTHON.match(label) is not None
        elif not label and len(words) >= ticks and column < indent + 4:
            blocks.append((is_python, opened, number, indent))
            opened = 0
    return blocks or ([(is_python, opened, len(lines), indent)] if opened else [])


def _outdent(line: str, indent: int) -> str:
    return line[indent:] if not line[:indent].strip() else line


def _score(problem: Problem, response: Response, *, fraction: bool) -> Score:
    tests = _parsed(problem.answer)
    name = tests.names[0] if isinstance(tests, CallTests) else ""
    program = extract_program(after_thinking(response.full_text), name)
    if not program.strip():
        return _scored(0.0, Verdict.NO_ANSWER)
    if len(program) > MAX_SOURCE_CHARS:
        return _scored(0.0, Verdict.TOO_LARGE)
    try:
        outcome = run_program(tests, program, stop_early=not fraction)
    except SandboxFailed as error:
        logger.error("%s: %s", problem.id, error)
        return _scored(0.0, Verdict.SANDBOX_ERROR)
    except EvaluationFailed as error:
        logger.error("%s: %s", problem.id, error)
        return _scored(0.0, Verdict.GRADER_ERROR)
    whole = outcome.passed == outcome.total
    value = outcome.passed / outcome.total if fraction else float(whole)
    return _scored(value, VERDICTS[outcome.failure], outcome.failure)


def run_program(tests: CallTests | StdioTests, program: str, *, stop_early: bool) -> Outcome:
    """Run a program against its tests, up to the first failure if `stop_early`.

    Raises:
        SandboxFailed, EvaluationFailed, SandboxUnavailable: As `run_calls`.
    """
    if isinstance(tests, StdioTests):
        return _run_cases(tests, program, stop_early=stop_early)
    if tests.prompt and not _defines(program, tests.names[0]):
        program = tests.prompt + program
    return run_calls(tests, program, stop_early=stop_early)


def _scored(value: float, verdict: Verdict, failure: str = "") -> Score:
    crash, protocol = float(failure == "crash"), float(failure == "protocol")
    parts = {"accuracy": value, "crash": crash, "protocol": protocol}
    return Score(value=value, verdict=verdict, parts=parts)


@lru_cache(maxsize=256)
def _parsed(answer: str) -> CallTests | StdioTests:
    return parse_tests(answer)


def _defines(program: str, name: str) -> bool:
    """True if a line at the margin defines or assigns `name`. The text is not parsed here."""
    pattern = rf"^(?:async[ \t]+def|def|class)[ \t]+{re.escape(name)}\b|^{re.escape(name)}[ \t]*="
    return re.search(pattern, program, re.MULTILINE) is not None


def _run_cases(tests: StdioTests, program: str, *, stop_early: bool) -> Outcome:
    passed, failure = 0, ""
    for given, expected in tests.cases:
        found = _run_case(tests, program, given, expected)
        passed += not found
        failure = failure or found
        if found and (stop_early or found == "timeout"):
            break
    return Outcome(passed=passed, total=len(tests.cases), failure=failure)


def _run_case(tests: StdioTests, program: str, given: str, expected: str) -> str:
    """Why the program fails one case; "" if it passes. It has a sandbox for itself."""
    process = start_jailed("stdio_runner", tests.memory_bytes, tests.timeout_s, b"ready")
    source = f"{tests.before}{program}{tests.after}".encode("utf-8", "surrogatepass")
    frame = len(source).to_bytes(4, "big") + source + given.encode("utf-8", "surrogatepass")
    try:
        output = exchange(process, frame, MAX_OUTPUT_BYTES, time.monotonic() + tests.timeout_s)
    except TimeoutError:
        return "timeout"
    except TooLong:
        return "size"
    finally:
        code = kill(process)
    if code:
        return {MEMORY_EXIT: "memory", SYNTAX_EXIT: "syntax"}.get(code, "crash")
    text = output.decode("utf-8", "replace")
    return "" if same_output(text, expected, tests.tolerance) else "wrong"


def same_output(output: str, expected: str, tolerance: float | None = None) -> bool:
    """Whether a program printed what it should, as `StdioTests` says.

    Examples: "3 \\n\\n" is "3"; "3.0" is not "3", and is with tolerance 0; "13" never is "3".
    """
    if tolerance is None:
        return _trimmed(output) == _trimmed(expected)
    if tolerance == 0.0:
        lines = [[line.strip() for line in text.strip().split("\n")] for text in (output, expected)]
        return len(lines[0]) == len(lines[1]) and all(
            a == b or _equal_numbers(a, b) for a, b in zip(*lines, strict=True)
        )
    found, wanted = output.split(), expected.split()
    return len(found) == len(wanted) and all(
        a == b or _close(a, b, tolerance) for a, b in zip(found, wanted, strict=True)
    )


def _trimmed(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _equal_numbers(found: str, wanted: str) -> bool:
    try:
        return [Decimal(word) for word in found.split()] == [Decimal(w) for w in wanted.split()]
    except InvalidOperation:
        return False


def _close(found: str, wanted: str, tolerance: float) -> bool:
    try:
        a, b = float(found), float(wanted)
    except ValueError:
        return False
    return math.isclose(a, b, rel_tol=0.0, abs_tol=tolerance * max(1.0, abs(b)))
