import errno
import os

import pytest

from rl.run_folder import AtomicFolder, RunFolder, write_atomically


def new_run(path):
    return RunFolder.create(path, "model: tiny\n", {"python": "3.11"})


def test_a_new_run_holds_config_versions_and_its_folders(tmp_path):
    run = new_run(tmp_path / "run")
    assert sorted(p.name for p in run.path.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "eval",
        "lock",
        "rollouts",
        "versions.json",
    ]
    assert run.round_path(7).name == "round-000007.jsonl.zst"


def test_an_existing_folder_is_refused_and_left_as_it_is(tmp_path):
    run = new_run(tmp_path / "run")
    run.write_eval("base", {"pass_at_1": 0.5})
    with pytest.raises(ValueError, match="exists: continue it with --resume"):
        new_run(tmp_path / "run")
    assert run.read_eval("base") == {"pass_at_1": 0.5}


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a run folder"):
        RunFolder(tmp_path)


def test_a_second_process_is_refused_until_the_first_lets_go(tmp_path):
    first = new_run(tmp_path / "run")
    with pytest.raises(ValueError, match="in use by another process"):
        RunFolder(first.path)
    first.close()
    RunFolder(first.path).close()


def test_leftovers_of_a_kill_are_swept_up(tmp_path):
    run = new_run(tmp_path / "run")
    run.close()
    (run.path / "checkpoints" / ".tmp-round-000003").mkdir()
    (run.path / "rollouts" / ".tmp-round-000003.jsonl.zst").write_bytes(b"half")
    RunFolder(run.path)
    assert list(run.path.rglob(".tmp-*")) == []


def test_metrics_of_rounds_to_come_are_forgotten_and_a_half_line_is_dropped(tmp_path):
    run = new_run(tmp_path / "run")
    for index in range(3):
        run.log({"round": index, "reward/mean": 0.1})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 3, "rew')
    assert [row["round"] for row in run.metrics()] == [0, 1, 2]
    run.forget_rounds_from(2)
    assert (run.path / "metrics.jsonl").read_text() == (
        '{"round": 0, "reward/mean": 0.1}\n{"round": 1, "reward/mean": 0.1}\n'
    )


def test_what_became_of_problems_is_kept_by_round_and_forgotten_with_it(tmp_path):
    run = new_run(tmp_path / "run")
    assert run.fates() == []
    for index in range(3):
        run.log_fates(index, {"trained": [f"a/{index}"], "spent": [], "sampled": ["b"]})
    run.forget_rounds_from(1)
    assert run.fates() == [{"round": 0, "trained": ["a/0"], "spent": [], "sampled": ["b"]}]


def test_a_full_disk_leaves_the_old_file_and_no_half_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_an_atomic_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "final"
    with pytest.raises(RuntimeError), AtomicFolder(target) as folder:
        (folder / "half").write_text("x")
        raise RuntimeError("killed")
    assert list(tmp_path.iterdir()) == []
    with AtomicFolder(target) as folder:
        (folder / "whole").write_text("x")
        assert not target.exists()
    assert [p.name for p in target.iterdir()] == ["whole"]


def test_retention_keeps_the_last_and_the_best(tmp_path):
    run = new_run(tmp_path / "run")
    for index in (2, 4, 6, 8):
        (run.path / "checkpoints" / f"round-{index:06d}").mkdir()
    run.keep_checkpoints(2, best="round-000002")
    assert [p.name for p in run.checkpoints()] == ["round-000002", "round-000006", "round-000008"]
