"""What reasoning-gym's scorers may be handed: references pass, code and bombs do not."""

import time

import pytest

from rollouts.tasks.reasoning_gym_guards import (
    GUARDS,
    REFUSED,
    admits,
    is_arithmetic,
    is_literal,
)

ENTRY = {"metadata": {"numbers": [1, 3, 5, 9]}}
ATTACKS = [
    "__import__('os').system('touch owned')",
    "[__import__('os').system('touch owned')]",
    "().__class__.__base__.__subclasses__()",
    "open('owned', 'w')",
    "[open('owned', 'w')]",
    "(lambda: open('owned', 'w'))()",
    "[x for x in [open('owned', 'w')]]",
    "f\"{open('owned', 'w')}\"",
    "sin.__init__.__globals__",
    "getattr(x, 'y')",
    "x.y",
    "S('open(\"owned\")')",
    "sympify('x')",
    "N(1, 10**9)",
    "9**9**9**9",
    "(9**9)**(9**9)",
    "2**99999999",
    "((((x**20)**20)**20)**20)",
    "1e999999999",
    "99999999!",
    "factorial(99999)",
    "1<<99999999",
    "[0]*999999999",
    "'a'*999999999",
    "(" * 4000 + "1" + ")" * 4000,
    "[" * 4999 + "]" * 4999,
    "-" * 9999 + "1",
    "1+" * 4999 + "1",
    "nan",
    "[NaN, NaN]",
    "inf",
    "R99999999",
    "F+99999999 K-99999999",
    "\x00",
    "\ud800",
]
RIGHT = [
    ("binary_matrix", "3 2 1\n0 1 2"),
    ("binary_matrix", "[[3, 2, 1], [0, 1, 2]]"),
    ("spiral_matrix", "9 1 -6\n9 3"),
    ("spiral_matrix", "[9, 1, -6]"),
    ("n_queens", "_ Q _ _\n_ _ _ Q"),
    ("n_queens", "[['_', 'Q'], ['Q', '_']]"),
    ("string_insertion", "DACEDDC"),
    ("string_insertion", "['D', 'A']"),
    ("string_insertion", '"DACE"'),
    ("countdown", "-1 + 72*(89 - 77)/1"),
    ("puzzle24", "1*3*5 + 9"),
    ("rush_hour", "F+1 K-2 M+3"),
    ("rubiks_cube", "B' U2 L L"),
    ("complex_arithmetic", "-48.0 + 36.5i"),
    ("number_sorting", "['-91.9', '17.0']"),
    ("number_sorting", '["1", "2"]'),
    ("chain_sum", "anything at all"),
]


@pytest.mark.parametrize("dataset", sorted(GUARDS))
def test_no_attack_reaches_a_scorer_that_could_suffer(dataset):
    began = time.perf_counter()
    assert [text for text in ATTACKS if admits(dataset, text, ENTRY)] == []
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(("dataset", "answer"), RIGHT)
def test_right_answers_pass_in_every_spelling_that_the_scorers_read(dataset, answer):
    assert admits(dataset, answer, ENTRY)


def test_a_refused_data_set_needs_no_guard():
    assert not set(GUARDS) & set(REFUSED)
    assert all(REFUSED.values())


@pytest.mark.parametrize("text", ["4*6*1*1", "1*3*5 + 8 + 1", "1*3*5", "9 + 1*3*5*1"])
def test_the_puzzle_of_24_is_solved_with_its_own_numbers(text):
    assert not admits("puzzle24", text, ENTRY)


@pytest.mark.parametrize(
    "text",
    ["[x]", "[1.5]", "[True]", "{1: 2}", "(1, 2)", "[1] [0]", "[*[1]]", "[-'a']", "['a' 'b'][0]"],
)
def test_only_lists_of_plain_values_are_literals(text):
    assert not is_literal(text)


@pytest.mark.parametrize(
    "text", ["", "x", "1.5", "2**3", "7//2", "3(4)", "1 2", "(1", "007", "1" * 13, "1\n+2", "1,2"]
)
def test_only_four_operations_over_whole_numbers_are_arithmetic(text):
    assert not is_arithmetic(text)
