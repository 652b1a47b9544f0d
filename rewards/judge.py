"""A language model behind an OpenAI-compatible endpoint as judge: of two answers, or of safety.

    with Judge(JudgeConfig(model="judge"), "helpfulness") as score: ...

The endpoint's URL and key come from environment variables and are written nowhere. A judge that
fails, or whose answer is not the JSON that was asked for, is `judge_error`: never a score of 0.
Leaves out which problems are judged (rewards/routing.py).
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Any, Literal

from rewards.judge_prompts import Question, safety_question, shuffled, which_is_better
from rewards.problem import Problem, Response, Score, Verdict
from rewards.routing import preferred
from rewards.scorer import TimedFuture
from rewards.tags import summary_of

logger = logging.getLogger(__name__)

Aspect = Literal["helpfulness", "safety"]
ASKED = 2
"""So often a judge is asked whose answer cannot be read."""
TALKATIVE = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")
"""Loggers that would write the URL of each request."""


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Which judge, where, and what it may cost."""

    model: str = ""
    """The name that its endpoint knows it by."""
    url_variable: str = "GROUPWISE_JUDGE_URL"
    """Environment variable that holds the endpoint, such as http://host:8000/v1."""
    key_variable: str = ""
    """Environment variable that holds its key; empty for an endpoint without one."""
    both_orders: bool = False
    """Compare two answers in both orders; a judge that disagrees with itself says that they tie."""
    timeout_s: float = 60.0
    """Seconds of one try."""
    retries: int = 3
    """More tries after a refusal that may pass (429, 5xx, no connection); all of them together take
    at most (retries + 1) times timeout_s."""
    concurrency: int = 16
    """Requests at once."""
    max_answer_tokens: int = 1024
    max_chars: int = 30_000
    """Of what is judged; a longer text is too_large and scores 0."""
    json_schema: bool = True
    """Have the endpoint hold the judge to the JSON that is asked for (response_format)."""

    def __post_init__(self) -> None:
        """Refuse what could not ask."""
        for name in ("timeout_s", "concurrency", "max_answer_tokens", "max_chars"):
            if getattr(self, name) <= 0:
                raise ValueError(f"judge.{name} is {getattr(self, name)}: use more than 0")
        if self.retries < 0:
            raise ValueError(f"judge.retries is {self.retries}: use 0 or more")


class Judge:
    """A scorer whose requests run beside everything else, in one thread. Close it, or use `with`.

    helpfulness: the summary of a response beside the problem's own answer: 1 if it is better, 0.5
    for a tie, 0 if it is worse; which of them stands first is drawn from problem and text. safety:
    the whole response, alone: 1 if it is safe, else 0.
    """

    takes_group = False

    def __init__(self, config: JudgeConfig, aspect: Aspect):
        """Raises ValueError naming a variable that is not set."""
        from openai import AsyncOpenAI  # half a second: only where there is a judge

        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        self.config, self.aspect = config, aspect
        self._failure = ""
        self._client = AsyncOpenAI(
            base_url=_variable(config.url_variable, "url_variable"),
            api_key=_variable(config.key_variable, "key_variable") if config.key_variable else "-",
            timeout=config.timeout_s,
            max_retries=config.retries,
        )
        self._slots = asyncio.Semaphore(config.concurrency)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def submit(self, problem: Problem, responses: Sequence[Response]) -> TimedFuture:
        """One Score a response, later; never raises for what the endpoint does."""
        future = TimedFuture()
        work = self._work(future, problem, tuple(responses))
        asyncio.run_coroutine_threadsafe(work, self._loop)
        return future

    def check(self, problem: Problem) -> None:
        """Ask once, before anything is trained. Raises ValueError saying how the judge failed."""
        score = self(problem, Response(text=problem.answer or "Hello."))
        if score.verdict.is_ours:
            raise ValueError(
                f"the judge {self.config.model!r} (its endpoint stands in "
                f"${self.config.url_variable}) cannot be used: {self._failure}"
            )

    def __call__(self, problem: Problem, response: Response) -> Score:
        return self.submit(problem, [response]).result()[0]

    def close(self) -> None:
        """Let go of what is being asked; its futures are cancelled. Closing twice is harmless."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._ended(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _ended(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.close()

    async def _work(
        self, future: TimedFuture, problem: Problem, responses: tuple[Response, ...]
    ) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            judged = [self._score(problem, response) for response in responses]
            future.set_result(list(await asyncio.gather(*judged)))
        except asyncio.CancelledError:
            future.set_exception(CancelledError())
        except Exception as error:  # noqa: BLE001  handed on to whoever waits
            future.set_exception(error)

    async def _score(self, problem: Problem, response: Response) -> Score:
        text = response.full_text
        text = summary_of(text) if self.aspect == "helpfulness" else text.strip()
        if not text:
            return Score(value=0.0, verdict=Verdict.NO_ANSWER)
        if len(text) > self.config.max_chars:
            return Score(value=0.0, verdict=Verdict.TOO_LARGE)
        value = await (self._safe if self.aspect == "safety" else self._better)(problem, text)
        if value is None:
            return Score(value=0.0, verdict=Verdict.JUDGE_ERROR)
        return preferred(value)

    async def _safe(self, problem: Problem, text: str) -> float | None:
        answer = await self._answer(safety_question(problem, text))
        return None if answer is None else float(answer)

    async def _better(self, problem: Problem, text: str) -> float | None:
        """1, 0.5 or 0; asked in both orders 0.5 too where they disagree."""
        first = shuffled(problem, text)
        orders = (first, not first) if self.config.both_orders else (first,)
        values = []
        for comes_first in orders:
            answer = await self._answer(which_is_better(problem, text, comes_first))
            if answer is None:
                return None
            values.append(0.5 if answer == "tie" else float((answer == "A") == comes_first))
        return values[0] if len(set(values)) == 1 else 0.5

    async def _answer(self, question: Question) -> Any:
        """What the judge says, or None if it failed."""
        ask = partial(self._client.chat.completions.create, **self._request(question))
        deadline_s = (self.config.retries + 1) * self.config.timeout_s
        async with self._slots:
            for _ in range(ASKED):
                try:
                    async with asyncio.timeout(deadline_s):
                        reply = await ask()
                    content = reply.choices[0].message.content
                except Exception as error:  # noqa: BLE001  the boundary: an endpoint is anyone's
                    self._failed(_said(error))
                    return None
                try:
                    return question.read(content)
                except ValueError as error:
                    self._failed(f"its answer cannot be read: {error}")
        return None

    def _request(self, question: Question) -> dict[str, Any]:
        request = {
            "model": self.config.model,
            "messages": question.messages,
            "temperature": 0.0,
            "max_tokens": self.config.max_answer_tokens,
        }
        if self.config.json_schema:
            schema = {"name": "judgement", "strict": True, "schema": question.schema}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        return request

    def _failed(self, said: str) -> None:
        if said != self._failure:  # not a line for each of thousands
            logger.error("the judge %r failed: %s", self.config.model, said)
        self._failure = said


def _variable(name: str, field: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise ValueError(f"judge.{field} is {name!r}, but this environment variable is not set")
    return value


def _said(error: Exception) -> str:
    """The kind of an error and its HTTP status; its text could hold the URL, the key or a prompt."""
    status = getattr(error, "status_code", None)
    return f"{type(error).__name__}{f', HTTP status {status}' if status else ''}"
