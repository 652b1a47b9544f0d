import asyncio
import math
import sys

import pytest

from rewards.adapters import AdaptedReward, Form, adapted, as_score, load_reward
from rewards.problem import Problem, Response, Score, Verdict

PROBLEM = Problem(id="sum/1", prompt="3 + 5?", answer="8", source="sum")
CHAT = Problem(
    id="sum/2", prompt=({"role": "user", "content": "3 + 5?"},), answer="8", source="sum"
)
RESPONSES = [Response(text="8"), Response(text="9", prefill="<think>")]
RIGHT = Score(value=1.0, verdict=Verdict.CORRECT)
WRONG = Score(value=0.0, verdict=Verdict.WRONG)


def by_response(problem, response):
    return float(response.text == problem.answer)


def by_text(problem, text):
    return text == problem.answer


def by_full_text(problem, text):
    return {"8": 1.0, "<think>9": 0.0}[text]


def by_group(problem, responses):
    return [float(r.text == problem.answer) for r in responses]


def by_batch(problems, responses):
    return [float(r.text == p.answer) for p, r in zip(problems, responses, strict=True)]


def in_a_tuple(problem, responses):
    return tuple(by_group(problem, responses))


def with_an_option(problem, response, scale=1.0):
    return scale * by_response(problem, response)


async def asynchronous(problem, response):
    await asyncio.sleep(0)
    return by_response(problem, response)


async def asynchronous_group(problem, responses):
    await asyncio.sleep(0)
    return by_group(problem, responses)


class Stateful:
    def __init__(self):
        self.table = {"8": 1.0}

    def __call__(self, problem, text):
        return self.table.get(text, 0.0)

    def method(self, problem, response):
        return self.table.get(response.text, 0.0)


# The signatures that TRL's documentation has.
def trl_plain(prompts, completions, **kwargs):
    assert prompts == ["3 + 5?"] * len(completions)
    return [float(c == a) for c, a in zip(completions, kwargs["answer"], strict=True)]


def trl_column(completions, ground_truth, **kwargs):
    return [float(c == g) for c, g in zip(completions, ground_truth, strict=True)]


def trl_conversation(completions, solution, **kwargs):
    contents = [completion[0]["content"] for completion in completions]
    return [float(c == s) for c, s in zip(contents, solution, strict=True)]


async def trl_asynchronous(prompts, completions, answer):
    return trl_conversation(completions, answer)


@pytest.mark.parametrize(
    ("reward", "form"),
    [
        (by_response, Form.RESPONSE),
        (lambda _problem, _response: _response.text == "8", Form.RESPONSE),
        (with_an_option, Form.RESPONSE),
        (asynchronous, Form.RESPONSE),
        (Stateful().method, Form.RESPONSE),
        (by_text, Form.TEXT),
        (by_full_text, Form.TEXT),
        (Stateful(), Form.TEXT),
        (Stateful, Form.TEXT),
        (by_group, Form.GROUP),
        (in_a_tuple, Form.GROUP),
        (asynchronous_group, Form.GROUP),
        (by_batch, Form.BATCH),
        (trl_plain, Form.TRL),
        (trl_column, Form.TRL),
        (trl_conversation, Form.TRL),
        (trl_asynchronous, Form.TRL),
    ],
)
def test_every_form_gives_the_same_scores(reward, form):
    made = adapted(reward)
    assert made.form is form
    assert made.score(PROBLEM, RESPONSES) == [RIGHT, WRONG]
    assert made.takes_group == (form in (Form.GROUP, Form.BATCH, Form.TRL))
    assert adapted(made) is made


def test_trl_rewards_get_a_conversation_for_a_conversation():
    seen = {}

    def reward(prompts, completions, source, **kwargs):
        seen.update(prompts=prompts, completions=completions, source=source, **kwargs)
        return [0, 1]

    assert adapted(reward).score(CHAT, RESPONSES) == [WRONG, RIGHT]
    assert seen["prompts"] == [[{"role": "user", "content": "3 + 5?"}]] * 2
    assert seen["completions"] == [
        [{"role": "assistant", "content": "8"}],
        [{"role": "assistant", "content": "<think>9"}],
    ]
    assert (seen["id"], seen["source"]) == (["sum/2"] * 2, ["sum"] * 2)
    assert seen["target"] == seen["reference"] == seen["solution"] == ["8", "8"]


def test_what_fails_on_texts_and_on_messages_shows_the_first_failure():
    def reward(completions, **kwargs):
        raise TypeError(f"no {type(completions[0]).__name__}")

    with pytest.raises(TypeError, match="no str"):
        adapted(reward).score(PROBLEM, RESPONSES)


def test_trls_own_rewards_work_unchanged():
    formats = pytest.importorskip("trl.rewards.format_rewards", reason="TRL is not installed")
    texts = ["<think>\n3 + 5\n</think>\n8", "8"]
    scores = adapted(formats.think_format_reward).score(PROBLEM, [Response(text=t) for t in texts])
    assert [score.value for score in scores] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda: 1.0, "takes ()"),
        (lambda text: 1.0, "takes (text)"),
        (lambda question, answer: 1.0, "takes (question, answer)"),
        (lambda response, problem: 1.0, "takes (response, problem)"),
        (lambda problem, response, judge: 1.0, "takes (problem, response, judge)"),
        (lambda problem, *, response: 1.0, "takes (problem, response)"),
        (lambda *args: 1.0, "takes (args)"),
        (type("Judge", (), {"__init__": lambda self, url: None}), "the class Judge needs argument"),
        (len, "takes (obj)"),
        (3, "int cannot be called"),
    ],
)
def test_a_wrong_signature_is_refused_with_the_expected_form(reward, message):
    with pytest.raises(ValueError) as caught:
        adapted(reward)
    assert message in str(caught.value)
    assert "a reward is a function (problem, response) or (problem, text)" in str(caught.value)


def test_a_column_that_no_problem_has_is_refused_by_name():
    with pytest.raises(
        ValueError, match=r"asks for difficulty; the columns of a problem are answer"
    ):
        adapted(lambda completions, difficulty, **kwargs: [])


@pytest.mark.parametrize(
    ("value", "score"),
    [
        (1, RIGHT),
        (True, RIGHT),
        (0.0, WRONG),
        (0.99, Score(value=0.99, verdict=Verdict.WRONG)),
        (-2, Score(value=-2.0, verdict=Verdict.WRONG)),
        (1.5, Score(value=1.5, verdict=Verdict.CORRECT)),
        (BROKEN := Score(value=0.0, verdict=Verdict.SANDBOX_ERROR), BROKEN),
    ],
)
def test_values_and_their_verdicts(value, score):
    assert as_score(value) == score


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "gave NoneType None; a number or a Score is expected"),
        ("1", "gave str '1'"),
        ([1.0], r"gave list \[1.0\]"),
        (1j, "gave complex 1j"),
        (math.nan, "gave nan; a finite number is expected"),
        (-math.inf, "gave -inf"),
        (Score(value=math.nan, verdict=Verdict.WRONG), "gave nan"),
        (
            Score(value=1.0, verdict=Verdict.CORRECT, parts={"a": math.inf}),
            "the part 'a' of the score",
        ),
        (Score(value="1", verdict=Verdict.CORRECT), "gave str '1'"),
    ],
)
def test_what_is_no_score_is_refused(value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        adapted(lambda problem, response: value).score(PROBLEM, RESPONSES)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0], "gave 1 values for 2 responses"),
        ([1.0] * 3, "gave 3 values for 2 responses"),
        (1.0, "gave float; a list of 2 numbers or Scores is expected"),
        ("12", "gave str; a list"),
        ({0: 1.0, 1: 0.0}, "gave dict; a list"),
        (None, "gave NoneType; a list"),
        ([1.0, None], "gave NoneType None"),
    ],
)
def test_a_group_needs_a_value_for_each(value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        adapted(lambda problem, responses: value).score(PROBLEM, RESPONSES)


def test_async_rewards_are_awaited_together():
    both = asyncio.Barrier(2)

    async def meets(problem, response):
        await asyncio.wait_for(both.wait(), timeout=5)
        return 1.0

    assert adapted(meets).score(PROBLEM, RESPONSES) == [RIGHT, RIGHT]


def test_rewards_by_name(tmp_path, monkeypatch):
    (tmp_path / "named.py").write_text(
        "LIMIT = 3\ndef brevity(problem, text):\n    return 1.0\n"
        "class Judge:\n    def grade(self, problem, text):\n        return 0.5\njudge = Judge()\n"
    )
    (tmp_path / "failing.py").write_text("raise OSError('no licence')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "named", raising=False)
    assert adapted(load_reward("named:brevity")).score(PROBLEM, RESPONSES) == [RIGHT, RIGHT]
    assert adapted(load_reward("named:judge.grade")).score(PROBLEM, RESPONSES)[0].value == 0.5
    for spec, message in {
        "named": "not of the form package.module:function",
        "named:": "not of the form package.module:function",
        "absent.module:f": r"absent.module cannot be imported \(ModuleNotFoundError",
        "failing:f": r"failing cannot be imported \(OSError: no licence\)",
        "named:brevety": "named has no 'brevety'; it has brevity, Judge",
        "named:LIMIT": "is 3, no function; a reward is a function",
    }.items():
        with pytest.raises(ValueError, match=message):
            load_reward(spec)
    sys.modules.pop("named", None)


def test_an_adapted_reward_says_how_it_is_called():
    assert adapted(by_text) == AdaptedReward(reward=by_text, form=Form.TEXT)
    assert adapted(trl_column).columns == (
        "prompts",
        "completions",
        "answer",
        "solution",
        "ground_truth",
        "target",
        "reference",
        "id",
        "source",
    )
