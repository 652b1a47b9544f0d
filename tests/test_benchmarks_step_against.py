"""The driver of the step benchmark: its search, its figures and its table."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import floor, step_cases
from benchmarks.floor import attention_seconds
from benchmarks.step_against import Bench, run_all
from benchmarks.step_cases import fastest, fits, turned
from benchmarks.step_figures import (
    against_best,
    floor_figures,
    floor_frac,
    update_figures,
)
from benchmarks.step_part import OUT, Part
from benchmarks.step_table import TableRow, table
from benchmarks.step_work import StepResult, StepRow, StepWork, read_work, write
from benchmarks.time_to_accuracy import reached_after, speedup, speedup_at_least


def result(*seconds: float, **fields) -> StepResult:
    """A warm-up and timed steps, half of each its update."""
    rows = [StepRow(step_s=99.0, warm_up=True)]
    rows += [StepRow(step_s=s, update_s=s / 2, sample_s=s / 4) for s in seconds]
    return StepResult(subject="x", steps=tuple(rows), **fields)


@pytest.mark.parametrize(
    ("seconds", "expected", "tried"),
    [
        ({8: 3.0, 16: 2.0, 32: 1.0, 64: 1.5}, 32, {8, 16, 32, 64}),
        ({8: 3.0, 16: 2.0, 32: 1.0, 64: 0.5}, 64, {8, 16, 32, 64}),
        ({4: 1.0, 8: 2.0, 16: 3.0}, 4, {4, 8, 16}),
        ({4: 5.0, 8: 2.0, 16: 3.0}, 8, {4, 8, 16}),
    ],
)
def test_the_fastest_micro_batch_is_found(monkeypatch, seconds, expected, tried):
    monkeypatch.setattr(step_cases, "fits", lambda _: True)
    seen = set()

    def run(size: int) -> StepResult:
        seen.add(size)
        return result(seconds[size])

    assert fastest(run, 8, 64) == expected
    assert seen == tried


def test_a_micro_batch_that_would_not_fit_is_not_tried():
    small, large = result(1.0, peak_memory_bytes=10**9), result(1.0, peak_memory_bytes=10**15)
    assert fits(small)
    assert not fits(large)
    assert fastest(lambda size: {4: large}[size], 4, 64) == 4


def test_floors_and_ratios_by_hand():
    floors = [{"bare_s": 4.0, "gemm_s": 1.0}, {"bare_s": 5.0, "gemm_s": 3.0}]
    ours = result(10.0, 12.0, extra={"floors": floors}, peak_memory_bytes=6, kv_pool_bytes=2)
    found = floor_figures(ours, ["bare_s", "gemm_s"])
    assert found["step_over_floor"] == 11.0 / (4.5 + 2.0)
    assert found["step_over_floor_of_each"] == [2.0, 1.5]  # 10 / 5, 12 / 8
    small = result(8.0, peak_memory_bytes=5, kv_pool_bytes=2)
    trl = result(33.0, peak_memory_bytes=14, kv_pool_bytes=2)
    beside = against_best(ours, small, trl, 32)
    assert beside["step_speedup_best_trl"] == 3.0
    assert beside["memory_frac_best_trl"] == 0.25
    assert beside["memory_frac_best_trl_float32_states"] == 4 / 12


def test_updates_by_the_share_of_silent_groups():
    def batches(*seconds: float, floors: tuple = ()) -> StepResult:
        rows = [StepRow(step_s=s, update_s=s, batch=i) for i, s in enumerate(seconds)]
        return StepResult(subject="x", steps=tuple(rows), extra={"floors": list(floors)})

    ours = batches(3.0, 2.0, 1.0, floors=({"batch": 0, "gemm_s": 1.5, "attention_s": 0.6},))
    found = update_figures(ours, batches(6.0, 4.0, 2.0), [batches(15.0), batches(16.0, 17.0)])
    assert found["update_s_by_silent_frac"] == {
        "0": {"ours": 3.0, "minimal": 6.0, "trl_best": 15.0},
        "0.5": {"ours": 2.0, "minimal": 4.0, "trl_best": 16.0},
        "0.8": {"ours": 1.0, "minimal": 2.0, "trl_best": 17.0},
    }
    assert found["update_gemm_frac"] == 0.5
    assert floor_frac(ours, 0, ["gemm_s", "attention_s"]) == 2.1 / 3.0


def test_what_times_one_step_of_the_long_case_times_the_second(tmp_path):
    lengths = (((1, 2),), ((90, 400),))
    work = StepWork(
        model="m", prompts=(((1,),), ((2,),)), texts=(("a",), ("b",)),
        group=2, max_tokens=1024, lengths=lengths, signal_groups=(0, 1),
    )  # fmt: skip
    write(tmp_path / "long-work.json", work)
    timed = read_work(turned(tmp_path / "long-work.json"))
    assert (timed.prompts[0], timed.flat_lengths(0)) == (((2,),), [90, 400])
    assert timed.signal_groups == (1, 0)


def test_the_table_fits_and_names_what_was_not_measured():
    rows = [
        TableRow(name="ours", step_s=8.0, sample_s=4.5, update_s=3.25, memory_bytes=5_680_156_672),
        TableRow(name="TRL, best (32)", step_s=21.0, update_s=15.7),
    ]
    lines = table("short", rows).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2].split() == ["ours", "8.0", "4.5", "3.2", "5.7", "1.00"]
    assert lines[3].split() == ["TRL,", "best", "(32)", "21.0", "-", "15.7", "-", "2.62"]


def test_a_part_runs_once_and_goes_on_from_its_file(tmp_path, monkeypatch):
    calls = []

    def call(self, module, arguments):
        calls.append((module, arguments))
        result(1.0).write(tmp_path / arguments[1].split("/")[-1])

    monkeypatch.setattr(Bench, "_call", call)
    part = Part(name="a", module="m", arguments=("work", OUT, 3), expected_s=1.0)
    for _ in range(2):
        assert Bench(folder=tmp_path).run(part) == result(1.0)
    assert calls == [("m", ["work", str(tmp_path / "running-a.json"), "3"])]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_attention_is_timed_at_each_length_with_its_count(monkeypatch):
    class Config:
        num_attention_heads, head_dim, num_hidden_layers = 3, 8, 5

    shapes = []

    def seen(query, key, value, is_causal):
        assert is_causal
        shapes.append(tuple(query.shape))
        return scaled_dot_product_attention(query, key, value, is_causal=True)

    monkeypatch.setattr(floor, "scaled_dot_product_attention", seen)
    assert attention_seconds(Config, [7, 4, 7], torch.float32) > 0
    assert sorted(set(shapes)) == [(1, 3, 4, 8), (2, 3, 7, 8)]


def test_the_seconds_until_an_accuracy():
    seen = ((1, 0.75), (2, 0.25), (4, 0.5), (8, 0.75))
    rows = [StepRow(step_s=seconds, reward_mean=mean) for seconds, mean in seen]
    assert reached_after(rows, 0.5) == 7.0  # (0.75 + 0.25 + 0.5) / 3
    assert reached_after(rows, 0.51) is None  # nor (0.25 + 0.5 + 0.75) / 3
    assert reached_after(rows, 0.56, window=4) == 15.0  # 2.25 / 4


def test_the_faster_trl_that_gets_there_counts():
    def found(*seconds: float | None) -> dict:
        return dict(
            zip(
                ("ours", "trl-bfloat16", "trl-float32"),
                ({"seconds": s, "all_steps_s": 90.0} for s in seconds),
                strict=True,
            )
        )

    assert speedup(found(10.0, 70.0, 50.0)) == 5.0
    assert speedup(found(10.0, None, 50.0)) == 5.0
    assert speedup(found(10.0, None, None)) is None
    assert speedup(found(None, 70.0, 50.0)) is None
    assert speedup_at_least(found(10.0, None, None)) == 9.0
    assert speedup_at_least(found(10.0, None, 50.0)) == 5.0
    assert speedup_at_least(found(None, 70.0, 50.0)) is None


def written(folder, arguments):
    """What the parts of the driver leave behind, with seconds that are easy to divide."""
    options = dict(pairwise(arguments))
    if arguments[0] == "work":
        lengths = (((1, 2),), ((90, 400),)) if options.get("--case") == "long" else None
        signal = (1, 1) if lengths else None
        work = StepWork(
            model="m", prompts=(((1,),), ((2,),)), texts=(("a",), ("b",)), group=2,
            max_tokens=1024, lengths=lengths, signal_groups=signal,
        )  # fmt: skip
        return write(Path(arguments[1]), work)
    if arguments[0] == "rollouts":
        shapes = arguments[arguments.index("--shapes") + 1 :]
        for name in shapes:
            for frac in ("0", "0.5", "0.8"):
                (folder / f"rollouts-{name}-{frac}.json").write_text("{}")
        return None
    if "--gradients" in options:
        return save_file({"w": torch.tensor([3.0, 4.0])}, options["--gradients"])
    floors = [{"batch": i, "bare_s": 4.0, "gemm_s": 1.5, "attention_s": 0.5} for i in range(3)]
    rows = [StepRow(step_s=8.0, update_s=4.0, sample_s=4.0, batch=i) for i in range(3)]
    if "--rollouts" not in options and "--no-floor" not in arguments:
        rows, floors = rows[:1], floors[:1]
    return StepResult(
        subject="x", steps=tuple(rows), peak_memory_bytes=10**9,
        extra={"floors": floors, "update_over_floor": 1.2},
    ).write(Path(arguments[1]))  # fmt: skip


def test_both_cases_give_their_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Bench, "_call", lambda bench, module, given: written(tmp_path, given))
    found = run_all(Bench(folder=tmp_path), ["short", "long"])
    same = {
        "step_over_floor", "step_speedup_best_trl", "step_speedup_minimal", "memory_frac_best_trl",
    }  # fmt: skip
    assert same <= set(found["short"]) & set(found["long"])
    assert {"update_gemm_frac", "gradient_cosine"} <= set(found["short"])
    assert {"update_floor_frac_512", "update_floor_frac_4096"} <= set(found["long"])
    assert found["long"]["completion_8192_peak_bytes"] == 10**9
    # the floor is 4 + 1.5, and in the long case its attention too
    assert found["short"]["step_over_floor"] == 8 / 5.5
    assert found["long"]["step_over_floor"] == 8 / 6.0
    assert found["short"]["step_speedup_default_trl"] == 1.0
    assert found["short"]["gradient_cosine"] == pytest.approx(1.0)
    assert json.loads((tmp_path / "report.json").read_text()).keys() == {"short", "long"}
    assert "TRL, best" in capsys.readouterr().out
