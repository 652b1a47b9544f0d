"""What an audit counts: two graders, texts, groups, mismatch, in one pass."""

import json
import math
import tracemalloc

import pytest

from eval.audit import Audit
from eval.judged import Judged, Sample
from rewards.problem import Problem, Response, Score, Verdict

PROBLEM = Problem(id="a", prompt="3 + 5?", answer="8", source="a")
RIGHT = Score(value=1.0, verdict=Verdict.CORRECT, parts={"accuracy": 1.0})
WRONG = Score(value=0.0, verdict=Verdict.WRONG, parts={"accuracy": 0.0})


def judged(
    text="\\boxed{8}", theirs=1.0, score=RIGHT, *, tokens=0, problem=PROBLEM, **given
) -> Judged:
    sample = {"table": "1.jsonl", "row": 1, "step": 1, "prompt": "3 + 5?"}
    sample |= {"grade": theirs, "rewards": {"score": theirs}} | given
    return Judged(
        sample=Sample(response=Response(text=text, num_tokens=tokens), **sample),
        problem=problem,
        score=score,
    )


def audited(*items: Judged, **settings) -> dict:
    audit = Audit(**({"right_above": 0.0, "num_examples": 2} | settings))
    for item in items:
        audit.add(item)
    return audit.to_json()


def test_two_graders_side_by_side():
    found = audited(
        judged(),
        judged("\\boxed{9}", 0.0, WRONG),
        judged("\\boxed{8} or \\boxed{9}", 1.0, WRONG),
        judged("#### 8", 0.0, RIGHT),
        judged("#### 8", None, RIGHT),
        judged("\\boxed{8}", 1.0, None, problem=None),
        judged("\\boxed{8}", 1.0, None),
        judged("\\boxed{8}", 1.0, Score(value=0.0, verdict=Verdict.GRADER_ERROR)),
    )
    assert found["completions"] == 8
    assert found["right"]["theirs"] == {"count": 5, "of": 7, "frac": 5 / 7}
    assert found["right"]["ours"] == {"count": 3, "of": 5, "frac": 3 / 5}
    assert found["agreement"] == {
        "both_right": 1,
        "both_wrong": 1,
        "accepted": 1,
        "refused": 1,
        "both_graded": 4,
        "agreed_frac": 0.5,
    }
    assert found["ungraded"] == {
        "not_graded_by_them": 1,
        "no_answer_to_grade_against": 1,
        "reference_not_read": 1,
        "our_grader_failed": 1,
    }
    # Of 6 scores 3 are correct, 2 wrong, 1 failed.
    assert found["verdicts"]["correct"] == {"count": 3, "frac": 0.5}
    accepted, refused = (found["wrong_grades"][side] for side in ("accepted", "refused"))
    assert [(kind, seen["count"]) for kind, seen in accepted.items()] == [("several answers", 1)]
    assert accepted["several answers"]["examples"] == [
        {
            "place": "1.jsonl, row 1",
            "step": 1,
            "prompt_end": "3 + 5?",
            "response_end": "\\boxed{8} or \\boxed{9}",
            "reference": "8",
            "theirs": 1.0,
            "ours": "wrong",
        }
    ]
    assert list(refused) == ["place: hashes"]


def test_the_threshold_and_other_rewards_than_mathematics():
    dapo = [judged(theirs=-1.0), judged("\\boxed{9}", 1.0, WRONG)]
    found = audited(*dapo, is_math=False)
    assert list(found["wrong_grades"]["accepted"]) == ["wrong"]
    assert list(found["wrong_grades"]["refused"]) == ["correct"]
    partial = audited(judged(theirs=0.5), right_above=0.9)
    assert partial["agreement"]["refused"] == 1


def test_texts_and_lengths():
    loop = "no " * 20
    found = audited(
        judged(loop, 1.0, WRONG, is_truncated=True, tokens=20),
        judged("<think>so 3 +", 0.0, WRONG, is_truncated=False),
        judged("", 0.0, WRONG),
        judged("\\boxed{8}", tokens=4),
    )
    texts = found["texts"]
    assert texts["truncated"] == {"count": 1, "of": 2, "frac": 0.5}
    assert texts["truncated_right_by_theirs"] == {"count": 1, "of": 1, "frac": 1.0}
    assert texts["truncated_right_by_ours"] == {"count": 0, "of": 1, "frac": 0.0}
    for name in ("looks_cut", "loop", "repetitive", "empty"):
        assert texts[name] == {"count": 1, "of": 4, "frac": 0.25}, name
    # 20 times the same word: 17 4-grams, 1 of them new. The others have none.
    assert texts["repeated_share"]["max"] == pytest.approx(16 / 17)
    lengths = found["lengths"]
    assert lengths["characters"]["mean"] == (60 + 13 + 0 + 9) / 4
    assert lengths["characters_of_right"]["mean"] == 9
    assert lengths["tokens"]["count"] == 2
    assert lengths["tokens_of_wrong"]["max"] == 20


def test_groups_signal_and_duplicates():
    def four(prompt, rewards, scores, table="1.jsonl", texts="abcd"):
        rows = zip(texts, rewards, scores, strict=True)
        return [
            judged(t, float(r), RIGHT if s else WRONG, prompt=prompt, table=table)
            for t, r, s in rows
        ]

    found = audited(
        *four("a", (0, 0, 0, 0), (0, 0, 1, 0)),  # no signal by theirs, signal by ours
        *four("b", (0, 1, 0, 0), (0, 0, 0, 0), texts="aaab"),  # two repeat the first
        *four("a", (1, 1, 1, 1), (1, 1, 1, 1), table="2.jsonl"),  # another group: another table
        judged("e", prompt="c", table="2.jsonl"),
    )["groups"]
    assert (found["count"], found["of_one"]) == (4, 1)
    assert found["sizes"]["max"] == 4
    assert found["no_signal_by_their_rewards"] == {"count": 2, "of": 3, "frac": 2 / 3}
    assert found["no_signal_by_our_verdicts"] == {"count": 2, "of": 3, "frac": 2 / 3}
    assert found["duplicate_completions"] == {"count": 2, "of": 13, "frac": 2 / 13}


def test_a_group_may_stand_in_any_order_and_signal_may_be_in_any_reward():
    rows = [
        judged(str(i), 0.0, WRONG, prompt=prompt, rewards={"accuracy": 0.0, "format": reward})
        for i, (prompt, reward) in enumerate([("a", 1.0), ("b", None), ("a", 0.0), ("b", None)])
    ]
    found = audited(*rows)["groups"]
    assert found["count"] == 2
    assert found["no_signal_by_their_rewards"] == {"count": 1, "of": 2, "frac": 0.5}


def test_mismatch_where_both_logprobs_are_there():
    found = audited(judged(sampler_logprobs=(-1.0, -2.0), trainer_logprobs=(-1.5, -2.0)), judged())[
        "mismatch"
    ]
    assert found["num_tokens"] == 2
    assert (found["abs"], found["max"]) == (0.25, 0.5)
    assert found["k3"] == pytest.approx((math.exp(-0.5) + 0.5 - 1) / 2)


def test_steps_in_their_order():
    found = audited(judged(step=10, theirs=0.0), judged(step=2), judged(step=10))["steps"]
    assert [(row["step"], row["completions"], row["theirs_frac"]) for row in found] == [
        (2, 1, 1.0),
        (10, 2, 0.5),
    ]
    assert found[0]["truncated_frac"] is None
    assert found[0]["mean_characters"] == 9


def test_all_of_it_is_json_and_hostile_text_is_escaped_there():
    text = "\x1b[2J \u202e \ud800 \\boxed{8} or \\boxed{9}"
    found = json.dumps(audited(judged(text, 1.0, WRONG)))
    assert found.isascii()
    assert "\\u001b[2J \\u202e \\ud800" in found


def test_memory_does_not_grow_with_the_tables():
    audit = Audit(right_above=0.0, num_examples=2)

    def table(number):
        for row in range(1000):
            audit.add(judged(f"{row} " * 50, 1.0, WRONG, row=row, table=f"{number}.jsonl"))

    table(0)
    tracemalloc.start()
    for number in range(1, 4):
        table(number)
    grown, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # One table of 1,000 rows is open, about 200 bytes a row; the 3,000 texts come to 600 kB.
    assert grown < 300_000
    assert peak < 600_000
