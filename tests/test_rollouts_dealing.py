"""Who samples what: dealing out to simulated workers whose speed depends on length, many callers at once."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks.simulated_crew import LONGEST, SimulatedCrew, Times, length
from rewards.problem import Problem
from rewards.scorer import Inline
from rl.checkpoint import RunState
from rl.ranks import ALONE
from rl.rounds import rounds_of
from rl.trainer import TrainConfig
from rollouts.collect import Collector
from rollouts.exchange import EngineError
from rollouts.ledger import Ledger
from rollouts.rollout import Request, Sampling
from rollouts.sampler import EngineConfig
from rollouts.seeds import request_seed
from rollouts.tasks.arithmetic import Arithmetic
from rollouts.workers import Workers
from tests.test_rl_rounds import Engine, Run, clock

TIMES = Times(token_s=0.01, is_real=False)
PROBLEMS = [Problem(id=f"sum/{i}", prompt="?", answer="1", source="sum") for i in range(200)]


def made(num_workers=3, slots=4, room=5, crew_type=SimulatedCrew):
    crew = crew_type(num_workers, slots, TIMES)
    return crew, Workers(crew, None, EngineConfig(), max_tokens=4096, room=room)


def requests(name, count, prompt=(1, 2, 3)):
    return [
        Request(
            id=f"{name}/{i}",
            token_ids=prompt,
            sampling=Sampling(max_tokens=LONGEST),
            seed=request_seed(name, i),
            min_version=-1,
        )
        for i in range(count)
    ]


def test_the_lengths_that_are_trained_on_are_those_that_were_drawn():
    """Rounds ahead, short completions first: each round has all of its own, long ones too."""
    _, workers = made()
    collector = Collector(
        sampler=workers,
        render=lambda problem: (1, 2, 3),
        score=Inline(Arithmetic().score),
        group_size=4,
        seed=5,
    )
    config = TrainConfig(
        num_rounds=8,
        problems_per_round=6,
        updates_per_round=1,
        max_staleness=2,
        max_tokens=((0, LONGEST),),
    )
    run = Run(
        config=config,
        ledger=Ledger(problems={"sum": PROBLEMS}),
        engine=Engine(),
        policy=SimpleNamespace(published=lambda: {}, ranks=ALONE),
        collector=collector,
        folder=SimpleNamespace(read_round=lambda _: None, write_round=lambda *_: None),
        written={},
    )
    order, state = Ledger(problems={"sum": PROBLEMS}).draw(48), RunState()
    with rounds_of(run, state) as rounds:
        for index in range(8):
            groups = rounds.take(index, index, clock()).groups
            state = replace(state, round=index + 1, updates=index + 1)
            rounds.updated(state, clock())
            drawn = order[6 * index : 6 * index + 6]
            assert [group.problem for group in groups] == drawn
            assert [[r.response.num_tokens for r in group.rollouts] for group in groups] == [
                [length(request_seed(5, index, row, problem.id, sample)) for sample in range(4)]
                for row, problem in enumerate(drawn)
            ]


class Watched(SimulatedCrew):
    """Remembers what each worker was given first."""

    def __init__(self, *args):
        super().__init__(*args)
        self.given: list[tuple[int, list[str]]] = []
        self.most = 0
        for worker in self.members:
            worker.ask = self._noting(worker, worker.ask)

    def _noting(self, worker, ask):
        def noted(requests, patience_s):
            self.given.append((worker.number, [request.id for request in requests]))
            ask(requests, patience_s)
            self.most = max(self.most, len(worker.held))

        return noted


def test_requests_are_dealt_evenly_and_never_beyond_the_room():
    crew, workers = made(crew_type=Watched)
    found = list(workers.sample(requests("a", 40)))
    assert sorted(each.request_id for each in found) == sorted(f"a/{i}" for i in range(40))
    assert crew.given[:3] == [
        (0, ["a/0", "a/3", "a/6", "a/9", "a/12"]),
        (1, ["a/1", "a/4", "a/7", "a/10", "a/13"]),
        (2, ["a/2", "a/5", "a/8", "a/11", "a/14"]),
    ]
    assert crew.most == 5


def test_prompts_whose_completions_were_long_go_first():
    crew, workers = made(num_workers=1, room=100, crew_type=Watched)
    short, long = (requests(name, 1, prompt) for name, prompt in (("s", (1,)), ("l", (2,))))
    short = [replace(each, sampling=Sampling(max_tokens=2)) for each in short]
    list(workers.sample(short + long))
    new = requests("n", 1, (3,))
    again = [replace(each, id=f"{each.id}/again") for each in short + long]
    crew.given.clear()
    list(workers.sample([*again, *new]))
    assert crew.given[0][1] == ["n/0", "l/0/again", "s/0/again"]


def test_callers_beside_each_other_get_their_own():
    _, workers = made()
    found = {}

    def sample(name):
        found[name] = {each.request_id for each in workers.sample(requests(name, 30))}

    threads = [threading.Thread(target=sample, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == {name: {f"{name}/{i}" for i in range(30)} for name in "abc"}


def test_what_ends_the_crew_is_told_to_every_caller():
    class Dying(SimulatedCrew):
        def hear(self, patience_s):
            raise EngineError("all workers are dead: of this and that")

    _, workers = made(crew_type=Dying)
    for name in "ab":
        with pytest.raises(EngineError, match="of this and that"):
            list(workers.sample(requests(name, 3)))


def test_who_leaves_and_comes_again_is_served_once():
    class Stopping(Watched):
        """Nothing more is heard of once a completion was handed back, until it is let go on."""

        stopped = False

        def hear(self, patience_s):
            if self.stopped:
                time.sleep(0.005)
                return []
            return super().hear(patience_s)

    crew, workers = made(num_workers=1, slots=1, room=4, crew_type=Stopping)
    answer = crew.members[0].answer

    def answer_once():
        done = answer()
        crew.stopped = crew.stopped or bool(done)
        return done

    crew.members[0].answer = answer_once
    asked = requests("a", 7)
    sampling = workers.sample(asked)
    assert next(sampling).request_id == "a/0"
    sampling.close()
    crew.members[0].answer, crew.stopped = answer, False
    crew.given.clear()
    found = [each.request_id for each in workers.sample(asked[6:])]
    assert sorted(found) == ["a/6"]
    given = [key for _, keys in crew.given for key in keys]
    assert sorted(given) == ["a/6"]
