"""A client of OpenAI-compatible servers beside a real HTTP server: what is sent, read and refused."""

import socket
import threading
import time
from dataclasses import replace

import pytest

from rollouts.endpoint import Answer, Ask, Endpoint, EndpointError, EndpointSampler
from rollouts.endpoint_config import EndpointConfig
from rollouts.rollout import Request, Sampling
from tests.endpoint_server import Reply, said, serving

KEY = "sk-very-secret-1234"


def asks(count: int) -> list[Ask]:
    return [
        Ask(
            id=f"p/{i}",
            messages=({"role": "user", "content": f"What is {i} + 1?"},),
            sampling=Sampling(temperature=0.7, max_tokens=64, top_p=0.9),
            seed=(1 << 61) + i,
        )
        for i in range(count)
    ]


def config(url: str, **fields) -> EndpointConfig:
    return EndpointConfig(url=url, model="m", **{"retries": 1, "timeout_s": 60.0, **fields})


def plus_one(body: dict, number: int) -> Reply:
    question = body["messages"][-1]["content"]
    return said(str(int(question.split()[2]) + 1))


def failure(url: str, count: int = 1, **fields) -> str:
    """The one line of an endpoint that fails."""
    with pytest.raises(EndpointError) as caught:
        list(Endpoint(config(url, **fields)).answers(asks(count)))
    line = str(caught.value)
    assert line.startswith(f"endpoint {url}, model m: ")
    assert line.endswith(". What came is kept: go on with --resume")
    assert "\n" not in line
    return line


def test_every_ask_has_its_own_answer():
    with serving(plus_one) as served:
        answers = list(Endpoint(config(served.url)).answers(asks(20)))
    assert {a.request_id: a.text for a in answers} == {f"p/{i}": str(i + 1) for i in range(20)}
    assert answers[0] == Answer(
        request_id=answers[0].request_id,
        text=answers[0].text,
        finish="stop",
        num_tokens=3,
        num_prompt_tokens=5,
        token_ids=(),
    )
    body = next(b for b in served.bodies if b["messages"][0]["content"] == "What is 7 + 1?")
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "What is 7 + 1?"}],
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 64,
        "seed": 7,  # of 2**61 + 7 the lowest 31 bits
    }
    assert served.headers[0]["authorization"] == "Bearer none"


def test_what_only_some_servers_know_is_sent_only_if_it_is_set():
    (ask,) = asks(1)
    ask = replace(ask, sampling=Sampling(top_k=20))
    with serving(plus_one) as served:
        list(Endpoint(config(served.url), {"enable_thinking": False}).answers([ask]))
    assert served.bodies[0]["top_k"] == 20
    assert served.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}


def test_so_many_are_in_flight_and_asks_are_read_as_there_is_room():
    read = 0
    five = threading.Barrier(5)

    def met(body: dict, number: int) -> Reply:
        if number < 5:
            five.wait(30)
        return plus_one(body, number)

    def counted():
        nonlocal read
        for ask in asks(30):
            read += 1
            yield ask

    with serving(met) as served:
        answers = Endpoint(config(served.url, max_concurrent=5)).answers(counted())
        next(answers)
        assert read == 5
        assert len(list(answers)) == 29
    assert served.most_in_hand == 5


def test_answers_come_as_they_finish():
    others_came = threading.Event()

    def first_is_slow(body: dict, number: int) -> Reply:
        if "What is 0 " in str(body):
            others_came.wait(30)
        return plus_one(body, number)

    with serving(first_is_slow) as served:
        answers = Endpoint(config(served.url)).answers(asks(4))
        came = [next(answers).request_id for _ in range(3)]
        others_came.set()
        assert sorted(came) == ["p/1", "p/2", "p/3"]
        assert [answer.request_id for answer in answers] == ["p/0"]


def test_an_iterator_that_is_left_leaves_nothing_running():
    with serving(lambda body, n: replace(plus_one(body, n), delay_s=60.0 * (n > 0))) as served:
        start = time.monotonic()
        answers = Endpoint(config(served.url)).answers(asks(3))
        next(answers)
        answers.close()
        assert time.monotonic() - start < 30


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_that_comes_apart_is_put_in_tags(name: str):
    with serving(lambda *_: said("It is 8.", **{name: "3 and 5\n"})) as served:
        (answer,) = Endpoint(config(served.url)).answers(asks(1))
    assert answer.text == "<think>\n3 and 5\n</think>\n\nIt is 8."


def test_reasoning_that_was_cut_off_stays_open():
    reply = said(None, finish="length", reasoning_content="3 and")
    with serving(lambda *_: reply) as served:
        (answer,) = Endpoint(config(served.url)).answers(asks(1))
    assert (answer.text, answer.finish) == ("<think>\n3 and", "length")


def test_half_of_a_surrogate_pair_is_replaced():
    with serving(lambda *_: said("8\ud83d!")) as served:
        (answer,) = Endpoint(config(served.url)).answers(asks(1))
    assert answer.text == "8?!"


def test_an_answer_that_was_filtered_is_an_answer():
    with serving(lambda *_: said(None, finish="content_filter", tokens=0)) as served:
        (answer,) = Endpoint(config(served.url)).answers(asks(1))
    assert (answer.text, answer.finish, answer.num_tokens) == ("", "content_filter", 0)


def test_what_is_refused_for_a_while_is_asked_again():
    def busy(body: dict, number: int) -> Reply:
        if number == 0:
            return Reply(
                status=429, body={"error": {"message": "busy"}}, headers={"retry-after": "0.1"}
            )
        return plus_one(body, number)

    with serving(busy) as served:
        (answer,) = Endpoint(config(served.url)).answers(asks(1))
    assert (answer.text, len(served.bodies)) == ("1", 2)


JUNK = {
    "a page": "<html>Sign in</html>",
    "a list": "[1, 2]",
    "cut off": '{"choices": [{"mess',
    "an error with status 200": '{"error": "no such model"}',
    "no choices": {**said("8").body, "choices": []},
    "no message": {**said("8").body, "choices": [{"index": 0, "finish_reason": "stop"}]},
    "no usage": {key: value for key, value in said("8").body.items() if key != "usage"},
    "usage in words": {**said("8").body, "usage": {"prompt_tokens": "5", "completion_tokens": "3"}},
    "content of parts": said([{"type": "text", "text": "8"}]).body,  # type: ignore[arg-type]
}


@pytest.mark.parametrize("kind", JUNK)
def test_junk_is_asked_again_and_then_told(kind: str):
    with serving(lambda *_: Reply(body=JUNK[kind])) as served:
        line = failure(served.url)
    assert "answered 2 times with something that is no chat completion with token counts" in line
    assert len(served.bodies) == 2


def test_junk_once_is_forgiven():
    with serving(lambda b, n: Reply(body="[]") if n == 0 else plus_one(b, n)) as served:
        (answer,) = Endpoint(config(served.url)).answers(asks(1))
    assert answer.text == "1"


def test_no_server():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        line = failure(url, count=3, retries=0)
    assert (
        "in its one try (ConnectError 'All connection attempts failed'); start the server, or"
        in line
    )


def test_a_server_that_does_not_answer_in_time():
    with serving(lambda *_: replace(said("8"), delay_s=60.0)) as served:
        start = time.monotonic()
        line = failure(served.url, timeout_s=0.2)
        assert time.monotonic() - start < 30
    assert "no answer within 0.2 s in 2 tries; is it at work? Raise timeout_s" in line


def test_a_server_that_asks_for_patience_without_end_is_left_in_time():
    reply = Reply(status=503, body="{}", headers={"retry-after": "60"})
    with serving(lambda *_: reply) as served:
        start = time.monotonic()
        failure(served.url, timeout_s=0.3)
        assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "key_variable"),
        (404, "correct the url (with its /v1) or the model's name"),
        (400, "the server does not take this request"),
        (429, "lower max_concurrent, or wait"),
        (500, "see the server's log"),
    ],
)
def test_refusals_are_told_with_a_remedy(status: int, remedy: str):
    reply = Reply(status=status, body={"error": {"message": "no\x1b[31m\nway"}})
    with serving(lambda *_: reply) as served:
        line = failure(served.url, retries=0)
    assert f"model m: {status} (" in line
    assert remedy in line
    assert line.isprintable()


def test_after_a_failure_what_is_in_flight_still_comes():
    def second_fails(body: dict, number: int) -> Reply:
        if "What is 1 " in str(body):
            return Reply(status=403, body={})
        return replace(plus_one(body, number), delay_s=1.0)

    came = []
    with serving(second_fails) as served, pytest.raises(EndpointError, match="model m: 403"):
        for answer in Endpoint(config(served.url, max_concurrent=4)).answers(asks(20)):
            came.append(answer.request_id)
    assert sorted(came) == ["p/0", "p/2", "p/3"]
    assert len(served.bodies) == 4


def test_a_request_that_the_server_does_not_take_is_answered_by_nothing():
    def too_long(body: dict, number: int) -> Reply:
        if "What is 0 " in str(body) or "What is 5 " in str(body):
            return Reply(status=400, body={"error": {"message": "too long"}})
        return plus_one(body, number)

    with serving(too_long) as served:
        answers = list(Endpoint(config(served.url, max_concurrent=1)).answers(asks(7)))
    assert [answer.request_id for answer in answers] == [
        "p/1", "p/0", "p/2", "p/3", "p/4", "p/5", "p/6"
    ]  # fmt: skip
    assert {a.request_id for a in answers if a.finish == "refused"} == {"p/0", "p/5"}
    assert (answers[1].text, answers[1].num_tokens) == ("", 0)
    assert len(served.bodies) == 7


def test_a_server_that_takes_no_request_is_left():
    with serving(lambda *_: Reply(status=422, body={})) as served:
        line = failure(served.url, count=40, max_concurrent=4)
    assert "422" in line
    assert 8 <= len(served.bodies) <= 11  # and what was in flight


def test_the_key_comes_from_the_environment_and_is_never_repeated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    with serving(plus_one) as served:
        list(Endpoint(config(served.url, key_variable="TEACHER_KEY")).answers(asks(1)))
    assert served.headers[0]["authorization"] == f"Bearer {KEY}"
    for body in ({"error": {"message": f"wrong key {KEY}"}}, f"<p>{KEY}</p>"):
        for status in (401, 200):
            with serving(lambda *_, s=status, b=body: Reply(status=s, body=b)) as served:
                line = failure(served.url, key_variable="TEACHER_KEY")
            assert KEY not in line
            assert "***" in line or (
                status == 401 and isinstance(body, str)
            )  # a page's text is not told
    assert KEY not in repr(config(served.url, key_variable="TEACHER_KEY"))


def test_a_key_that_is_not_there_is_told_and_none_is_taken_unasked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(plus_one) as served:
        list(Endpoint(config(served.url)).answers(asks(1)))
    assert KEY not in str(served.headers)
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    with pytest.raises(ValueError, match="variable TEACHER_KEY, which is not set: export it first"):
        Endpoint(config(served.url, key_variable="TEACHER_KEY"))
    monkeypatch.setenv("TEACHER_KEY", "sk-\u00e4")
    with pytest.raises(ValueError, match="holds characters that no header takes") as caught:
        Endpoint(config(served.url, key_variable="TEACHER_KEY"))
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "127.0.0.1:8000/v1"}, "write it as http://HOST:PORT/v1"),
        ({"url": "http://h:x/v1"}, "write it as http://HOST:PORT/v1"),
        ({"url": f"https://me:{KEY}@host/v1"}, "url https://host/v1 carries a key or a query"),
        ({"url": f"https://host/v1?key={KEY}"}, "url https://host/v1 carries a key or a query"),
        ({"url": "http://host/v1", "model": ""}, "needs the name of its model"),
        ({"url": "http://host/v1", "key_variable": KEY}, "it may be the key itself"),
        ({"url": "http://host/v1", "max_concurrent": 0}, "max_concurrent is 0"),
        ({"url": "http://host/v1", "max_concurrent": 1001}, "use 1 to 1000"),
        ({"url": "http://host/v1", "timeout_s": 0.0}, "timeout_s 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_without_repeating_a_key(fields: dict, said: str):
    with pytest.raises(ValueError, match=said.replace("(", r"\(")) as caught:
        EndpointConfig(**{"model": "m", **fields})
    assert KEY not in str(caught.value)


def test_an_endpoint_samples_as_an_engine_does():
    requests = [
        Request(id=f"r/{i}", token_ids=(), sampling=Sampling(max_tokens=8), seed=i)
        for i in range(3)
    ]
    words = {f"r/{i}": f"What is {i} + 1?" for i in range(3)}
    with serving(plus_one) as served:
        sampler = EndpointSampler(
            Endpoint(config(served.url)),
            lambda request: ({"role": "user", "content": words[request.id]},),
        )
        found = {answer.request_id: answer.text for answer in sampler.sample(requests)}
    assert found == {"r/0": "1", "r/1": "2", "r/2": "3"}
