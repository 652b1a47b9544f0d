import threading
from fractions import Fraction

import pytest

from rewards.equivalence import equivalent, is_choice
from rewards.maths.asked import Asked, Rounding, asked_by
from rewards.maths.precision import TooLarge

SAME = [
    (r"\frac{1}{\sqrt{n}}", r"\sqrt{\frac{1}{n}}"),
    (r"x^2-1", "(x-1)(x+1)"),
    (r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"),
    (r"\pm 2", r"x = 2 \text{ or } x = -2"),
    ("(3,4]", r"3 < x \le 4"),
    (r"(-\infty,2)\cup(3,\infty)", r"x<2 \text{ or } x>3"),
    (r"[1,4)", r"[1,2] \cup (2,4)"),
    (r"x \ne 2", r"\mathbb{R}\setminus\{2\}"),
    (r"(-\infty,3)", r"\{x \mid x < 3\}"),
    ("y = 2x + 3", "2x + 3"),
    ("y = 2x + 3", "4x - 2y = -6"),
    (r"x + y \le 5", r"5 \ge y + x"),
    (r"\{1,2\}", "2, 1, 2"),
    ("(1,2)", "y = 2, x = 1"),
    ("(1,2)", "(x, y) = (1, 2)"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\frac{1}{2}\begin{bmatrix}2\\4\end{bmatrix}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "[[1,2],[3,4]]"),
    ("3+4i", "(2+i)^2"),
    (r"\text{(C)}", "C. 12"),
    ("12", "(C) 12"),
    (r"\text{Evelyn}", "evelyn."),
    (r"\text{Alice and Bob}", "Bob, Alice"),
    (r"864 \mbox{ inches}^2", r"6 \text{ square feet}"),
    ("5 \\text{ m}", "500 cm"),
    (r"35\%", r"\frac{7}{20}"),
    ("52_8", "52_{8}"),
    (r"4\!:\!30 \text{ p.m.}", "4:30 PM"),
    ("2:3", "4:6"),
    ("3:4:5", "6:8:10"),
    (r"\lfloor\log_2 n\rfloor+1", r"\lceil\log_2(n+1)\rceil"),
    ("(-1)^n", r"\cos(n\pi)"),
    (r"-\log_{10} 250", r"-\log 250"),
    (r"\frac{37}{4} m", r"\frac{37m}{4}"),
    (r"\frac{1}{3}", r"0.\overline{3}"),
    (r"\frac{1}{3}", r"x = \frac{1}{3} \approx 0.333"),
    ("5050", r"\sum_{k=1}^{100} k"),
    (r"\emptyset", r"\text{no solution}"),
    ("(100,101)", r"(100, 101)"),
    ("100,101", "100101"),
    ("2x^2-1", "p(x) = 2x^2-1"),
    (r"f^{-1}(x)=\frac{x}{2}", "x/2"),
    ("x=2 \\text{ or } x=3", "$x_1 = 2$, $x_2 = 3$"),
    ("6e - 10", "6e-10"),
    (r"(-\infty,7)\cup(7,\infty)", r"x\in\mathbb{R},\ x\ne 7"),
    (r"[46,\infty)", r"f(x)\ge 46"),
    ("[-1,1]", r"|y|\le 1"),
    (r"x<-3 \text{ or } x>3", "|x|>3"),
    ("$(0,2),(0,-2)$", r"(0,\pm 2)"),
    ("(3,0),(-3,1)", r"a=3, b=0 \text{ or } a=-3, b=1"),
    ("17:12", "425:300 = 17:12"),
    ("9:7", r"9 \text{ to } 7"),
    ("5 (owls)", "5"),
    ("9.6 (kilometers)", "9600 m"),
    ("36 (degrees); 108 (degrees)", r"36^\circ, 108^\circ"),
    ("540^\\circ", r"3\pi \text{ radians}"),
    (r"(6,235^\circ)", "(6,235)"),
    ("1,000,000", "1 000 000"),
    ("3,5", "3{,}5"),
    ("42", "\uff14\uff12"),
    ("7", "7 \u2705"),
    ("9^{9^9}", "9^{9^{9}}"),
    ("56", "fifty-six"),
    (r"\$6", "six dollars"),
    ("3 5/6", "3 and 5/6"),
    ("1/2", r"\int_0^1 x dx = 1/2"),
    ("0.033", r"v/c \approx 0.033"),
    ("7.6 Z", r"7.6Z \text{ eV}"),
    (r"50 \text{ microns}", r"50\,\mu\text{m}"),
    (r"\frac{dv}{dt} = k v", r"\dot{v} = kv"),
    ("np.arcsin(10/13)", r"\arcsin\frac{10}{13}"),
    ("4", "4 more green apples"),
    (r"\frac{5}{12}", "5/12 of an hour"),
    (r"30 \text{ cm}", "300 mm long"),
    ("3", r"3 \pmod{7}"),
    ("y = 5e^{2x}", r"y(x) = 5\exp(2x)"),
    (r"\frac{1}{s}", r"\frac{V_o(s)}{V_i(s)} = \frac{1}{s}"),
    ("16, 3", "w=16, d=3"),
    ("3, 16", "w=16, d=3"),
    ("SRAC=LRAC", "LRAC = SRAC"),
    ("157", "a+b+c=157"),
    ("$f(x)=-1$,$f(x)=x+1$", r"f(x)=x+1\quad\text{or}\quad f(x)\equiv-1"),
    (r"\frac{8}{15}", r"\tan G = 8/15"),
    (r"\frac{4A}{3+3i}e^{it}", r"z_p(t)=\frac{2A}{3}(1-i)e^{it}"),
    ("1525", r"1525\text{ cents (i.e. \$15.25)}"),
    ("39", "39 pieces of candy"),
    ("24", r"2^{10}\equiv 24 \pmod{1000}"),
    (r"-4\%", r"4\%\text{ decrease}"),
    ("215 cents", "215\u00a2"),
    ("(1024,2187)", r"(1{,}024,\ 2{,}187)"),
    ("3^{20}", r"3^{20}\text{ is larger}"),
    ("B", r"(\mathrm{B})"),
    ("(1,-1,4)", r"\mathbf{i}-\mathbf{j}+4\mathbf{k}"),
    (r"\begin{pmatrix}0\\0\\1\end{pmatrix}", r"\hat{\mathbf{k}}"),
    (r"\frac{d x}{d t}=k x-a", "x'(t)=kx(t)-a"),
    ("16", "|r-s| = 16"),
    ("6630", r"6.63\times 10^{3}\ \text{\AA}"),
    (r"\frac{1}{6}", "\u2159"),
    (r"\frac{a}{\sqrt{1-a^2}}", r"\frac{a\sqrt{1-a^2}}{1-a^2}"),
    (r"\sqrt{26}", r"|z|=\sqrt{26}"),
    ("-2,-2", "a=b=-2"),
    (r"(0,1),(0,-1)", r"\pm(0,1)"),
    (r"(2+\sqrt3,2-\sqrt3),(2-\sqrt3,2+\sqrt3)", r"(2\pm\sqrt3, 2\mp\sqrt3)"),
    ("composite", r"\text{composite (not prime)}"),
    ("no solution", r"\text{There are no solutions.}"),
    ("f^{-1}(x)=x+4", "y=4+x"),
    ("(-2,8)", "]-2,8["),
    (r"[4,\infty)", r"[4,\infty["),
]
DIFFERENT = [
    (r"1+\frac{1}{e}", r"1-\frac{1}{e}"),
    (r"\frac{1}{2006!}", r"\frac{1}{2004!}"),
    (r"\frac{1}{3}", "0.333"),
    ("5", "3 or 5"),
    ("5", "5, 6"),
    ("5", "5 \\pm 1"),
    ("x = 3", "(x-3)(x-4)=0"),
    ("7", "x^2 = 7"),
    ("7", "7 = 8"),
    ("(1,2)", "[1,2]"),
    ("(1,2)", "(2,1)"),
    (r"\{1,2\}", "(1,2)"),
    ("(3,4]", "(3,4)"),
    ("|x|", "x"),
    ("(-1)^n", "-1"),
    (r"5 \text{ cm}", r"5 \text{ m}"),
    (r"15 \text{ cm}^2", r"15 \text{ cm}"),
    ("52_8", "42"),
    ("52_8", "52_9"),
    (r"\text{(C)}", "C or D"),
    (r"\text{even}", r"\text{neither even nor odd}"),
    (r"480 + 480\sqrt{3} \text{ feet}", r"480 - 480\sqrt{3} \text{ feet}"),
    (r"\frac{37}{4} m", r"\frac{37}{4}"),
    ("2^{100}", "1267650600228229401496703205377"),
    ("y = 2x + 3", "0 = 0"),
    ("x > 2", r"x \ge 2"),
    ("I(0) e^{-t}", "0"),
    (r"\text{B, E, G}", "B, E"),
    ("12", "1.2"),
    ("(0,2)", r"(0,1) \cup (1,2)"),
    (r"(0,1) \cup (1,2)", r"(0,1) \cup [1,2)"),
    ("f(n)=n, g(n)=1", "f(n)=1, g(n)=n"),
    ("8; 40", "40, 8"),
    (r"5 \text{ cm}, 6 \text{ cm}", r"5 \text{ m}, 6 \text{ m}"),
    (r"4\%", r"-4\%"),
    (r"-4\%", r"4\%\text{ increase}"),
    (r"x \equiv 3 \pmod 7", r"x \equiv 3 \pmod 5"),
    ("(1,-1,4)", r"\mathbf{i}+\mathbf{j}+4\mathbf{k}"),
    ("2, 5", r"a\approx 5, b\approx 2"),
    ("[-1,1]", r"|y|<1"),
    ("9:7", r"7 \text{ to } 9"),
    (r"5.4 \text{ cents}", r"\$5.40"),
    ("540^\\circ", r"2\pi \text{ radians}"),
    ("56", "fifty-five"),
    (r"(6,235^\circ)", "(6,236)"),
]


PROBLEMS = [
    ("Write 3/20 as a decimal.", "0.15", r"0.15\%", False),
    ("What percent is it?", "15", r"15\%", True),
    ("How long is it, in feet?", "40", "40 inches", False),
    ("How long is it, in feet?", "40", "480 inches", True),
    ("How fast is it, in metres per second?", r"12\pi", r"12\pi \text{ metres per minute}", False),
    ("Find the angle in degrees to 2 decimal places.", "28.71", "28.71 rad", False),
    ("Write 13 in base ten.", "13", "13_2", False),
    ("Arrange them in increasing order.", "0.7, 3/4", "3/4, 0.7", False),
    ("Arrange them in increasing order.", "0.7, 3/4, 4/5", r"0.7 < \frac34 < \frac45", True),
    ("Find all roots.", "0.7, 3/4", "3/4, 0.7", True),
    ("What kind of triangle is it?", "right", "right triangle", True),
    ("Which shop is cheaper?", "Smith's shop", "Smith", True),
    ("Is the function odd, even or neither?", "even", "neither even", False),
    ("How many minutes does it take?", "334", "5 hours and 34 minutes", True),
    ("How far away is it (in pc)?", "0.56", r"0.56 \text{ kpc}", False),
    ("0.5 liters are 1.05 pints. How many pints are it?", "2.1", r"2.1 \text{ liters}", False),
    ("Find the angle in degrees.", "90", r"\frac{\pi}{2} \text{ radians}", True),
    ("Find it in arcseconds.", "0.49", "0.49 arcminutes", False),
    ("Compute it.", "3", "3T", False),
    ("How many rounds are it?", "363", "362.5", False),
    ("Round it to the nearest integer.", "363", "362.5", False),
    ("Round it to the nearest integer.", "362.5", "363", True),
    ("Round it to the nearest hundred.", "48651", "48,700", True),
    ("Round it to the nearest hundred.", "48700", "48,651", False),
    ("What is its area in cm$^2$?", "10", r"10\text{ mm}^2", False),
    ("What is its area in cm$^2$?", "10", r"10\text{ cm}", False),
    ("Write 0.45 and 1/2 in increasing order.", "0.45, 1/2", "1/2, 0.45", False),
    ("Determine the values of $T(1), T(2)$ and $T(3)$.", "2,4,3", "T(1)=2, T(2)=3, T(3)=4", False),
    ("What is the perimeter, if a side has 9 cm?", "38", r"38 \text{ cm}^2", False),
    ("What is its area, if a side has 9 cm?", "38", r"38 \text{ cm}^2", True),
    ("What is its speed in km/h?", "60", r"60 \text{ m/s}", False),
    ("List them from first to last.", r"\text{Cy, Ann, Bob}", "Ann, Cy, Bob", False),
    ("Who are they?", r"\text{Cy, Ann, Bob}", "Ann, Cy, Bob", True),
    ("Which is it? (A) 21 (B) 29", "B", "29", True),
    ("Which is it? (A) 21 (B) 29", "B", "21", False),
    (r"Which is it? $\textbf{(A)}\ 21 \qquad \textbf{(B)}\ 29$", "29", r"\textbf{(B)}", True),
    (r"Which is it? $\textbf{(A)}\ 21 \qquad \textbf{(B)}\ 29$", "29", "A", False),
]


@pytest.mark.parametrize(("prompt", "reference", "answer", "expected"), PROBLEMS)
def test_the_problem_says_what_counts(prompt, reference, answer, expected):
    assert equivalent(reference, answer, asked=asked_by(prompt)) is expected


@pytest.mark.parametrize(("reference", "answer"), SAME)
def test_another_spelling_is_the_same(reference, answer):
    assert equivalent(reference, answer) is True


@pytest.mark.parametrize(("reference", "answer"), DIFFERENT)
def test_another_value_is_not(reference, answer):
    assert equivalent(reference, answer) is False


@pytest.mark.parametrize(
    ("reference", "answer", "place", "expected"),
    [
        (r"\frac{2}{3}", "0.667", Fraction(1, 1000), True),
        (r"\frac{2}{3}", "0.666", Fraction(1, 1000), False),
        (r"\frac{2}{3}", "0.7", Fraction(1, 1000), False),
        (r"2\pi", "6.28", None, True),
        (r"2\pi", "6", None, False),
        ("3.14", "3.15", Fraction(1, 100), False),
        ("12", r"11.8 \approx 12", Fraction(1), True),
        ("1300", "1200", Fraction(100), False),
    ],
)
def test_rounding_is_allowed_where_it_was_asked_for(reference, answer, place, expected):
    assert equivalent(reference, answer, asked=Asked(rounding=Rounding(place=place))) is expected
    assert equivalent(r"\frac{2}{3}", "0.667") is False


@pytest.mark.parametrize("answer", ["9^9^9^9", "99999!", "x" * 1001])
def test_answers_over_a_cap_are_refused(answer):
    with pytest.raises(TooLarge):
        equivalent("5", answer)


def test_a_real_value_of_complex_steps_has_an_order():
    assert equivalent("x > 3", r"i^2 \cdot (-4)") is False
    assert equivalent("x > 3", r"\sqrt{-4}^2 < x") is False


def test_a_formula_is_not_compared_as_words():
    assert not equivalent("n!", r"n\left}")


@pytest.mark.parametrize("answer", ["", "(1,", "1 2", r"\frac{1}{"])
def test_what_cannot_be_read_is_none(answer):
    assert equivalent("5", answer) is None


def test_letters_of_options_are_known():
    assert [is_choice(text) for text in ("C", r"\text{(C)}", "x", "AB", "5")] == [
        True, True, False, False, False,
    ]  # fmt: skip


def test_it_works_off_the_main_thread():
    found = []
    thread = threading.Thread(
        target=lambda: found.append(equivalent("5050", r"\sum_{k=1}^{100} k"))
    )
    thread.start()
    thread.join()
    assert found == [True]
