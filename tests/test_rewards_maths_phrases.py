import pytest

from rewards.answers import stated_answers
from rewards.maths.phrases import last_number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is 5.", ("5",)),
        ("**Final Answer:** 5 apples", ("5 apples",)),
        ("So the answer is probably $x^2$, because y.", ("$x^2$",)),
        ("The answer is 4. Thus the answer is 5.", ("5",)),
        ("The answer is not 5.", None),
        ("The answer is Mrs. Smith.", ("Mrs. Smith",)),
        ("The answer is negative 7, i.e. $-7$.", ("$-7$",)),
        ("The answer is 3/8 (that is, 37.5%).", ("3/8",)),
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
        (r"$e(18)=\boxed{3}$ and $e(19)=\boxed{5}$", ("3", "5")),
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


def test_the_last_number_is_the_last_of_the_whole_text():
    assert last_number("7\n" + "x" * 10_000) == "7"
