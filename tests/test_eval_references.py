"""Reference answers, found by the question in a prompt."""

import time

import pytest

from eval.references import References, answer_in, read_references, reference_text

SYSTEM = {"role": "system", "content": "Think first."}


@pytest.fixture
def found():
    references = References()
    references.add("What is 3 + 5?", "8")
    references.add("What is 3 + 5? Give the answer in words.", "eight")
    references.add("How many  apples\nare there?", "2")
    references.add("3 + 5?", "short")
    references.add("Twice the same question here?", "1")
    references.add("Twice the same question here?", "2")
    return references


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("What is 3 + 5?", "8"),
        (" What is  3 + 5?\n", "8"),
        ("system\nThink.\nuser\nWhat is 3 + 5?\nassistant\n", "8"),
        ("user:What is 3 + 5?<|im_end|>", "8"),
        ("What is 3 + 5? Give the answer in words.", "eight"),
        ("Q: What is 3 + 5? Give the answer in words. A:", "eight"),
        ("Q: What is 3 + 5? A: 8 Q: How many apples are there? A:", "2"),
        ((SYSTEM, {"role": "user", "content": "How many apples are there?"}), "2"),
        (
            (SYSTEM, {"role": "user", "content": "How many apples are there? Box the answer."}),
            "2",
        ),
        ("3 + 5?", "short"),
    ],
)
def test_a_question_is_found(found, prompt, answer):
    assert found.find(prompt)[1] == answer


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        (),
        "What is 3 + 57?",
        "user\n3 + 5?",  # too short to be looked for inside
        "SoWhat is 3 + 5? Give",  # the question stands in another word
        "Twice the same question here?",  # two answers
    ],
)
def test_what_is_no_question_is_not(found, prompt):
    assert found.find(prompt) is None


def test_rows_of_a_data_set():
    rows = [
        ("a, line 1", {"question": "What is 3 + 5?", "answer": "so\n#### 8"}),
        ("a, line 2", {"question": "What is 3 + 6?", "answer": [9]}),
        ("a, line 3", {"question": "What is 3 + 7?", "answer": ["1", "2"]}),
    ]
    found = read_references(rows, "", lambda row, place: answer_in(row, "", place))
    assert found.answers == {"What is 3 + 5?": "so\n#### 8", "What is 3 + 6?": "9"}
    assert found.num_unread == 1
    with pytest.raises(ValueError, match=r"no reference answers: a, line 3 has none"):
        read_references(rows[2:], "", lambda row, place: answer_in(row, "", place))
    with pytest.raises(ValueError, match=r"a, line 1: no field 'problem'; the fields are"):
        read_references(rows, "problem", lambda row, place: "8")
    verl = {"prompt": [SYSTEM, {"role": "user", "content": "x"}], "reward_model": {}}
    verl["reward_model"]["ground_truth"] = "4"
    found = read_references([("b", verl)], "", lambda row, place: answer_in(row, "", place))
    assert found.answers == {"x": "4"}


def test_what_is_a_reference():
    assert [reference_text(value) for value in ("8", 8, [8.5], ("a",))] == ["8", "8", "8.5", "a"]
    assert [reference_text(v) for v in (None, "", " ", [], ["1", "2"], {"a": 1}, True)] == [
        None
    ] * 7


def test_many_questions_and_a_long_prompt_are_quick():
    references = References()
    for number in range(20_000):
        references.add(f"What is the value of the number {number} plus one, in words?", str(number))
    prompt = (
        "some words before it " * 2000 + "What is the value of the number 777 plus one, in words?"
    )
    began = time.process_time()
    assert references.find(prompt + " Think.")[1] == "777"
    assert time.process_time() - began < 2
