from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.problem import Problem
from rollouts.ledger import Fate, Ledger


def problems(name, count):
    return [
        Problem(id=f"{name}/{i}", prompt=f"{name} {i}?", answer=str(i), source=name)
        for i in range(count)
    ]


TASKS = {"sum": problems("sum", 7), "product": problems("product", 4)}


def ids(drawn):
    return [problem.id for problem in drawn]


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 5), st.integers(1, 4))
def test_each_epoch_is_a_permutation(size, seed, epochs):
    ledger = Ledger(problems={"sum": problems("sum", size)}, seed=seed)
    for _ in range(epochs):
        assert sorted(ids(ledger.draw(size))) == sorted(f"sum/{i}" for i in range(size))
    assert ledger.drawn == {"sum": size * epochs}


def test_epochs_and_seeds_differ_and_repeat_on_every_machine():
    # Python promises that seeding by text gives the same numbers everywhere.
    ledger = Ledger(problems={"sum": problems("sum", 5)})
    assert ids(ledger.draw(10)) == [
        "sum/1", "sum/4", "sum/0", "sum/3", "sum/2",
        "sum/1", "sum/3", "sum/4", "sum/2", "sum/0",
    ]  # fmt: skip
    other = Ledger(problems={"sum": problems("sum", 30)}, seed=1).draw(30)
    assert ids(other) != ids(Ledger(problems={"sum": problems("sum", 30)}).draw(30))


def test_epochs_are_whole_in_each_source_of_a_mixture():
    drawn = Ledger(problems=TASKS).draw(80)
    for name, rows in TASKS.items():
        given = [problem.id for problem in drawn if problem.source == name]
        for start in range(0, len(given) - len(rows) + 1, len(rows)):
            assert len(set(given[start : start + len(rows)])) == len(rows)


@pytest.mark.parametrize(
    ("weights", "share"),
    [
        ({}, 0.5),
        ({"sum": 3.0, "product": 1.0}, 0.75),
        ({"sum": 3.0}, 0.75),
        ({"product": 0.0}, 1.0),
    ],
)
def test_sources_are_mixed_by_weight(weights, share):
    drawn = Ledger(problems=TASKS, weights=weights).draw(2000)
    counts = Counter(problem.source for problem in drawn)
    # Four standard deviations of a mean of 2,000 draws: 4 * sqrt(p (1 - p) / 2000) < 0.045.
    assert counts["sum"] / 2000 == pytest.approx(share, abs=0.045)


@pytest.mark.parametrize("stop", [0, 1, 5, 17, 60])
def test_a_ledger_resumed_from_its_counts_draws_what_it_would_have_drawn(stop):
    expected = ids(Ledger(problems=TASKS, weights={"sum": 2.0}, seed=3).draw(60))
    stopped = Ledger(problems=TASKS, weights={"sum": 2.0}, seed=3)
    stopped.draw(stop)
    resumed = Ledger(
        problems=TASKS, weights={"sum": 2.0}, seed=3, drawn=dict(sorted(stopped.drawn.items()))
    )
    assert ids(resumed.draw(60 - stop)) == expected[stop:]


def test_how_many_are_drawn_at_once_does_not_matter():
    whole, parts = Ledger(problems=TASKS), Ledger(problems=TASKS)
    assert ids(whole.draw(30)) == [name for n in (1, 2, 3, 7, 17) for name in ids(parts.draw(n))]
    assert whole.drawn == parts.drawn


def test_the_order_in_which_tasks_are_named_does_not_matter():
    turned = dict(reversed(TASKS.items()))
    assert ids(Ledger(problems=turned).draw(30)) == ids(Ledger(problems=TASKS).draw(30))


def test_counts_are_the_whole_state():
    ledger = Ledger(problems=TASKS)
    ledger.draw(9)
    before = dict(ledger.drawn)
    first = ids(ledger.draw(5))
    ledger.drawn = before
    assert ids(ledger.draw(5)) == first


def test_a_task_is_drawn_from_its_start_on():
    ledger = Ledger(problems=TASKS, weights={"product": 3.0}, starts={"product": 40})
    early = [p.source for updates in (0, 16, 39) for p in ledger.draw(100, updates=updates)]
    assert set(early) == {"sum"} and ledger.drawn == {"sum": 300}
    late = Counter(p.source for p in ledger.draw(2000, updates=40))
    assert late["product"] / 2000 == pytest.approx(0.75, abs=0.045)


def test_starts_change_nothing_once_all_tasks_have_started():
    late = Ledger(problems=TASKS, weights={"sum": 2.0}, seed=3, starts={"product": 5})
    assert ids(late.draw(60, updates=5)) == ids(
        Ledger(problems=TASKS, weights={"sum": 2.0}, seed=3).draw(60)
    )


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 7])
def test_a_ledger_resumed_before_or_after_a_start_draws_what_it_would_have_drawn(stop):
    def ledger(**state):
        return Ledger(problems=TASKS, seed=3, starts={"product": 4}, **state)

    def rounds(ledger, indices):
        return [ids(ledger.draw(6, updates=index)) for index in indices]

    expected = rounds(ledger(), range(9))
    stopped = ledger()
    rounds(stopped, range(stop))
    resumed = ledger(drawn=dict(stopped.drawn))
    assert rounds(resumed, range(stop, 9)) == expected[stop:]


def test_a_ledger_that_starts_with_nothing_is_refused():
    with pytest.raises(ValueError, match="no task starts at update 0"):
        Ledger(problems=TASKS, starts={"sum": 3, "product": 1})


@pytest.mark.parametrize(
    ("tasks", "named"), [({}, "no task"), ({"sum": problems("sum", 3), "empty": []}, "empty")]
)
def test_nothing_to_train_on_is_refused(tasks, named):
    with pytest.raises(ValueError, match=f"no problems to train on .{named}."):
        Ledger(problems=tasks)


def test_it_knows_what_became_of_each_problem():
    ledger = Ledger(problems={"sum": problems("sum", 7)})
    first = ids(ledger.draw(3))
    assert set(ledger.fates.values()) == {Fate.PENDING}
    ledger.note(first[:2], Fate.SAMPLED)
    ledger.note(first[:1], Fate.TRAINED)
    assert [ledger.fates[each] for each in first] == ["trained", "sampled", "pending"]
    assert ledger.counts() == {
        "ledger/pending": 1.0, "ledger/sampled": 1.0, "ledger/trained": 1.0, "ledger/spent": 0.0,
    }  # fmt: skip
    assert set(ids(ledger.draw(4))) == {
        each for each, fate in ledger.fates.items() if fate == "pending"
    } - {first[2]}
