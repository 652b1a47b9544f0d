import pytest

from rewards.maths.unstated import second_answer, unstated_answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 5 meters", "x = 5 meters"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        (r"Therefore it must be that it is $\frac{1}{2}$.", r"\frac{1}{2}"),
        ("Thus sin of 60 degrees = sqrt(3)/2.", "sqrt(3)/2"),
        ("The probability of this is 3/4.", "3/4"),
        ("We can see that it takes him 3 or 5 days.", "3 or 5"),
        ("Either 60 or 120.", "60 or 120"),
        (r"It is $3$, or perhaps $5$.", "3 or 5"),
        (r"The roots are $x=-1$, $x=0$, and $x=1$.", "x=-1, x=0, x=1"),
        (r"And this gives us the number \boxed 9", "9"),
        ("The train rides for 7 hours (420 minutes).", "7 hours"),
        ("2 + 2 = 4. (Check: 4 - 2 = 2.)", "2 + 2 = 4"),
        ("The wind blows from the **north**.", "north"),
        ("**Step 2:** hence **x = 7**.", "x = 7"),
        ("It is \\textbf{Monday}.", "Monday"),
        ("We write $43$ in base 5.", "43"),
        ("So the polygon is called an octagon.", "octagon"),
        ("4 boxes with 2 balls each hold 8 balls.", "8"),
        ("Hence $f$ is an odd function.", "odd function"),
        ("Put n = 2 and get $x^2$ and then we need to", "2"),
        ("It will be wednesday.", "wednesday"),
        ("Tom has 8 apples left out of the original 12.", "8"),
        ("It is not 8.", "It is not 8."),
        ("There are twelve eggs.", "twelve eggs"),
        ("All real numbers.", "All real numbers."),
        ("She needs 5 hours and 30 minutes.", "5 hours and 30 minutes"),
        ("So 12/50 = 24/100, so 24 percent.", "24 percent"),
        ("__import__('os').system('echo 144')", None),
        ("There were none of them at all", None),
        ("", None),
    ],
)
def test_without_a_statement_the_end_of_the_text_counts(text, expected):
    assert unstated_answer(text, "8", is_choice=False) == expected


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("They are 4 and 9.", "4, 9", "4, 9"),
        ("They are 4 and 9.", "9", "4 and 9"),
        ("I am 45 years old and my son is 15.", "45; 15", "(45, 15)"),
        ("quotient 4, remainder 5", "4, 5", "(4, 5)"),
        ("So y = 3 and x = 4.", "(4,3)", "y = 3 and x = 4"),
        ("They meet again at 8:13 pm.", "20:13", "8:13 pm."),
        ("425:300 = 17:12", "17:12", "17:12"),
    ],
)
def test_the_kind_of_the_reference_tells_what_to_look_for(text, reference, expected):
    assert unstated_answer(text, reference, is_choice=False) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I choose option C.", "C"),
        ("Therefore, (C) is correct.", "C"),
        ("C", "C"),
        ("It is an ellipse, so **C**.", "C"),
        ("Open on the left: C", "C"),
        ("Not an ellipse (D), since it has a minus. Hence (E).", "E"),
        ("Both (A) and (C) are right.", "A or C"),
        ("A cat sat.", "A cat sat"),
    ],
)
def test_letters_of_options_are_found(text, expected):
    assert unstated_answer(text, "(C)", is_choice=True) == expected


@pytest.mark.parametrize(
    ("text", "reference", "is_stated", "expected"),
    [
        ("the speed is 6 km/h and the current 4 km/h", "6; 4", True, "(6, 4)"),
        ("48,651 gives 48,655", "8", False, "48,655"),
        ("48,651 gives 48,655", "8", True, None),
        (r"\text{The remainder is } 1", "8", True, "1"),
        (r"\text{the sum is }\frac{5}{6}", "8", True, r"\frac{5}{6}"),
        (r"\frac{1} 5", "5", True, None),
        ("system('echo 5')", "5", False, None),
    ],
)
def test_words_around_an_answer_are_read_a_second_time(text, reference, is_stated, expected):
    assert second_answer(text, reference, is_stated=is_stated) == expected
