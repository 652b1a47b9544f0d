import math

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.problem import Problem, Response, Score, Verdict
from rollouts.records import encode_groups, read_groups
from rollouts.rollout import Group, Rollout


def round_trip(folder, groups):
    path = folder / "round.jsonl.zst"
    path.write_bytes(encode_groups(groups))
    return read_groups(path)


def rollout(sampled, logprobs, **others):
    settings = {
        "token_ids": tuple(range(len(sampled))),
        "response": Response(text="8"),
        "score": Score(value=1.0, verdict=Verdict.CORRECT),
        "versions": ((0, 0, len(sampled)),),
    } | others
    drawn = iter(logprobs)
    aligned = tuple(next(drawn) if flag else 0.0 for flag in sampled)
    return Rollout(sampled=tuple(sampled), logprobs=aligned, **settings)


def group(*rollouts, prompt="What is 3 + 5?"):
    problem = Problem(id="sum/3+5", prompt=prompt, answer="8", source="sum")
    return Group(problem=problem, rollouts=rollouts)


def test_groups_come_back_equal_in_every_field(tmp_path):
    full = rollout(
        [False, False, True, True],
        [-0.1, -0.02],
        token_ids=(1, 151_935, 40, 2),
        response=Response(
            text="3 + 5 is 8</think>8",
            prefill="<think>",
            num_tokens=2,
            max_tokens=64,
            finish="length",
        ),
        score=Score(value=1.25, verdict=Verdict.TOO_LARGE, parts={"accuracy": 1.0, "format": 0.25}),
        versions=((3, 2, 3), (4, 3, 4)),
    )
    groups = [group(full, rollout([True], [-1.0])), group(rollout([False], []), full)]
    found = round_trip(tmp_path, groups)
    assert found == groups
    score = found[0].rollouts[0].score
    assert score.verdict is Verdict.TOO_LARGE
    assert isinstance(found[0].rollouts[0].versions[0], tuple)


@pytest.mark.parametrize(
    "value",
    [0.1, 1 / 3, -5e-324, -1.7976931348623157e308, -1e-7, -0.0, -30.000001907348633, -math.inf],
)
def test_floats_survive_to_the_last_bit(tmp_path, value):
    (found,) = round_trip(tmp_path, [group(rollout([True], [value]))])
    assert found.rollouts[0].logprobs[0].hex() == value.hex()


def test_a_nan_stays_one(tmp_path):
    (found,) = round_trip(tmp_path, [group(rollout([True, True], [math.nan, -1.0]))])
    assert math.isnan(found.rollouts[0].logprobs[0])
    assert found.rollouts[0].logprobs[1] == -1.0


@pytest.mark.parametrize(
    "text",
    [
        "", "\u00e9\u6f22\U0001f600", "line\nline\r\nline\rline", "\x00\x1f\x7f", "\u2028\u2029\x85",
        '"quoted" \\boxed{8}', "half of a pair: \ud83d", "{}",
    ],
)  # fmt: skip
def test_any_text_survives_on_one_line(tmp_path, text):
    groups = [group(rollout([True], [-1.0], response=Response(text=text)), prompt=text)] * 2
    assert round_trip(tmp_path, groups) == groups


def test_conversations_come_back_as_messages(tmp_path):
    prompt = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "3 + 5?"})
    groups = [group(rollout([True], [-1.0]), prompt=prompt)]
    assert round_trip(tmp_path, groups) == groups


def test_one_line_a_group():
    data = encode_groups([group(rollout([True], [-1.0]))] * 3)
    lines = zstandard.ZstdDecompressor().decompress(data).decode("ascii").split("\n")
    assert len(lines) == 4
    assert lines[3] == ""


def test_no_groups_come_back_as_none(tmp_path):
    assert round_trip(tmp_path, []) == []


def test_the_same_groups_give_the_same_bytes():
    groups = [group(rollout([False, True], [-0.5]))]
    assert encode_groups(groups) == encode_groups(list(groups))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.floats(max_value=0.0, allow_nan=False)), max_size=12),
    st.floats(allow_nan=False),
)
def test_any_mask_and_logprobs_come_back(tmp_path_factory, tokens, value):
    mask = [flag for flag, _ in tokens]
    member = rollout(
        mask,
        [logprob for flag, logprob in tokens if flag],
        score=Score(value=value, verdict=Verdict.WRONG),
    )
    (found,) = round_trip(tmp_path_factory.getbasetemp(), [group(member)])
    assert found.rollouts == (member,)


def test_a_file_that_was_cut_off_is_no_file(tmp_path):
    path = tmp_path / "round.jsonl.zst"
    data = encode_groups([group(rollout([True], [-1.0]), prompt=f"{i}?" * 99) for i in range(99)])
    for size in (len(data) - 1, len(data) // 2):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"was cut off|Expecting|Unterminated"):
            read_groups(path)
