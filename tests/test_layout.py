"""The house rules that a linter does not know: lengths, names, imports, where packages are."""

import ast
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("rewards", "rollouts", "rl", "eval", "recipes")
MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 300
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "manager"}
# These never import torch: rewards and eval as a whole, and the plain half of rollouts.
PLAIN_ROLLOUTS = (
    "rollout", "sampler", "seeds", "prompts", "process", "models", "collect", "ledger", "records",
    "timeline", "trials", "completions", "endpoint", "endpoint_config",
    "rejection", "cold_start", "exchange",
    "device_memory", "model_config",
)  # fmt: skip
FILES = sorted(
    path for folder in (*PACKAGES, "benchmarks") for path in (ROOT / folder).rglob("*.py")
)
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in FILES}


def module_name(path: Path) -> str:
    """`rollouts/tasks/__init__.py` is `rollouts.tasks`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.Module) -> set[str]:
    """The modules that a file names in its imports, at any depth."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return names


def run_fresh(code: str, folder: Path, **variables: str) -> str:
    """What a new interpreter prints that starts in another folder."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_something_to_read():
    assert len(TREES) > 10
    assert {path.split("/")[0] for path in TREES} == {*PACKAGES, "benchmarks"}


def test_functions_fit_on_a_screen():
    too_long = [
        f"{path}:{node.lineno} {node.name} has {length} lines"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := node.end_lineno - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert too_long == []


def test_files_hold_one_idea():
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in TREES}
    assert {path: length for path, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_only_the_engine_imports_vllm():
    importers = [
        path
        for path, tree in TREES.items()
        if path.split("/")[0] in PACKAGES
        and any(name.split(".")[0] == "vllm" for name in imported(tree))
    ]
    assert set(importers) <= {"rollouts/engine.py"}


def test_imports_are_absolute_and_never_hide_the_builtin_eval():
    relative = [p for p, tree in TREES.items() if any(n.startswith(".") for n in imported(tree))]
    hiding = [
        path
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        and any((alias.asname or alias.name.split(".")[0]) == "eval" for alias in node.names)
    ]
    assert (relative, hiding) == ([], [])


def is_import_path(node: ast.AST) -> bool:
    """True for `sys.path`."""
    return (
        isinstance(node, ast.Attribute)
        and node.attr == "path"
        and isinstance(node.value, ast.Name)
        and node.value.id == "sys"
    )


def test_nothing_edits_the_import_path():
    editors = [
        path
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if (is_import_path(node) and not isinstance(node.ctx, ast.Load))
        or (isinstance(node, ast.Attribute | ast.Subscript) and is_import_path(node.value))
    ]
    assert editors == []


def test_modules_have_names_of_their_own():
    modules = {path: Path(path).stem for path in TREES if not path.endswith("__init__.py")}
    standard = {path for path, name in modules.items() if name in sys.stdlib_module_names}
    vague = {path for path, name in modules.items() if VAGUE_NAMES & set(name.split("_"))}
    assert (standard, vague) == (set(), set())


def test_an_init_holds_a_docstring_and_nothing_else():
    for path, tree in TREES.items():
        if path.endswith("__init__.py"):
            assert len(tree.body) == 1, path
            assert ast.get_docstring(tree), path


def test_every_folder_of_code_is_a_package():
    assert [path for path in FILES if not (path.parent / "__init__.py").exists()] == []


FIND_PACKAGES = f"""
import importlib.util, json
print(json.dumps({{name: importlib.util.find_spec(name).origin for name in {PACKAGES}}}))
"""


def check_origins(printed: str) -> None:
    expected = {name: str(ROOT / name / "__init__.py") for name in PACKAGES}
    assert json.loads(printed) == expected


def test_the_packages_are_ours_on_the_python_path(tmp_path: Path):
    check_origins(run_fresh(FIND_PACKAGES, tmp_path, PYTHONPATH=str(ROOT)))


def test_the_packages_are_ours_where_they_are_installed(tmp_path: Path):
    try:
        direct = importlib.metadata.distribution("groupwise").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("groupwise is not installed")
    if json.loads(direct or "{}").get("url") != ROOT.as_uri():
        pytest.skip("another clone is installed")
    check_origins(run_fresh(FIND_PACKAGES, tmp_path))


def test_graders_tasks_and_evaluation_do_not_load_torch(tmp_path: Path):
    plain = [
        module_name(path)
        for path in FILES
        if path.parts[len(ROOT.parts)] in ("rewards", "eval")
        or path.parent == ROOT / "rollouts" / "tasks"
        or (path.parent == ROOT / "rollouts" and path.stem in PLAIN_ROLLOUTS)
    ]
    assert {"rewards.problem", "rollouts.process", "rollouts.models"} <= set(plain)
    code = f"""
import importlib, sys
for name in {plain}:
    importlib.import_module(name)
    loaded = [heavy for heavy in ("torch", "transformers", "vllm") if heavy in sys.modules]
    if loaded:
        print(name, "loads", *loaded)
        break
"""
    assert run_fresh(code, tmp_path, PYTHONPATH=str(ROOT)) == ""
