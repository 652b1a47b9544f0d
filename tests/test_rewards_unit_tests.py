import json
import os
from pathlib import Path

import pytest

from rewards.unit_tests import (
    CallTests,
    StdioTests,
    call_tests,
    human_eval_tests,
    mbpp_tests,
    parse_tests,
)

ROW = {
    "task_id": "HumanEval/x",
    "entry_point": "decode",
    "prompt": "import math\n\ndef encode(s):\n    return s[::-1]\n\ndef decode(s):\n    '''Undo.'''\n",
    "test": "def check(candidate):\n    assert candidate(encode('ab')) == 'ab'\n",
}


@pytest.mark.parametrize(
    "tests",
    [
        CallTests(names=("f",), tests=("assert f() == 1", "assert f()"), setup="import math"),
        CallTests(names=("f", "g"), tests=("f(g())",), mutates=True, timeout_s=1.5, prompt="def f"),
        StdioTests(cases=(("1 2\n", "3"), ("", "\u00e9")), tolerance=1e-6, memory_bytes=1 << 20),
    ],
)
def test_json_and_back(tests):
    assert parse_tests(tests.to_json()) == tests


@pytest.mark.parametrize(
    "answer",
    [
        "", "8", "[]", "{}", '{"kind": "calls"}', '{"kind": "other", "cases": [["", ""]]}',
        '{"kind": "stdio", "cases": [["a"]]}', '{"kind": "stdio", "cases": [], "tolerance": 1}',
        '{"kind": "calls", "names": ["f"], "tests": []}',
        '{"kind": "calls", "names": ["f"], "tests": ["f()"], "mystery": 1}',
    ],
)  # fmt: skip
def test_other_text_is_refused(answer):
    with pytest.raises(ValueError, match=r"JSON of CallTests|has no tests"):
        parse_tests(answer)


@pytest.mark.parametrize(
    ("tests", "solution", "setup", "names"),
    [
        (["assert add(1, 2) == 3"], None, "", ("add",)),
        (["x = [1]\nassert len(f(x)) == 1"], None, "", ("f",)),
        (["assert sum(1, 2) == 3"], "def sum(a, b): return a + b", "", ("sum",)),
        (["assert math.isclose(f(2), 4)"], None, "import math", ("f",)),
        (["def g(x): return x\nassert g(f(2)) == 4"], None, "", ("f",)),
        (["assert [f(i) for i in range(2)] == [0, 1]", "assert g()"], None, "", ("f", "g")),
        (["assert f(given(2)) == 4"], "def given(x): ...", "def given(x): return x", ("f",)),
        (["list = [1]\nassert f(list) == 1"], None, "", ("f",)),
        (["try:\n    f()\nexcept ValueError as e:\n    print(e)"], None, "", ("f",)),
    ],
)
def test_names_are_what_nobody_else_defines(tests, solution, setup, names):
    assert call_tests(tests, solution=solution, setup=setup).names == names


def test_imports_of_the_reference_that_tests_use_are_theirs_too():
    solution = "import sys\nimport re\ndef f(): return sys.getsizeof(1)"
    found = call_tests(["assert f() == sys.getsizeof(1)"], solution=solution, setup="x = 1")
    assert found.setup == "import sys\nx = 1"
    assert found.names == ("f",)


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        (["assert f(lambda x: x) == 1"], "hands a function to f"),
        (["assert f(x for x in [1]) == 1"], "hands a function to f"),
        (["assert f(g) == 1", "g()"], "hands a function to f"),
        (["assert f(key=lambda x: x)"], "hands a function to f"),
        (["assert f(1, int) == 1"], "hands a function to f"),
        (["assert f(Node(1)) == 1"], r"the solution's classes \['Node'\]"),
        (["assert f("], r"not Python: 'assert f\('"),
        (["assert 1 == 1"], "call nothing"),
    ],
)
def test_tests_that_cannot_cross_are_refused_when_read(tests, message):
    with pytest.raises(ValueError, match=message):
        call_tests(tests, solution="class Node: pass\ndef f(x): return 1")


def test_a_setup_may_not_need_the_solution():
    with pytest.raises(ValueError, match=r"the setup uses \['Node'\]"):
        call_tests(["assert f(root) == 1"], setup="root = Node(1)")


def test_a_human_eval_row_keeps_its_helpers_for_the_tests():
    tests = human_eval_tests(ROW)
    assert tests.names == ("decode",)
    assert tests.setup == "import math\n\ndef encode(s):\n    return s[::-1]\n\n"
    assert tests.tests == (ROW["test"] + "\n\ncheck(decode)\n",)
    assert tests.prompt == ROW["prompt"]
    with pytest.raises(ValueError, match="HumanEval/x: the prompt does not define 'undo'"):
        human_eval_tests({**ROW, "entry_point": "undo"})


def test_an_mbpp_row_has_a_test_for_each_assert():
    row = {
        "code": "import math\ndef area(r): return math.pi * r * r",
        "test_list": ["assert math.isclose(area(1), math.pi)", "assert area(0) == 0"],
    }
    sanitized = mbpp_tests({**row, "test_imports": ["import math"]})
    assert (sanitized.names, sanitized.tests) == (("area",), tuple(row["test_list"]))
    assert sanitized.setup == "import math\nimport math"
    assert mbpp_tests({**row, "test_setup_code": "x = 1"}).setup == "import math\nx = 1"


def test_every_row_of_human_eval_and_mbpp_can_be_used():
    folder = os.environ.get("GROUPWISE_DATA")
    if not folder or not Path(folder, "humaneval").is_dir():
        pytest.skip("GROUPWISE_DATA names no folder with humaneval/ and mbpp_sanitized/")
    rows = [
        json.loads(line)
        for name in ("humaneval", "mbpp_sanitized")
        for path in sorted(Path(folder, name).glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    found = [human_eval_tests(row) if "entry_point" in row else mbpp_tests(row) for row in rows]
    assert len(found) == 164 + 427
    assert {len(tests.names) for tests in found} <= {1, 2}
