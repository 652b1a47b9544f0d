import random
import resource
import time
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.mathematics import math_reward, numeric_reward
from rewards.maths.asked import Rounding, rounding_of
from rewards.problem import Problem, Response, Verdict


def problem(answer):
    return Problem(id="test/1", prompt="What is 3 + 5?", answer=answer, source="test")


def verdict(text, *, answer="8", prefill=""):
    return numeric_reward(problem(answer), Response(text=text, prefill=prefill)).verdict


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8", Verdict.CORRECT),
        ("3 + 5 = 8.", Verdict.CORRECT),
        ("<answer>8.0</answer> not 9", Verdict.CORRECT),
        ("\\boxed{\\frac{16}{2}}", Verdict.CORRECT),
        ("9", Verdict.WRONG),
        ("-8", Verdict.WRONG),
        ("8 or 9", Verdict.WRONG),
        ("", Verdict.NO_ANSWER),
        ("eight", Verdict.NO_ANSWER),
        ("<answer></answer> 8", Verdict.NO_ANSWER),
        ("<answer>eight</answer> 9", Verdict.CORRECT),
        ("<answer>many</answer> 8", Verdict.MALFORMED),
        ("\\boxed{8/0}", Verdict.MALFORMED),
        ("8" * 65, Verdict.TOO_LARGE),
        ("<answer>1e999999999</answer>", Verdict.TOO_LARGE),
    ],
)
def test_each_text_has_its_verdict(text, expected):
    assert verdict(text) is expected


def test_only_what_follows_the_thought_is_graded():
    assert verdict("9? no</think>8", prefill="<think>") is Verdict.CORRECT
    assert verdict("8</think>9", prefill="<think>") is Verdict.WRONG
    assert verdict("it is 8</think> \n", prefill="<think>") is Verdict.NO_ANSWER
    assert verdict("<answer>8</answer></think>no") is Verdict.NO_ANSWER


def test_a_prefilled_answer_is_part_of_the_text():
    assert verdict("8</answer> not 9", prefill="<answer>") is Verdict.CORRECT


def test_value_and_part_are_one_or_zero():
    right = numeric_reward(problem("8"), Response(text="8"))
    wrong = numeric_reward(problem("8"), Response(text="9"))
    assert (right.value, right.parts) == (1.0, {"accuracy": 1.0})
    assert (wrong.value, wrong.parts) == (0.0, {"accuracy": 0.0})


def test_a_reference_may_state_its_number():
    assert verdict("72", answer="48 / 2 = 24\n#### 72") is Verdict.CORRECT
    assert verdict("24", answer="48 / 2 = 24\n#### 72") is Verdict.WRONG
    assert verdict("1200", answer="1,200") is Verdict.CORRECT


def test_a_reference_without_a_number_is_our_mistake():
    with pytest.raises(ValueError, match=r"'x \+ 1' of problem test/1 is not a number"):
        verdict("1", answer="x + 1")


@given(st.text() | st.text(alphabet="0123456789.,-/eE<>answerthink\\boxed{}#"))
def test_any_text_gets_a_verdict_of_the_policy(text):
    score = numeric_reward(problem("8"), Response(text=text))
    assert not score.verdict.is_ours
    assert score.value == (1.0 if score.verdict is Verdict.CORRECT else 0.0)


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        (r"so \boxed{\frac{2}{4}}", r"\frac{1}{2}", Verdict.CORRECT),
        (r"\boxed{x = 5}", "5", Verdict.CORRECT),
        ("<think>\\boxed{6}</think> The answer is 5.", "5", Verdict.CORRECT),
        (r"\boxed{6}. Wait, it should be \boxed{5}", "5", Verdict.CORRECT),
        (r"\boxed{1, 2}", r"\{1, 2\}", Verdict.CORRECT),
        (r"\boxed{1} and \boxed{2}", r"\{1, 2\}", Verdict.CORRECT),
        (r"\boxed{5}, that is \boxed{5.0}", "5", Verdict.CORRECT),
        ("I choose option C.", r"\text{(C)}", Verdict.CORRECT),
        ("3 + 5 = 8\n#### 8", "6 + 2 = 8\n#### 8", Verdict.CORRECT),
        (r"\boxed{5} or \boxed{6}", "5", Verdict.WRONG),
        (r"\boxed{5 \text{ or } 6}", "5", Verdict.WRONG),
        ("The answer could be any of 4, 5, 6.", "5", Verdict.WRONG),
        (r"\boxed{5}. Wait, it should be \boxed{6}", "5", Verdict.WRONG),
        ("<answer></answer> 5", "5", Verdict.NO_ANSWER),
        ("<think>5</think>", "5", Verdict.NO_ANSWER),
        ("no idea", r"x^2", Verdict.NO_ANSWER),
        (r"\boxed{(5}", "6", Verdict.MALFORMED),
        (r"\boxed{9^9^9^9}", "5", Verdict.TOO_LARGE),
        (r"\boxed{" + "x+" * 600 + "x}", "5", Verdict.TOO_LARGE),
    ],
)
def test_any_answer_has_its_verdict(text, answer, expected):
    score = math_reward(problem(answer), Response(text=text))
    assert score.verdict is expected
    assert score.value == score.parts["accuracy"] == float(expected is Verdict.CORRECT)


@pytest.mark.parametrize(
    ("prompt", "place"),
    [
        ("Round to the nearest hundredth.", Fraction(1, 100)),
        ("Give three decimal places.", Fraction(1, 1000)),
        ("to the nearest integer", Fraction(1)),
        ("rounded to the nearest thousand", Fraction(1000)),
        ("Approximate the area.", None),
    ],
)
def test_a_prompt_asks_for_rounding(prompt, place):
    assert rounding_of(prompt) == Rounding(place=place)


def test_a_prompt_that_does_not_ask_allows_none():
    assert rounding_of("What is the ground speed?") is None
    third = Problem(id="t", prompt="What is 1/3?", answer="1/3", source="t")
    rounded = replace(third, prompt="What is 1/3, to two decimal places?")
    chat = replace(third, prompt=({"role": "user", "content": rounded.prompt},))
    text = Response(text=r"\boxed{0.33}")
    assert [math_reward(p, text).value for p in (third, rounded, chat)] == [0.0, 1.0, 1.0]


HOSTILE = [
    "9^" * 200 + "9",
    "9!" + "!" * 300,
    "(" * 900 + "1" + ")" * 900,
    "{" * 900,
    "}" * 900,
    r"\frac{1}{" * 90 + "1" + "}" * 90,
    r"\sqrt" * 150 + "2",
    r"\sin " * 200 + "x",
    "10^{10^{10^{10^{10}}}}",
    "(10^{300})!",
    r"\binom{10^9}{5\cdot 10^8}",
    "x^{99999}-1",
    "(x+1)^{9999}(y+1)^{9999}",
    "1e999999999",
    "0." + "0" * 900 + "1",
    r"\sum_{k=1}^{999999999} k!",
    r"\int_0^1 x^{x^{x}} dx",
    r"\begin{pmatrix}" + "1 & " * 300 + r"1 \end{pmatrix}",
    ",".join("1" * 400),
    r"\cup".join(["(0,1)"] * 100),
    r"\pm " * 100 + "1",
    "__import__('os').system('true')",
    "lambda: 0",
    "\x00\ud800\u202e\U0001d7d9\u0665",
    r"\text{" * 100,
    "a" * 999,
    "x=" * 300 + "1",
    "1<" * 300 + "x",
    r"\overline{" * 80 + "1" + "}" * 80,
    "|" * 500,
    r"\lfloor" * 200,
    "7 " + "m/s" * 200,
    "$" * 999,
    "1:" * 300 + "1",
    "12_" * 200 + "3",
    r"e^{e^{e^{e^{e^{e}}}}}",
    r"\tan(10^{10^{5}})",
    r"\ln(\ln(\ln(\ln(0.5))))",
    "0^0^0^0/0",
    r"\log_1 5",
]
REFERENCES = ["5", r"\frac{1}{2}", "x^2-1", "(1,2]", r"\{1,2\}", r"\text{(C)}", "y=2x+3", "2^{100}"]
REFERENCES += [r"\begin{pmatrix}1\\2\end{pmatrix}", r"\text{Evelyn}", r"(-\infty,2)\cup(3,\infty)"]


@pytest.mark.parametrize("content", HOSTILE)
def test_hostile_answers_are_quick_and_never_right(content):
    math_reward(problem("5050"), Response(text=r"\boxed{\sum_{k=1}^{100} k}"))  # imports sympy
    start = time.process_time()
    for form in (r"\boxed{%s}", "<answer>%s</answer>", "The answer is %s", "%s"):
        for answer in REFERENCES:
            score = math_reward(problem(answer), Response(text=form.replace("%s", content)))
            assert not score.verdict.is_ours
            assert score.value == 0
    assert time.process_time() - start < 10  # 44 answers


UNITS = [
    "\\boxed{",
    "{",
    "}",
    "(",
    "[",
    "\\{",
    "<answer>",
    "</answer>",
    "####",
    "The answer is ",
    "5",
]
UNITS += ["wait, ", "it is 5 ", "\\boxed{5} or ", "5 or ", " = ", "$x$ ", "\n", ".", "\\frac", "1,"]
UNITS += [
    "**",
    "\u221a",
    "<think>",
    "answer to ",
    "maybe 5. ",
    "\\boxed{5}",
    "<answer>5</answer>",
    "`",
]


@pytest.mark.parametrize("unit", UNITS)
def test_a_megabyte_of_anything_is_quick(unit):
    text = unit * (1_000_000 // len(unit))
    start = time.process_time()
    for start_of_text in ("", "\\boxed{", "The answer is ", "\\boxed{5} wait "):
        assert not math_reward(problem("7"), Response(text=start_of_text + text)).value
    assert time.process_time() - start < 10  # four megabytes


PIECES = [
    "\\boxed{", "}", "{", "(", ")", "[", "]", "\\frac", "\\sqrt", "^", "_", "!", "9", "9999999999",
    "10", "x", "n", "+", "-", "*", "/", "=", "<", "\\le", "\\pm", "\\cup", "\\infty", "\\{", "\\}",
    ",", " or ", " and ", "\\begin{pmatrix}", "\\end{pmatrix}", "&", "\\\\", "\\binom", "\\sin",
    "\\sum_{k=1}^{100}", "\\log_", "|", "\\lfloor", "\\rfloor", "e", "i", "\\pi", "\u00b0", "%", "$",
    "the answer is ", "<answer>", "</answer>", "####", "\n", "\\text{", " cm", "\u221e", "\u0663",
    "\u00b2", "\x00", "\\left", ".", "E", "\\overline{", "0.", "\\setminus", "\\approx", ":", "a.m.",
    "million", "\\int", "wait ", "_8", "'", "f(",
]  # fmt: skip


def test_random_pieces_never_raise_and_use_no_memory():
    draw = random.Random(0)
    math_reward(problem("5050"), Response(text=r"\boxed{\sum_{k=1}^{100} k}"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2000):
        body = "".join(draw.choices(PIECES, k=draw.randrange(1, 40)))
        text = draw.choice((r"\boxed{%s}", "<answer>%s</answer>", "%s")).replace("%s", body)
        score = math_reward(problem(draw.choice(REFERENCES)), Response(text=text))
        assert not score.verdict.is_ours
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
