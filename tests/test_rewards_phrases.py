import pytest

from rewards.answers import stated_answers
from rewards.phrases import choice_answer, last_number, lenient_answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is 5.", ("5",)),
        ("**Final Answer:** 5 apples", ("5 apples",)),
        ("So the answer is probably $x^2$, because y.", ("$x^2$",)),
        ("The answer is 4. Thus the answer is 5.", ("5",)),
        ("The answer is not 5.", None),
        ("The correct option is (B).", ("(B)",)),
        ("The answer is\n\n$$5$$", ("$$5$$",)),
        ("The answer is 3 or 5.", ("3 or 5",)),
        ("Nothing is said.", None),
        (r"\boxed{\text{The answer is } 5}", ("5",)),
    ],
)
def test_a_phrase_states_the_rest_of_its_sentence(text, expected):
    assert stated_answers(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{3} or \boxed{5}", ("3", "5")),
        (r"\boxed{3}, \boxed{4}, \boxed{5}", ("3", "4", "5")),
        (r"\boxed{3} (or maybe 5)", ("3", "5")),
        (r"If even, \boxed{3}; if odd, \boxed{5}.", ("3", "5")),
        ("<answer>3</answer><answer>5</answer>", ("3", "5")),
        ("The answer is 3. Or maybe 5.", ("3", "5")),
        (r"First \boxed{3}. Multiplying gives \boxed{15}.", ("15",)),
        (r"\boxed{3}. Alternatively, we could solve the equation for 2x with 5.", ("3",)),
    ],
)
def test_answers_side_by_side_are_alternatives(text, expected):
    assert stated_answers(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{3}. Wait, that is wrong. The answer is 5.", ("5",)),
        (r"\boxed{3}. Wait, \boxed{5}", ("5",)),
        ("<answer>3</answer> Oops, it should be 5.", ("5",)),
        ("The answer is 3. Hmm, actually it is 5", ("5",)),
        ("#### 3\nWait, I made a mistake.\n#### 5", ("5",)),
        (r"\boxed{3}. To see that there are actually 3, note a_6 = 1.", ("3",)),
        (r"\boxed{3}. The sum is 5.", ("3",)),
    ],
)
def test_a_correction_replaces_what_it_corrects(text, expected):
    assert stated_answers(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 5 meters", "x = 5 meters"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        (r"Therefore it must be that it is $\frac{1}{2}$.", r"\frac{1}{2}"),
        ("Thus sin of 60 degrees = sqrt(3)/2.", "sqrt(3)/2"),
        ("The probability of this is 3/4.", "3/4"),
        ("We can see that it takes him 3 or 5 days.", "3 or 5"),
        (r"And this gives us the number \boxed 9", "9"),
        ("There were none of them at all", None),
        ("", None),
    ],
)
def test_without_a_statement_the_end_of_the_text_counts(text, expected):
    assert lenient_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I choose option C.", "C"),
        ("Therefore, (C) is correct.", "C"),
        ("C", "C"),
        ("Both (A) and (C) are right.", "A or C"),
        ("A cat sat.", None),
    ],
)
def test_letters_of_options_are_found(text, expected):
    assert choice_answer(text) == expected


def test_the_last_number_is_the_last_of_the_whole_text():
    assert last_number("7\n" + "x" * 10_000) == "7"
