"""What the page is made of: reading, packing, sampling, escaping. Blobs are read back by a decoder of our own."""

import base64
import gzip
import json
import re
import struct
from hashlib import sha256
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.view_rounds import Synthetic, write_run
from recipes.page.blobs import encode_pieces, encode_round
from recipes.page.curves import PANELS, derived
from recipes.page.document import data_json, document, policy, script, style
from recipes.page.pieces import Pieces, find_pieces, read_pieces
from recipes.page.report import shown_runs, state_of, static_page
from recipes.page.run_reader import open_run
from recipes.page.sampling import sampled_places
from recipes.page.summaries import GroupSummary, ks_of, summarise
from rewards.problem import Problem, Response, Score, Verdict
from rl.run_folder import RunFolder
from rl.trained import Trained
from rollouts.rollout import Group, Rollout

SMALL = Synthetic(num_rounds=6, num_groups=4, group_size=4, mean_tokens=12, vocabulary=300)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    write_run(folder, SMALL)
    return folder


def rollout(
    ids, logprobs, *, prompt=(1, 2), verdict=Verdict.CORRECT, text="", value=None, hole=None
):
    """A completion; the token at `hole` after the prompt was not sampled (tool output)."""
    drawn = tuple(i != hole for i in range(len(ids)))
    return Rollout(
        token_ids=(*prompt, *ids),
        sampled=(False,) * len(prompt) + drawn,
        logprobs=(0.0,) * len(prompt) + tuple(logprobs),
        response=Response(text=text, num_tokens=len(ids), max_tokens=9),
        score=Score(value=float(verdict is Verdict.CORRECT) if value is None else value, verdict=verdict),
        versions=((0, len(prompt), len(prompt) + len(ids)),),
    )  # fmt: skip


def group(*rollouts, name="p", source="s"):
    problem = Problem(id=name, prompt="?", answer="8", source=source)
    return Group(problem=problem, rollouts=tuple(rollouts))


def unpacked(blob):
    """(header, planes) as the docstring of recipes/page/blobs.py says."""
    data = gzip.decompress(blob)
    (size,) = struct.unpack_from("<I", data)
    header, rest = json.loads(data[4 : 4 + size]), data[4 + size :]
    num_after = sum(r["tokens"] for g in header["groups"] for r in g["rollouts"])
    num_ids = num_after + sum(g["prompt_tokens"] for g in header["groups"])
    sizes: list[int] = []
    if "id_planes" in header:
        sizes = [num_ids] * header["id_planes"] + [num_after] * (1 + header["has_trainer"])
    planes = []
    for length in sizes:
        planes.append(np.frombuffer(rest[:length], dtype=np.uint8))
        rest = rest[length:]
    assert rest == b""
    return header, planes


def test_a_blob_holds_ids_logprobs_and_ratios():
    pieces = Pieces(of={1: b"a", 2: b"b", 700: b"c", 70_000: b"d"}, special=frozenset({2}))
    groups = [group(rollout((700, 70_000, 2), (-0.5, -1.0, -30.0), hole=1))]
    # The second token is not sampled: the trainer's two logprobs are of the first and the third.
    trained = {(0, 0): Trained(group=0, sample=0, update=0, advantage=-0.7071067,
                               logprobs=np.array([-0.25, -29.0], dtype=np.float32))}  # fmt: skip
    header, (low, high, top, logprobs, ratios) = unpacked(encode_round(groups, trained, pieces))
    ids = low.astype(int) + (high.astype(int) << 8) + (top.astype(int) << 16)
    assert ids.tolist() == [1, 2, 700, 70_000, 2]
    # 254 sqrt(0.5 / 20) = 40.2; not sampled; 254 at -20 and below.
    assert logprobs.tolist() == [40, 255, 254]
    # 127 + 127 sqrt(0.25 / 2) = 171.9; not sampled; 127 + 127 sqrt(1 / 2) = 216.8.
    assert ratios.tolist() == [172, 255, 217]
    (told,) = header["groups"][0]["rollouts"]
    assert (told["advantage"], told["verdict"], told["sampled"], told["tokens"]) == (
        -0.70711, "correct", 2, 3,
    )  # fmt: skip
    assert told["logprob"] == pytest.approx(-15.25)


def test_a_group_that_was_not_trained_on_has_no_ratios_and_no_advantage():
    pieces = Pieces(of={1: b"a", 2: b"b", 3: b"c"}, special=frozenset())
    header, planes = unpacked(encode_round([group(rollout((3,), (-1.0,)))], {}, pieces))
    assert planes[-1].tolist() == [255]
    assert "advantage" not in header["groups"][0]["rollouts"][0]


def test_some_groups_of_a_round_keep_their_places():
    groups = [group(rollout((3,), (-1.0,)), name=f"p{n}") for n in range(5)]
    header, _ = unpacked(encode_round(groups, None, Pieces(of={}, special=frozenset()), [1, 4]))
    assert [(g["place"], g["id"]) for g in header["groups"]] == [(1, "p1"), (4, "p4")]


def test_without_pieces_a_blob_holds_texts_even_broken_ones():
    header, planes = unpacked(
        encode_round([group(rollout((3,), (-1.0,), text="\ud800<"))], None, None)
    )
    assert header["groups"][0]["rollouts"][0]["text"] == "\ud800<"
    assert planes == []


def test_values_that_json_lacks_become_none():
    bad = group(rollout((3,), (float("nan"),), value=float("inf")))
    header, planes = unpacked(encode_round([bad], None, Pieces(of={}, special=frozenset())))
    assert header["groups"][0]["rollouts"][0]["value"] is None
    assert header["groups"][0]["rollouts"][0]["logprob"] is None
    assert planes[-1].tolist() == [254]
    assert summarise([bad]).groups[0].reward is None


def test_pieces_are_texts_or_bytes_of_what_is_used():
    known = {1: b"\xe2\x82", 2: "€".encode(), 3: b"x", 4: b"unused"}
    told = json.loads(
        gzip.decompress(encode_pieces(Pieces(of=known, special=frozenset({3})), [3, 1, 2, 9]))
    )
    assert told == {"ids": [1, 2, 3], "pieces": [[0xE2, 0x82], "€", "x"], "special": [3]}


def test_byte_level_pieces_are_the_bytes_that_were_spelled(tmp_path):
    # GPT-2 spells a space U+0120, a newline U+010A, and the byte 0xE2 as itself.
    vocabulary = {"\u0120hi": 0, "\u010a": 1, "\u00e2": 2, "<|im_end|>": 3}
    added = [{"id": 3, "content": "<|im_end|>", "special": True}]
    values = {
        "model": {"vocab": vocabulary},
        "decoder": {"type": "ByteLevel"},
        "added_tokens": added,
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    pieces = read_pieces(tmp_path / "tokenizer.json")
    assert pieces.of == {0: b" hi", 1: b"\n", 2: b"\xe2", 3: b"<|im_end|>"}
    assert pieces.text([0, 1, 3]) == " hi\n"


def test_sentencepiece_pieces_have_spaces_and_single_bytes(tmp_path):
    values = {
        "model": {"vocab": [["\u2581hi", 0.0], ["<0x0A>", 0.0]]},
        "decoder": {"type": "Metaspace"},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    assert read_pieces(tmp_path / "tokenizer.json").of == {0: b" hi", 1: b"\n"}


def test_pieces_of_another_tokenizer_are_not_believed(run):
    reader = open_run(run)
    pieces = find_pieces(reader)
    groups = reader.groups(0)
    assert pieces.give(groups)
    moved = Pieces(of={i: pieces.of[(i + 1) % 300] for i in range(300)}, special=pieces.special)
    assert not moved.give(groups)


def test_metrics_leave_out_lines_that_are_half_written_or_broken(tmp_path):
    folder = RunFolder.create(tmp_path / "run", "model: m\n", {}).path
    lines = ['{"round": 0, "x": 1.5}', "{broken", '{"round": 1, "x": NaN, "s": "text"}', "[3]"]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"round": 2, "x": 2')
    metrics = open_run(folder).metrics()
    assert metrics.columns == {"round": [0, 1], "x": [1.5, None]}
    assert metrics.num_unreadable == 2  # the line being written is none
    assert metrics.ends_half


def test_what_json_cannot_hold_is_shown_as_text(tmp_path):
    config = "a: .inf\nb: 2026-11-22\n3: [.nan, 1.5, null]\n"
    run = RunFolder.create(tmp_path / "run", config, {})
    (run.path / "eval").mkdir(exist_ok=True)
    (run.path / "eval" / "base.json").write_text('{"pass_at_1": NaN}')
    run.log({"round": 0, "x": 10**400})
    run.close()
    reader = open_run(run.path)
    assert reader.config == {"a": "inf", "b": "2026-11-22", "3": ["nan", 1.5, None]}
    assert reader.metrics().columns["x"] == [None]
    (shown,) = shown_runs([reader])
    assert json.loads(json.dumps(state_of([shown], serve=True), allow_nan=False))


def test_rounds_are_read_a_part_at_a_time(run):
    (shown,) = shown_runs([open_run(run)])
    assert not shown.refresh(most_s=0.0) and len(shown.rounds) < 6
    assert shown.refresh() and len(shown.rounds) == 6


def test_a_broken_round_is_left_out_and_said(run, tmp_path):
    folder = tmp_path / "broken"
    write_run(folder, SMALL)
    (folder / "rollouts" / "round-000002.jsonl.zst").write_bytes(b"half")
    (folder / "rollouts" / "trainer-000003.jsonl.zst").write_bytes(b"half")
    (folder / "rollouts" / ".tmp-round-000006.jsonl.zst").write_bytes(b"half")
    (shown,) = shown_runs([open_run(folder)])
    shown.refresh()
    assert sorted(shown.rounds) == [0, 1, 3, 4, 5]
    assert list(shown.broken) == [2] and "Error" in shown.broken[2]
    assert unpacked(shown.blob(3))[0]["has_trainer"] is False


def test_evaluations_stand_in_the_order_of_the_run(tmp_path):
    run = RunFolder.create(tmp_path / "run", "model: m\n", {})
    for label in ("trained", "round-000010", "base", "round-000002", "base-best-prompt"):
        run.write_eval(label, {"pass_at_1": 0.5})
    found = list(open_run(run.path).evaluations())
    assert found == ["base", "base-best-prompt", "round-000002", "round-000010", "trained"]


def test_a_summary_counts_verdicts_and_pass_at_k():
    right, wrong, ours = Verdict.CORRECT, Verdict.WRONG, Verdict.GRADER_ERROR
    first = group(*(rollout((3,), (-1.0,), verdict=v) for v in (right, wrong, wrong, wrong)))
    second = group(*(rollout((3,), (-1.0,), verdict=v) for v in (right, right, ours, wrong)))
    summary = summarise([first, second])
    assert [g.verdicts for g in summary.groups] == ["abbb", "aahb"]
    # pass@1: (1/4 + 2/3) / 2; the second group has three graded samples, so pass@4 is of the first.
    assert summary.pass_at[1][0] == pytest.approx((0.25 + 2 / 3) / 2)
    assert summary.pass_at[4][0] == 1.0
    low, high = summary.pass_at[1][1:]
    assert 0 <= low < summary.pass_at[1][0] < high <= 1
    assert ks_of(16) == [1, 4, 16] and ks_of(1) == [1]


def summaries(kinds):
    verdicts = {"none": "bbbb", "some": "abbb", "all": "aaaa"}
    return [
        GroupSummary(id=f"p{n}", source="s", verdicts=verdicts[k], reward=0.0, tokens=1.0)
        for n, k in enumerate(kinds)
    ]


def test_a_sample_keeps_the_share_of_each_kind():
    groups = summaries(["none"] * 60 + ["some"] * 30 + ["all"] * 10)
    places = sampled_places(groups, 0.5, run="r", index=3)
    kept = [groups[p].verdicts for p in places]
    assert [kept.count(v) for v in ("bbbb", "abbb", "aaaa")] == [30, 15, 5]
    assert places == sorted(places) == sampled_places(groups, 0.5, run="r", index=3)
    assert places != sampled_places(groups, 0.5, run="r", index=4)
    assert sampled_places(groups, 1.0, run="r", index=3) == list(range(100))


def test_a_share_of_a_group_is_kept_by_chance():
    groups = summaries(["some"])
    kept = sum(len(sampled_places(groups, 0.3, run="r", index=i)) for i in range(2000))
    assert 520 < kept < 680  # 600, with a standard deviation of 20


def test_a_page_that_would_be_too_large_holds_a_sample_and_says_so(tmp_path):
    folder = tmp_path / "large"
    size = Synthetic(num_rounds=12, num_groups=16, group_size=16, mean_tokens=60, vocabulary=2000)
    write_run(folder, size)
    (shown,) = shown_runs([open_run(folder)])
    whole = static_page([shown], 10**9)
    (shown,) = shown_runs([open_run(folder)])
    most = len(whole) // 2
    page = static_page([shown], most)
    state = json.loads(re.search(r'id="state">(.*?)</script>', page)[1])
    told = state["runs"][0]
    held = sum(len(r["verdicts"][p]) for r in told["rounds"] for p in r["held"])
    assert 0.7 * most < len(page) <= most
    assert told["sample"]["held"] == held < told["sample"]["of"] == 12 * 256
    assert "same share" in told["sample"]["how"]
    assert sum(len(v) for r in told["rounds"] for v in r["verdicts"]) == 12 * 256  # the map has all
    # Every blob holds just the groups that the page says it holds.
    for number, one in enumerate(told["rounds"]):
        blob = re.search(rf'id="round-0-{number}">(.*?)</script>', page)
        places = (
            [g["place"] for g in unpacked(base64.b64decode(blob[1]))[0]["groups"]] if blob else []
        )
        assert places == one["held"]


def test_data_can_end_no_element_and_open_none():
    hostile = "</script><script>alert(1)</script><!-- & \u2028 \ud800 ]]>"
    text = data_json({"a": hostile})
    assert text.isascii() and not set("<>&") & set(text)
    assert json.loads(text) == {"a": hostile}
    with pytest.raises(ValueError):
        data_json(float("nan"))


def test_the_policy_allows_our_script_and_style_by_hash_and_nothing_else():
    page = document({"runs": []}, [("round-0-0", b"\x00\xff")], serve=False)
    told = policy(serve=False)
    for part, text in (("script", script()), ("style", style())):
        digest = base64.b64encode(sha256(text.encode()).digest()).decode()
        assert f"{part}-src 'sha256-{digest}';" in told
        assert f"<{part}>{text}</{part}>" in page
    assert "default-src 'none'" in told and "unsafe" not in told and "connect-src 'none'" in told
    assert f'content="{told}"' in page
    assert "</script" not in script() and "</style" not in style()
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", script()
    )


def test_curves_have_a_sentence_and_name_what_is_logged():
    assert all(panel.meaning.endswith(".") and panel.title for panel in PANELS)
    told = {"round": [0, 1], "rollouts/sampled_tokens": [100, 300]}
    told |= {"time/sample_s": [4.0, None], "time/round_s": [1800.0, 1800.0]}
    assert derived(told) == {
        "tokens_per_s": [25.0, None], "axis/hours": [0.5, 1.0], "axis/tokens": [100, 400],
    }  # fmt: skip
    ahead = told | {"time/sample_s": [0.00001, 4.0], "time/engine_s": [5.0, 3.0]}
    assert derived(ahead)["tokens_per_s"] == [20.0, 75.0]


def test_runs_of_one_name_are_told_apart(run, tmp_path):
    other = tmp_path / "small"
    write_run(other, SMALL)
    names = [one.name for one in shown_runs([open_run(run), open_run(other)])]
    assert names == [str(run), str(other)]
    state = state_of(shown_runs([open_run(run)]), serve=False)
    assert state["runs"][0]["name"] == "small"


def test_a_round_is_read_once(run, monkeypatch):
    (shown,) = shown_runs([open_run(run)])
    shown.refresh()
    monkeypatch.setattr(shown, "run", SimpleNamespace(rounds=lambda: [0, 1, 2, 3, 4, 5]))
    shown.refresh()
    assert sorted(shown.rounds) == [0, 1, 2, 3, 4, 5]


def test_what_was_left_out_of_training_is_told_without_its_pairs(tmp_path):
    write_run(tmp_path / "run", SMALL)
    record = {"benchmarks": {"math500": "5f"}, "num_train": 9, "num_dropped": 2, "overlaps": [{}]}
    (tmp_path / "run" / "contamination.json").write_text(json.dumps(record))
    (told,) = state_of(shown_runs([open_run(tmp_path / "run")]), serve=False)["runs"]
    assert told["contamination"] == {
        "benchmarks": {"math500": "5f"},
        "num_train": 9,
        "num_dropped": 2,
    }
