"""The tests of a programming problem: calls with asserts, or input and output; and their JSON.

`Problem.answer` holds that JSON; only rewards/programs.py reads it.
"""

import ast
import builtins
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

TIMEOUT_S = 10.0
MEMORY_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class CallTests:
    """Tests that call functions of the solution, as HumanEval and MBPP have them.

    Example: `CallTests(names=("add",), tests=("assert add(1, 2) == 3",))`.

    Only builtin values cross between tests and solution: None, bool, int, float, complex, str,
    bytes, list, tuple, set, frozenset, dict. An instance of a subclass of these (a Counter, a
    named tuple, a number of an enum) arrives as the builtin, and any other instance as an object
    that has its truth and equals only itself. A test that passes a function, a generator or an
    instance, that wants an exception, or that reads an attribute of what the solution defines
    cannot be used.

    Attributes:
        names: What the tests call; the solution defines them.
        tests: Python sources, run in order in one namespace; one that ends without an exception
            has passed.
        setup: Python that runs before the tests, and before the solution in its own process:
            the imports and given functions of the problem. Tests use the given ones, never the
            solution's version of them.
        prompt: What a solution may continue: put before one that does not define `names[0]`.
        mutates: Whether tests look at lists, dicts and sets that they passed. Off unless
            needed: a solution then decides what the tests see in them.
        timeout_s: For loading the solution and all calls together, by the wall clock.
        memory_bytes: Address space of the solution's process.
    """

    names: tuple[str, ...]
    tests: tuple[str, ...]
    setup: str = ""
    prompt: str = ""
    mutates: bool = False
    timeout_s: float = TIMEOUT_S
    memory_bytes: int = MEMORY_BYTES

    def to_json(self) -> str:
        """The text for `Problem.answer`."""
        return json.dumps({"kind": "calls", **asdict(self)})


@dataclass(frozen=True, kw_only=True)
class StdioTests:
    """Cases of (input, expected output) for a program that reads and prints.

    Example: `StdioTests(cases=(("1 2\\n", "3\\n"),))`.

    Attributes:
        cases: What stands on stdin, and what should on stdout. White space at the ends of lines
            and empty lines at the end do not count.
        tolerance: If given, outputs are compared word by word, and two words that are numbers
            may differ by `tolerance`, absolutely or relatively to the expected one. With 0, line
            by line: the same text, or numbers of the same values throughout.
        before: Python put before the solution, such as imports that it may expect.
        after: Python put after it, which makes a program of a function: it reads the input,
            calls the function and prints.
        timeout_s: For each case, by the wall clock.
        memory_bytes: Address space of the program.
    """

    cases: tuple[tuple[str, str], ...]
    tolerance: float | None = None
    before: str = ""
    after: str = ""
    timeout_s: float = TIMEOUT_S
    memory_bytes: int = MEMORY_BYTES

    def to_json(self) -> str:
        """The text for `Problem.answer`."""
        return json.dumps({"kind": "stdio", **asdict(self)})


def parse_tests(answer: str) -> CallTests | StdioTests:
    """What `to_json` wrote.

    Raises:
        ValueError: It is not that, or has no test.
    """
    try:
        fields = json.loads(answer)
        kind = fields.pop("kind")
        if kind == "calls":
            names, tests = tuple(fields.pop("names")), tuple(fields.pop("tests"))
            found: CallTests | StdioTests = CallTests(names=names, tests=tests, **fields)
            complete = bool(names and tests)
        else:
            cases = tuple((given, expected) for given, expected in fields.pop("cases"))
            found = StdioTests(cases=cases, **fields)
            complete = kind == "stdio" and bool(cases)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{answer[:80]!r} is not the JSON of CallTests or StdioTests ({error!r})"
        ) from error
    if not complete:
        raise ValueError(f"{answer[:80]!r} has no tests, or no names for them to call")
    return found


def call_tests(
    tests: Sequence[str], *, solution: str | None = None, setup: str = "", **options: Any
) -> CallTests:
    """CallTests whose `names` are found by reading the sources, as a data set's row needs.

    A name is the solution's if the tests use it and neither they, `setup` nor Python define
    it, or if the reference `solution` defines it at its top level. What the reference imports
    and the tests use is imported for them.

    Raises:
        ValueError: A source does not parse, a test hands over a function or a type or uses a
            class of the reference's, or nothing is called.
    """
    used = {name for source in tests for name in _names(_parsed(source), ast.Load)}
    setup = "\n".join([*_imports(solution or "", used), setup]).strip()
    trees = [_parsed(source) for source in (setup, *tests)]
    bound = {name for tree in trees for name in _names(tree, ast.Store)}
    known = bound | set(dir(builtins))
    solved = set(top_level_names(solution)) if solution else set()
    given = set(_names(trees[0], ast.Store))
    names = sorted(used - known | (used & solved) - given)
    if not names:
        raise ValueError(f"the tests call nothing of the solution's: {tests[0][:80]!r}")
    if missing := sorted(set(_names(trees[0], ast.Load)) - known):
        raise ValueError(f"the setup uses {missing}, which only a solution defines")
    if classes := sorted(set(names) & _classes(solution or "")):
        raise ValueError(f"the tests use the solution's classes {classes}: instances cannot cross")
    functions = {*names, *dir(builtins)} - bound
    for tree in trees[1:]:
        if taken := _functions_passed(tree, set(names), functions):
            raise ValueError(f"a test hands a function to {taken}: it cannot cross to a solution")
    return CallTests(names=tuple(names), tests=tuple(tests), setup=setup, **options)


def human_eval_tests(row: dict[str, Any]) -> CallTests:
    """The tests of a row of openai_humaneval: `test` with its `check(candidate)`, as one test.

    What stands in the prompt before the function to complete is the setup.
    """
    entry, prompt = row["entry_point"], row["prompt"]
    lines = prompt.splitlines(keepends=True)
    starts = [i for i, line in enumerate(lines) if line.startswith(f"def {entry}(")]
    if not starts:
        raise ValueError(f"{row['task_id']}: the prompt does not define {entry!r}")
    setup = "".join(lines[: starts[-1]])
    test = f"{row['test']}\n\ncheck({entry})\n"
    return CallTests(names=(entry,), tests=(test,), setup=setup, prompt=prompt)


def mbpp_tests(row: dict[str, Any]) -> CallTests:
    """The tests of a row of MBPP, full or sanitized: each assert of `test_list` is one test."""
    imports = row.get("test_imports") or []
    setup = "\n".join([*imports, row.get("test_setup_code") or ""]).strip()
    return call_tests(row["test_list"], solution=row["code"], setup=setup)


def top_level_names(source: str) -> list[str]:
    """Functions and classes that a trusted source defines at its top level."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node.name for node in _parsed(source).body if isinstance(node, kinds)]


def _imports(solution: str, used: set[str]) -> list[str]:
    """The solution's imports at the top level that bind a name of `used`."""
    nodes = [n for n in _parsed(solution).body if isinstance(n, ast.Import | ast.ImportFrom)]
    return [ast.unparse(node) for node in nodes if used & set(_names(node, ast.Store))]


def _parsed(source: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in the data sets
            return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"not Python: {source[:80]!r} ({error})") from error


def _names(tree: ast.AST, context: type[ast.expr_context]) -> list[str]:
    """Names that are read (Load) or bound in any way (Store), at any depth."""
    found = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, context)]
    if context is ast.Store:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.append(node.name)
            elif isinstance(node, ast.arg):
                found.append(node.arg)
            elif isinstance(node, ast.alias):
                found.append((node.asname or node.name).partition(".")[0])
            elif isinstance(node, ast.ExceptHandler) and node.name:
                found.append(node.name)
    return found


def _classes(source: str) -> set[str]:
    return {node.name for node in ast.walk(_parsed(source)) if isinstance(node, ast.ClassDef)}


def _functions_passed(tree: ast.AST, names: set[str], functions: set[str]) -> str:
    """The first of `names` that is called with a lambda, a generator or one of `functions`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            for value in [*node.args, *[keyword.value for keyword in node.keywords]]:
                if isinstance(value, ast.Lambda | ast.GeneratorExp):
                    return node.func.id
                if isinstance(value, ast.Name) and value.id in functions:
                    return node.func.id
    return ""
