"""Scoring processes under rewards that hang, crash, raise, swell, and texts that make them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.reward_pool import pool_overhead
from rewards.adapters import load_reward
from rewards.compose import r1_zero_reward
from rewards.mathematics import numeric_reward
from rewards.pool import RewardPool, ScoringConfig
from rewards.problem import Problem, Response, Score, Verdict
from rewards.scorer import Inline
from rewards.supervisor import PoolClosedError

ROOT = Path(__file__).resolve().parent.parent
PROBLEM = Problem(id="sum/1", prompt="3 + 5?", answer="8", source="sum")
WRONG = Score(value=0.0, verdict=Verdict.WRONG)
RIGHT = Score(value=1.0, verdict=Verdict.CORRECT)
UNGRADED = Score(value=0.0, verdict=Verdict.GRADER_ERROR)
BROKEN = Score(value=0.0, verdict=Verdict.MALFORMED)

# What a grader does with a text: the text says it. "8" is right.
REWARDS = """
import ctypes, os, signal, subprocess, sys, time
from pathlib import Path
from rewards.problem import Score, Verdict

HERE = Path(__file__).parent

def count(name):
    with (HERE / name).open("a") as file:
        file.write("x")
    return len((HERE / name).read_text())

def obey(text):
    if text == "loop":
        while True:
            pass
    if text == "loop in C":
        9 ** 9 ** 9
    if text == "sleep":
        time.sleep(1000)
    if text == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if text == "segfault":
        ctypes.string_at(0)
    if text == "exit":
        os._exit(0)
    if text == "sys.exit":
        sys.exit(3)
    if text == "swell":
        held = [bytearray(1 << 26) for _ in range(1 << 20)]
    if text == "swell at once":
        bytearray(1 << 40)
    if text == "garble":
        os.write(int(sys.argv[1]), b"\\xff" * 99)
        time.sleep(1000)
    if text == "half a message":
        os.write(int(sys.argv[1]), (100).to_bytes(8, "big") + b"{")
        time.sleep(1000)
    if text == "drip":
        os.write(int(sys.argv[1]), (1000).to_bytes(8, "big"))
        for _ in range(1000):
            os.write(int(sys.argv[1]), b" ")
            time.sleep(0.1)
    if text == "forged":
        answer = b'{"scores": [{"value": 9.0, "verdict": "correct", "parts": {}}, {}]}'
        os.write(int(sys.argv[1]), len(answer).to_bytes(8, "big") + answer)
        time.sleep(1000)
    if text == "two at once":
        answer = b'{"scores": [%s, %s]}' % ((b'{"value": 9.0, "verdict": "correct", "parts": {}}',) * 2)
        os.write(int(sys.argv[1]), len(answer).to_bytes(8, "big") + answer)
        time.sleep(1000)
    if text == "offspring":
        child = subprocess.Popen(["sleep", "1000"])
        (HERE / "offspring").write_text(str(child.pid))
        time.sleep(1000)
    if text == "raise":
        raise RuntimeError("no such thing")
    if text == "recurse":
        obey(text)
    if text == "die once" and count("deaths") == 1:
        os._exit(1)
    if text == "raise once" and count("raised") == 1:
        raise RuntimeError("once")
    if text == "sandbox":
        return Score(value=1.0, verdict=Verdict.SANDBOX_ERROR)
    if text == "sandbox once" and count("sandboxes") == 1:
        return Score(value=0.0, verdict=Verdict.SANDBOX_ERROR)
    return 1.0 if text in ("8", "die once", "raise once", "sandbox once") else 0.0

def obedient(problem, text):
    return obey(text)

def counted(problem, text):
    count("calls")
    return 1.0 if text == problem.answer else 0.0

def together(problem, responses):
    return [obey(r.text) for r in responses]

def hangs_always(problem, text):
    time.sleep(1000)

def raises_always(problem, text):
    raise ValueError("never works")

def says_torch(problem, text):
    return float("torch" in sys.modules)

def says_pid(problem, text):
    return float(os.getpid())

def late(problem, text):
    time.sleep(float(text))
    return 1.0
"""


@pytest.fixture
def reward(tmp_path, monkeypatch):
    """Loads one of `REWARDS` by name, as a person's own module."""
    (tmp_path / "ownrewards.py").write_text(REWARDS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ownrewards", raising=False)
    yield lambda name: load_reward(f"ownrewards:{name}")
    sys.modules.pop("ownrewards", None)


def config(**changed) -> ScoringConfig:
    return ScoringConfig(**{"workers": 1, "deadline_s": 0.5, "memory_gib": 0.5} | changed)


def children() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE
        and "from rewards.worker" in " ".join(child.cmdline())
    ]


def scores(pool, *texts) -> list[Score]:
    futures = [pool.submit(PROBLEM, [Response(text=text)]) for text in texts]
    return [future.result(timeout=60)[0] for future in futures]


def test_scores_are_those_of_the_reward_itself():
    reward = r1_zero_reward(numeric_reward)
    texts = ["8", "9", "", "x</think><answer>8</answer>", "7" * 99, "\ud800 8 \x00", "1/0"]
    items = [Response(text=text, prefill="<think>") for text in texts]
    with RewardPool(reward, config(workers=2)) as pool:
        futures = [pool.submit(PROBLEM, [item]) for item in items]
        assert [f.result()[0] for f in futures] == [reward(PROBLEM, item) for item in items]
        assert pool(PROBLEM, items[0]) == Inline(reward)(PROBLEM, items[0])


@pytest.mark.parametrize(
    "text",
    [
        "loop",
        "loop in C",
        "stop",
        "segfault",
        "exit",
        "sys.exit",
        "swell",
        "swell at once",
        "garble",
        "half a message",
        "drip",
        "forged",
        "two at once",
    ],
)
def test_a_text_that_kills_the_grader_costs_itself_only_and_scores_nothing(reward, text):
    with RewardPool(reward("obedient"), config()) as pool:
        began = time.monotonic()
        assert scores(pool, "8", text, "9", "8") == [RIGHT, BROKEN, WRONG, RIGHT]
        # Two tries of half a second, and three starts of a process.
        assert time.monotonic() - began < 2 * 0.5 + 8
        assert len(children()) == 1
    assert children() == []


@pytest.mark.parametrize("text", ["raise", "recurse"])
def test_a_reward_that_raises_leaves_its_item_ungraded(reward, text, caplog):
    with RewardPool(reward("obedient"), config()) as pool:
        assert scores(pool, text, "8") == [UNGRADED, RIGHT]
    assert "a reward failed twice and its score is left out: it raised R" in caplog.text


def test_a_grader_that_dies_on_anything_is_our_fault(reward):
    with RewardPool(reward("hangs_always"), config(deadline_s=0.3)) as pool:
        assert scores(pool, "8") == [UNGRADED]


@pytest.mark.parametrize("text", ["die once", "raise once", "sandbox once"])
def test_the_second_try_in_a_fresh_process_counts(reward, text):
    with RewardPool(reward("obedient"), config()) as pool:
        assert scores(pool, text) == [RIGHT]


def test_a_sandbox_that_fails_is_never_a_score_of_the_policy(reward):
    with RewardPool(reward("obedient"), config()) as pool:
        (score,) = scores(pool, "sandbox")
        assert score.verdict is Verdict.SANDBOX_ERROR


def test_a_process_that_is_killed_while_idle_is_replaced(reward):
    with RewardPool(reward("says_pid"), config()) as pool:
        (first,) = scores(pool, "8")
        os.kill(int(first.value), signal.SIGKILL)
        (second,) = scores(pool, "8")
        assert second.value != first.value
        assert second.verdict is Verdict.CORRECT


def test_processes_are_started_once_and_reused(reward):
    with RewardPool(reward("says_pid"), config(workers=2)) as pool:
        assert len({score.value for score in scores(pool, *"abcdefghijklmnop")}) <= 2


def test_in_a_group_only_the_member_that_breaks_the_grader_pays(reward):
    with RewardPool(reward("together"), config()) as pool:
        texts = ("8", "exit", "9", "loop")
        futures = pool.submit(PROBLEM, [Response(text=text) for text in texts])
        assert futures.result(timeout=60) == [RIGHT, BROKEN, WRONG, BROKEN]
        assert pool(PROBLEM, Response(text="8")) == RIGHT


def test_a_policy_that_is_paid_for_breaking_the_grader_gains_nothing(reward):
    """Every way to break it is worth what a wrong answer is, or leaves the batch."""
    ways = ("loop", "segfault", "swell at once", "garble", "raise", "sys.exit")
    with RewardPool(reward("obedient"), config(workers=2, deadline_s=0.5)) as pool:
        for score in scores(pool, *ways):
            assert score.value == 0.0
            assert score.verdict.is_ours or score.verdict is Verdict.MALFORMED


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_a_killed_grader_started_is_killed_too(reward, tmp_path):
    with RewardPool(reward("obedient"), config()) as pool:
        assert scores(pool, "offspring") == [BROKEN]
        pid = int((tmp_path / "offspring").read_text())
        deadline = time.monotonic() + 10.0  # a kill is no instant on a busy machine
        while is_running(pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_graders_do_not_load_torch(reward):
    with RewardPool(reward("says_torch"), config()) as pool:
        assert scores(pool, "8") == [WRONG]


def test_closing_does_not_wait_for_a_grader_that_hangs(reward):
    pool = RewardPool(reward("obedient"), config(deadline_s=1000.0))
    running, waiting = (pool.submit(PROBLEM, [Response(text="sleep")]) for _ in range(2))
    while not running.running():
        time.sleep(0.01)
    began = time.monotonic()
    pool.close()
    pool.close()
    assert time.monotonic() - began < 5
    with pytest.raises(PoolClosedError):
        running.result(timeout=5)
    assert waiting.cancelled()
    assert children() == []
    with pytest.raises(PoolClosedError):
        pool.submit(PROBLEM, [Response(text="8")])


PARENT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from rewards.adapters import load_reward
from rewards.pool import RewardPool, ScoringConfig
from rewards.problem import Problem, Response

problem = Problem(id="p", prompt="?", answer="8", source="s")
pool = RewardPool(load_reward("ownrewards:obedient"), ScoringConfig(workers=2, deadline_s=1000.0))
pool.submit(problem, [Response(text="loop in C")])
time.sleep(0.5)
print("busy", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_its_parent(reward, tmp_path, number):
    variables = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], env=variables, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout.readline() == "busy\n"
    workers = psutil.Process(parent.pid).children()
    assert len(workers) == 2
    parent.send_signal(number)
    parent.wait(timeout=30)
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE] == []


def calls(folder: Path) -> int:
    return len((folder / "calls").read_text())


def test_only_pure_rewards_are_asked_once(reward, tmp_path):
    from rewards.purity import pure

    counted = reward("counted")
    with RewardPool(counted, config()) as pool:
        assert scores(pool, "8", "9") + scores(pool, "8", "9") == [RIGHT, WRONG] * 2
        assert calls(tmp_path) == 4
    pure(version="1", reads=("answer", "text"))(counted)
    other = Problem(id="sum/2", prompt="4 + 5?", answer="9", source="sum")
    with RewardPool(counted, config()) as pool:
        assert scores(pool, "8", "9") + scores(pool, "8", "9") == [RIGHT, WRONG] * 2
        assert calls(tmp_path) == 6
        assert pool(other, Response(text="9")) == RIGHT  # another answer, another key
        assert calls(tmp_path) == 7
        assert pool(PROBLEM, Response(text="8", prefill="<think>")) == RIGHT  # not read
        assert calls(tmp_path) == 7


def test_verdicts_of_broken_graders_are_not_kept(reward):
    from rewards.purity import pure

    obedient = pure(version="1", reads=("text",))(reward("obedient"))
    with RewardPool(obedient, config()) as pool:
        assert scores(pool, "raise", "exit") == [UNGRADED, BROKEN]
        assert len(pool._cache._kept) == 0
        assert scores(pool, "8") == [RIGHT]
        assert len(pool._cache._kept) == 1


def test_a_reward_that_cannot_travel_is_refused():
    with pytest.raises(ValueError, match="define it at the top level of a module"):
        RewardPool(lambda problem, response: 1.0, config())


def test_a_reward_whose_module_fails_in_the_process_is_refused(reward, tmp_path):
    obedient = reward("obedient")
    (tmp_path / "ownrewards.py").write_text("raise OSError('no licence')")
    with pytest.raises(ValueError, match=r"cannot be loaded in a scoring process: OSError: no lic"):
        RewardPool(obedient, config(workers=2))
    assert children() == []
    (tmp_path / "ownrewards.py").write_text("import os; os._exit(7)")
    with pytest.raises(ValueError, match="ended with exit code 7 while it loaded the reward"):
        RewardPool(obedient, config())


def test_a_reward_is_tried_before_anything_is_trained(reward):
    with RewardPool(reward("obedient"), config()) as pool:
        pool.check(PROBLEM)
    with (
        RewardPool(reward("raises_always"), config()) as pool,
        pytest.raises(
            ValueError, match=r"raised ValueError: never works \(ownrewards.py, line \d+"
        ),
    ):
        pool.check(PROBLEM)
    with (
        RewardPool(reward("hangs_always"), config(deadline_s=0.3)) as pool,
        pytest.raises(ValueError, match="the reward ran past its deadline on problem sum/1"),
    ):
        pool.check(PROBLEM)


def test_what_leaves_nothing_to_score_with_is_refused():
    with pytest.raises(ValueError, match=r"scoring.workers is -1"):
        ScoringConfig(workers=-1)
    with pytest.raises(ValueError, match=r"scoring.deadline_s is 0: use more than 0"):
        ScoringConfig(deadline_s=0)
    with pytest.raises(ValueError, match=r"scoring.memory_gib is nan"):
        ScoringConfig(memory_gib=float("nan"))


def test_the_cache_costs_less_than_another_process():
    measured = pool_overhead(num_items=500)
    assert 0 < measured["pool_cached_ms"] < measured["pool_item_ms"]
