"""Several processes under torchrun (gloo) against one: the same updates, to rounding."""

import pytest
import torch

from rl.dealing import computed, dealt, parts_of
from rl.packing import PackingConfig, pack
from rl.ranks import Ranks
from tests import packed_models
from tests.ranks_program import CASES, ROOT, groups_of, torchrun, trained

TOLERANCE = {"float32": 5e-6, "bfloat16": 1e-4, "float16": 1e-4}
"""Of a tensor's size, after four updates; in 16 bits a master's cast may fall the other way."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks")
    for make in (
        packed_models.llama,
        packed_models.qwen3,
        packed_models.gemma2,
        packed_models.deepseek_v3,
    ):
        make().save_pretrained(path / make.__name__)
    return path


@pytest.fixture(scope="session")
def together(folder):
    """What each of two processes found."""
    done = torchrun(ROOT / "tests" / "ranks_program.py", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"result-{index}-of-2.pt") for index in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_update_as_one(name, folder, together):
    expected = trained(folder, CASES[name], Ranks())
    tolerance = TOLERANCE[CASES[name].policy.dtype]
    first, second = (found[name] for found in together)
    assert first["state"].keys() == expected["state"].keys()
    for key, tensor in expected["state"].items():
        assert torch.equal(first["state"][key], second["state"][key]), key
        gap = (first["state"][key].double() - tensor.double()).norm()
        assert gap <= tolerance * tensor.double().norm() + 1e-12, key
    for kind in ("published", "exact"):
        assert first[kind].keys() == second[kind].keys() == expected[kind].keys()
        for key, tensor in expected[kind].items():
            assert torch.equal(first[kind][key], second[kind][key]), key
            assert first[kind][key].dtype == tensor.dtype, key
            gap = (first[kind][key].double() - tensor.double()).norm()
            assert gap <= tolerance * tensor.double().norm() + 1e-12, key
    for key in expected["published"]:
        if "e_score_correction_bias" in key:
            assert first["published"][key].dtype == torch.float32
            assert torch.equal(first["published"][key], expected["published"][key])
    assert_near(first["metrics"], expected["metrics"], tolerance)
    assert first["metrics"] == second["metrics"]


def assert_near(found, expected, tolerance):
    assert len(found) == len(expected)
    for left, right in zip(found, expected, strict=True):
        assert left.keys() == right.keys()
        for key, value in right.items():
            assert left[key] == pytest.approx(value, rel=1e3 * tolerance, abs=1e3 * tolerance), key


def parts_and_whole(count, max_tokens, num_groups=5):
    batch = pack(groups_of(num_groups, 1), PackingConfig(), keep_no_signal=False)
    return batch, parts_of(batch, max_tokens, count)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("max_tokens", [30, 40, 90, 1000])
def test_parts_are_the_batch_in_order_and_a_multiple_of_the_processes(count, max_tokens):
    batch, parts = parts_and_whole(count, max_tokens)
    assert torch.cat([part.token_ids for part in parts]).tolist() == batch.token_ids.tolist()
    assert len(parts) % count == 0
    assert max(len(part) for part in parts) <= max(len(batch) / len(parts) * 2.5, 30)


def test_of_fewer_sequences_than_processes_some_processes_have_nothing_or_a_part_without_weight():
    batch, parts = parts_and_whole(8, 1000, num_groups=1)
    assert len(parts) == len(batch.lengths) == 2
    found = [dealt(parts, Ranks(index, 8), equal=False) for index in range(8)]
    assert [len(mine) for mine in found] == [1, 1, 0, 0, 0, 0, 0, 0]
    filled = [dealt(parts, Ranks(index, 8), equal=True) for index in range(8)]
    assert [len(mine) for mine in filled] == [1] * 8
    weights = [float(mine[0].token_weights.sum()) for mine in filled]
    assert min(weights[:2]) > 0 and weights[2:] == [0.0] * 6


def test_what_is_computed_by_part_is_in_the_order_of_the_batch():
    batch, parts = parts_and_whole(1, 30)
    assert len(parts) > 2
    found = computed(parts, Ranks(), lambda part: part.token_ids.double(), equal=False)
    assert found.tolist() == batch.token_ids.tolist()


@pytest.mark.parametrize(("size", "count"), [(4, 2), (5, 2), (2, 3), (0, 2), (7, 1)])
def test_shares_are_runs_that_join_to_the_whole(size, count):
    rows = list(range(size))
    shares = [Ranks(index, count).share(rows) for index in range(count)]
    assert [row for _, mine in shares for row in mine] == rows
    assert all(mine == rows[start : start + len(mine)] for start, mine in shares)
    sizes = [len(mine) for _, mine in shares]
    assert max(sizes) - min(sizes) <= 1


def test_one_process_needs_no_other():
    assert Ranks().gather([1, 2]) == [1, 2]
    assert Ranks().from_first(lambda: "a") == "a"
    assert Ranks().any(True) and not Ranks().any(False)
    held = torch.ones(3)
    Ranks().add([held])
    assert held.tolist() == [1, 1, 1]
