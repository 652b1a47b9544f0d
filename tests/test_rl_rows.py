"""Which token stands where in a packed row."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.rows import Family, Span, make_row
from tests.packed_models import batch_of


def test_the_example_of_the_docstring():
    batch = batch_of([(2, [2, 1])])
    batch.token_ids[:] = torch.tensor([5, 6, 8, 2, 5, 6, 9])
    row = make_row(batch)
    assert row.token_ids.tolist() == [5, 6, 8, 2, 9] + [0] * 59
    assert row.positions.tolist() == [0, 1, 2, 3, 2] + [0] * 59
    assert row.places.tolist() == [0, 1, 2, 3, 0, 1, 4]
    assert row.layout.families == (Family(Span(0, 2, 0), (Span(2, 4, 2), Span(4, 5, 2))),)
    assert row.layout.family.tolist() == [0] * 5 + [-1] * 59
    assert row.layout.completion.tolist() == [-1, -1, 0, 0, 1] + [-1] * 59
    assert row.layout.longest == 4


def test_the_longest_completion_comes_first_in_its_family():
    row = make_row(batch_of([(3, [1, 4, 2])]))
    spans = row.layout.families[0].completions
    assert [span.stop - span.start for span in spans] == [4, 2, 1]


def test_equal_prompts_of_different_groups_are_one():
    batch = batch_of([(4, [2]), (4, [3])])
    batch.token_ids[6:10] = batch.token_ids[:4]
    (family,) = make_row(batch).layout.families
    assert [span.stop - span.start for span in family.completions] == [3, 2]


def test_without_sharing_every_sequence_is_a_family():
    row = make_row(batch_of([(2, [2, 1])]), share=False)
    assert [len(family.completions) for family in row.layout.families] == [1, 1]
    assert row.positions[:7].tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert row.places.tolist() == list(range(7))


def test_a_full_row_has_filling_all_the_same():
    # Nobody attends to the last place: attention keeps what is nowhere there.
    row = make_row(batch_of([(60, [4])]))
    assert len(row.token_ids) == 128 and row.layout.family[-1] == -1


families = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=4)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(families)
def test_every_token_keeps_its_id_position_and_neighbours(families):
    batch = batch_of(families)
    row = make_row(batch)
    assert torch.equal(row.token_ids[row.places], batch.token_ids)
    assert torch.equal(row.positions[row.places], batch.positions)
    prompts = {tuple(ids[:p].tolist()) for ids, p in sequences(batch)}
    used = sum(map(len, prompts)) + int(batch.sampled.sum())
    assert len(row.places.unique()) == used == int((row.layout.family >= 0).sum())


def sequences(batch):
    return zip(batch.token_ids.split(batch.lengths), batch.prompt_lengths, strict=True)
