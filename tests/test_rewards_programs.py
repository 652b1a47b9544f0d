import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

import rewards.evaluation
import rewards.programs
from rewards.problem import Problem, Response, Score, Verdict
from rewards.programs import (
    extract_program,
    program_fraction_reward,
    program_reward,
    same_output,
)
from rewards.sandbox import find_sandbox
from rewards.unit_tests import CallTests, StdioTests

PROGRAMS = runpy.run_path(str(Path(__file__).with_name("attack_programs.py")))
ADD = CallTests(
    names=("add",),
    tests=("assert add(1, 2) == 3", "assert add(3, 4) == 7"),
    timeout_s=2.0,
    memory_bytes=256 << 20,
)
SUM = StdioTests(cases=(("1 2\n", "3\n"),), timeout_s=1.0, memory_bytes=256 << 20)


def graded(tests, program, reward=program_reward) -> Score:
    problem = Problem(id="test/1", prompt="Add.", answer=tests.to_json(), source="test")
    return reward(problem, Response(text=f"Think.\n```python\n{program}\n```\nDone."))


def accuracy(tests, program, reward=program_reward):
    score = graded(tests, program, reward)
    assert not score.verdict.is_ours
    assert score.value == score.parts["accuracy"]
    return score.value


@pytest.mark.parametrize("name", PROGRAMS["HACKS"])
def test_no_hack_is_paid(name):
    score = graded(ADD, PROGRAMS["HACKS"][name])
    assert score.value == 0.0
    assert not score.verdict.is_ours
    assert score.verdict is not Verdict.CORRECT


@pytest.mark.parametrize("name", PROGRAMS["CONTROLS"])
def test_honest_solutions_are_paid(name):
    score = graded(ADD, PROGRAMS["CONTROLS"][name])
    assert score == Score(
        value=1.0,
        verdict=Verdict.CORRECT,
        parts={"accuracy": 1.0, "crash": 0.0, "protocol": 0.0},
    )


@pytest.mark.parametrize("name", PROGRAMS["ENDINGS"])
def test_a_program_ends_as_it_ends(name):
    program, verdict = PROGRAMS["ENDINGS"][name]
    score = graded(SUM, program)
    assert (score.value, score.verdict) == (0.0, Verdict(verdict))


@pytest.mark.parametrize(
    ("program", "verdict", "crash", "protocol"),
    [
        ("def add(a, b): return a - b", Verdict.WRONG, 0, 0),
        ("def add(a, b): raise ValueError", Verdict.WRONG, 0, 0),
        ("def add(a, b)", Verdict.MALFORMED, 0, 0),
        ("raise SyntaxError", Verdict.MALFORMED, 0, 0),
        ("x = '\ud800'\ndef add(a, b): return 0", Verdict.WRONG, 0, 0),
        ("raise ValueError", Verdict.WRONG, 0, 0),
        ("def add(a, b):\n    while True: pass", Verdict.TIMEOUT, 0, 0),
        ("while True: pass", Verdict.TIMEOUT, 0, 0),
        ("def add(a, b): return bytearray(8 << 30)", Verdict.MEMORY, 0, 0),
        ("x = bytearray(8 << 30)", Verdict.MEMORY, 0, 0),
        ("def add(a, b): return 'x' * (2 << 20)", Verdict.TOO_LARGE, 0, 0),
        ("import os\ndef add(a, b): os._exit(0)", Verdict.WRONG, 1, 0),
        ("import ctypes\ndef add(a, b): ctypes.string_at(0)", Verdict.WRONG, 1, 0),
        (
            "import os\ndef add(a, b): os.write(4, b'\\0\\0\\0\\1?')",
            Verdict.MALFORMED,
            0,
            1,
        ),
        ("", Verdict.NO_ANSWER, 0, 0),
        ("#" * 300_000, Verdict.TOO_LARGE, 0, 0),
    ],
)
def test_each_failure_has_its_verdict(program, verdict, crash, protocol):
    score = graded(ADD, program)
    assert (score.value, score.verdict) == (0.0, verdict)
    assert score.parts == {"accuracy": 0.0, "crash": crash, "protocol": protocol}


def test_a_program_for_stdin_that_is_no_python_is_malformed_and_did_not_crash():
    score = graded(SUM, "print(")
    assert (score.verdict, score.parts["crash"]) == (Verdict.MALFORMED, 0.0)


VALUES = (
    None, True, 0, -1, 10**14, 10**15, -(10**400), 1.5, -0.0, float("inf"), 2.5 + 1j, "", "a\u00e9\n",
    "\ud800", "\U0001f600", b"\x00\xff", [], [1, [2]], (), (1,), ((1,), [2]), {1, 2}, frozenset({1}),
    {}, {"a": [1], (1, 2): {3}},
)  # fmt: skip


def test_builtin_values_cross_both_ways_unchanged():
    wanted = tuple(f"assert repr(same({value!r})) == {repr(value)!r}" for value in VALUES)
    tests = CallTests(names=("same",), tests=wanted, setup="from math import inf")
    assert accuracy(tests, "def same(x): return x", program_fraction_reward) == 1.0


@pytest.mark.parametrize(
    ("test", "program", "value"),
    [
        ("assert f() == {'a': 1}", "import collections\ndef f(): return collections.Counter('a')", 1.0),
        ("assert f()", "import re\ndef f(): return re.match('a', 'a')", 1.0),
        ("assert not f()", "class N:\n    def __len__(self): return 0\ndef f(): return N()", 1.0),
        ("assert f() == f()", "class N: pass\nn = N()\ndef f(): return n", 0.0),
        ("assert f() == True", "import re\ndef f(): return re.match('a', 'a')", 0.0),
        ("assert f() == 1", "def f(): return True", 1.0),
        ("assert abs(f() - 0.3) < 1e-9", "def f(): return 0.1 + 0.2", 1.0),
        ("assert f() == [1]", "def f(): return (1,)", 0.0),
        ("assert f() == (1, 2)", "import typing\nclass P(typing.NamedTuple):\n    x: int\n    y: int\ndef f(): return P(1, 2)", 1.0),
        ("assert f() == [2]", "import enum\nE = enum.IntEnum('E', 'A B')\ndef f(): return [E.B]", 1.0),
        ("assert f() == 'a'", "import enum\nclass E(enum.StrEnum):\n    A = 'a'\ndef f(): return E.A", 1.0),
        ("assert f() == {1}", "class S(set): __eq__ = __contains__ = lambda *a: True\ndef f(): return S()", 0.0),
        ("assert f() == [1]", "class L(list): __iter__ = lambda self: iter([1])\ndef f(): return L()", 0.0),
    ],
)  # fmt: skip
def test_python_compares_what_crossed(test, program, value):
    assert accuracy(CallTests(names=("f",), tests=(test,)), program) == value


def test_partial_credit_counts_tests():
    program = "def add(a, b): return 3"
    assert graded(ADD, program, program_fraction_reward).value == 0.5
    assert graded(ADD, program, program_fraction_reward).verdict is Verdict.WRONG
    raising = "def add(a, b):\n    if a == 1: raise ValueError\n    return a + b"
    assert graded(ADD, raising, program_fraction_reward).value == 0.5
    leaving = "import os\ndef add(a, b): return 3 if a == 1 else os._exit(0)"
    assert graded(ADD, leaving, program_fraction_reward).value == 0.5
    cases = StdioTests(cases=(("1 2", "3"), ("2 2", "4"), ("3 3", "6")))
    assert accuracy(
        cases, "print(sum(map(int, input().split())) % 6)", program_fraction_reward
    ) == (pytest.approx(2 / 3))


def test_a_solution_never_changes_what_tests_passed_unless_they_look():
    test = "x = [2, 1]\nassert tidy(x) == sorted(x)"
    cheat = "def tidy(x):\n    x.clear()\n    return []"
    assert accuracy(CallTests(names=("tidy",), tests=(test,)), cheat) == 0.0
    looking = CallTests(names=("tidy",), tests=("x = [2, 1]\ntidy(x)\nassert x == [1, 2]",))
    assert accuracy(looking, "def tidy(x): x.sort()") == 0.0
    assert accuracy(replace(looking, mutates=True), "def tidy(x): x.sort()") == 1.0
    assert accuracy(replace(looking, mutates=True), "def tidy(x): x[:] = [1]") == 0.0


def test_given_functions_are_the_problems_and_not_the_solutions():
    tests = CallTests(
        names=("decode",),
        setup="def encode(text): return text[::-1]",
        tests=("assert decode(encode('ab')) == 'ab'",),
    )
    assert accuracy(tests, "def decode(text): return encode(text)") == 1.0
    assert accuracy(tests, "def encode(text): return text\ndecode = encode") == 0.0


def test_a_prompt_is_continued_by_what_does_not_define_the_function():
    tests = replace(ADD, prompt="import math\ndef add(a, b):\n")
    assert accuracy(tests, "    return int(math.fsum([a, b]))") == 1.0
    assert accuracy(tests, "def add(a, b):\n    return a + b") == 1.0
    assert accuracy(ADD, "    return a + b") == 0.0


def test_a_test_may_not_hide_a_failed_call():
    test = "try:\n    add(1, 2)\nexcept BaseException:\n    pass"
    tests = CallTests(names=("add",), tests=(test,))
    assert accuracy(tests, "def add(a, b): raise ValueError") == 0.0
    assert accuracy(tests, "def add(a, b): return a") == 1.0


def test_a_value_that_keeps_a_test_busy_times_out_and_the_next_is_graded():
    tests = CallTests(names=("f",), tests=("assert sum(range(f())) >= 0",), timeout_s=1.0)
    assert graded(tests, "def f(): return 10 ** 12").verdict is Verdict.TIMEOUT
    assert graded(tests, "def f(): return 10").verdict is Verdict.CORRECT


@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        ("class E: pass\ndef f(x): return E()\ndef g(x): return 3", Verdict.WRONG),
        ("def f(x): return [{1: (y for y in 'ab')}]\ndef g(x): return 3", Verdict.WRONG),
        ("def f(x): return [0] * 300_000\ndef g(x): return 3", Verdict.TOO_LARGE),
    ],
)
def test_a_value_that_cannot_go_into_the_next_call_is_the_solutions_fault(program, verdict):
    tests = CallTests(
        names=("f", "g"),
        tests=(
            "x = f(1)\nassert g([x + [] for _ in 'abcdefghijkl'] if type(x) is list else x) == 3",
        ),
    )
    assert graded(tests, program).verdict is verdict


def test_one_evaluation_leaves_nothing_to_the_next():
    dirty = "import builtins, random\nbuiltins.leak = 1\nglobals()['leak'] = 1\nassert f() == 1"
    clean = "try:\n    leak\n    raise AssertionError\nexcept NameError:\n    assert f() == 1"
    for test in (dirty, clean):
        assert accuracy(CallTests(names=("f",), tests=(test,)), "def f(): return 1") == 1.0


def test_random_tests_are_the_same_each_time():
    tests = CallTests(names=("f",), tests=("import random\nassert f() == random.random()",))
    # random.seed(0); random.random()
    assert accuracy(tests, "def f(): return 0.8444218515250481") == 1.0


@pytest.mark.parametrize(
    "test", ["assert f(lambda: 1)", "assert f(object())", "import os; os._exit(0)", "f("]
)
def test_tests_that_cannot_be_run_are_our_failure(test):
    score = graded(CallTests(names=("f",), tests=(test,)), "def f(x=0): return 1")
    assert (score.value, score.verdict) == (0.0, Verdict.GRADER_ERROR)


@pytest.mark.parametrize("setup", ["x = ", "raise ValueError", "import os; os._exit(0)"])
def test_a_setup_that_fails_is_our_failure(setup):
    score = graded(replace(ADD, setup=setup), PROGRAMS["CONTROLS"]["plain"])
    assert (score.value, score.verdict) == (0.0, Verdict.GRADER_ERROR)


def test_a_sandbox_that_does_not_start_is_our_failure(monkeypatch):
    broken = replace(find_sandbox(), python="/usr/bin/false")
    monkeypatch.setattr(rewards.evaluation, "find_sandbox", lambda: broken)
    for tests in (ADD, SUM):
        score = graded(tests, PROGRAMS["CONTROLS"]["plain"])
        assert (score.value, score.verdict) == (0.0, Verdict.SANDBOX_ERROR)


def test_the_weaker_sandbox_grades_the_same(monkeypatch):
    sandboxes = [s for s in rewards.sandbox._candidates([]) if s.backend == "landlock"]
    if not sandboxes or rewards.sandbox.escapes(sandboxes[0]):
        pytest.skip("Landlock does not work on this machine")
    monkeypatch.setattr(rewards.evaluation, "find_sandbox", lambda: sandboxes[0])
    monkeypatch.setattr(rewards.evaluation, "_of_thread", type("New", (), {})())
    assert accuracy(ADD, PROGRAMS["CONTROLS"]["noisy"]) == 1.0
    for name in ("equals everything", "races the server", "leaves in the call"):
        assert accuracy(ADD, PROGRAMS["HACKS"][name]) == 0.0
    assert accuracy(SUM, "print(sum(map(int, input().split())))") == 1.0


def test_an_answer_that_is_no_tests_is_our_mistake():
    problem = Problem(id="test/1", prompt="Add.", answer="8", source="test")
    with pytest.raises(ValueError, match="'8' is not the JSON of CallTests or StdioTests"):
        program_reward(problem, Response(text="x = 1"))


DOCUMENTED = 'def f():\n    """\n    ```\n    f()\n    ```\n    """\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1", "x = 1"),
        ("a\n```python\nx = 1\n```\nb", "x = 1\n"),
        ("```\nx = 1\n```\n```py\ny = 2\n```", "y = 2\n"),
        ("```\nx = 1\n```\n```py\ny = 2", "x = 1\n"),
        ("a\n```python\nx = 1", "x = 1"),
        ("1.\n   ```python\n   if x:\n       y\n   ```", "if x:\n    y\n"),
        ("```python\n    return 1\n```", "    return 1\n"),
        ("```python\n```", ""),
        ("```python\ns = '''\n```js\n'''\n```", "s = '''\n```js\n'''\n"),
        (f"```python\n{DOCUMENTED}```", DOCUMENTED),
        ("```Python3\nx = 1\n```\n```sh\nls\n```\n```\n1\n```", "x = 1\n"),
        ("```pycon\n>>> 1\n```\n```\nx = 1\n```", "x = 1\n"),
        ("````python\nx = 1\n```\n````\n", "x = 1\n```\n"),
        (" <answer>```py\nx = 1\n```</answer>\n", "x = 1\n"),
        ("<answer>x = '<answer>'</answer>", "x = '<answer>'"),
    ],
)
def test_the_last_fenced_block_is_the_program(text, expected):
    assert extract_program(text) == expected


def test_an_example_of_use_is_not_the_program():
    problem = Problem(id="test/1", prompt="Add.", answer=ADD.to_json(), source="test")
    right, use = PROGRAMS["CONTROLS"]["plain"], "print(add(1, 2))"
    text = f"```python\n{right}\n```\nUse it so:\n```python\n{use}\n```"
    assert program_reward(problem, Response(text=text)).value == 1.0
    text += "\nBetter:\n```python\ndef add(a, b): return 0\n```"
    assert program_reward(problem, Response(text=text)).value == 0.0


def test_what_is_thought_is_not_the_program():
    problem = Problem(id="test/1", prompt="Add.", answer=ADD.to_json(), source="test")
    right, wrong = PROGRAMS["CONTROLS"]["plain"], "def add(a, b): return 0"
    text = f"```\n{wrong}\n```</think>```\n{right}\n```"
    assert program_reward(problem, Response(text=text, prefill="<think>")).value == 1.0
    text = f"```\n{right}\n```</think>I do not know."
    assert program_reward(problem, Response(text=text, prefill="<think>")).value == 0.0


@pytest.mark.parametrize(
    ("output", "expected", "tolerance", "same"),
    [
        ("3\n", "3", None, True),
        ("3 \r\n4\n\n", "3\n4", None, True),
        ("3\n\n4", "3\n4", None, False),
        (" 3", "3", None, False),
        ("3.0", "3", None, False),
        ("1 3 2", "3", None, False),
        ("3.0", "3", 1e-9, True),
        ("a 0.3333", "a 0.33333", 1e-3, True),
        ("a 0.4", "a 0.33333", 1e-3, False),
        ("1000001", "1000000", 1e-6, True),
        ("nan", "1", 1e-3, False),
        ("inf", "1", 1e-3, False),
        ("1 2", "1", 1e-3, False),
        ("b", "a", 1e-3, False),
    ],
)
def test_outputs_are_compared_whole(output, expected, tolerance, same):
    assert same_output(output, expected, tolerance) is same


def test_a_program_that_hangs_is_not_run_on_the_cases_after(monkeypatch):
    started = []
    start = rewards.programs.start_jailed
    monkeypatch.setattr(rewards.programs, "start_jailed", lambda *a: started.append(a) or start(*a))
    tests = StdioTests(cases=tuple((str(n), str(n)) for n in range(1, 5)), timeout_s=2.5)
    program = "n = input()\nprint(n)\nwhile n == '2': pass"
    score = graded(tests, program, program_fraction_reward)
    assert (score.value, score.verdict) == (0.25, Verdict.TIMEOUT)
    assert len(started) == 2


def test_a_program_sees_its_input_and_no_more():
    cases = StdioTests(cases=(("a\nb\n", "a,b"), ("", "")))
    program = "import sys\nprint(','.join(sys.stdin.read().split()))"
    assert accuracy(cases, program, program_fraction_reward) == 1.0
    keeping = "open('/tmp/seen', 'a').write(input())\nprint(open('/tmp/seen').read())"
    assert accuracy(SUM, keeping) == 0.0  # there is nowhere to keep a case for the next one


def test_json_holds_every_field():
    given = json.loads(replace(ADD, setup="import math", mutates=True).to_json())
    assert given == {
        "kind": "calls", "names": ["add"], "tests": list(ADD.tests), "setup": "import math",
        "prompt": "", "mutates": True, "timeout_s": 2.0, "memory_bytes": 256 << 20,
    }  # fmt: skip
