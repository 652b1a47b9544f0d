"""Completions from any OpenAI-compatible server: many requests in flight, tries and time bounded.

    config = EndpointConfig(url="http://127.0.0.1:8000/v1", model="teacher")
    for answer in Endpoint(config).answers([Ask(id="0", messages=({"role": ...},), ...)]): ...

It gives text, finish reason and token counts; no ids and no logprobs, which such servers do not
promise. Leaves out starting a server. The key is read from the environment when it is needed and
written nowhere.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rewards.problem import Messages
from rollouts.endpoint_config import EndpointConfig
from rollouts.rollout import Request, Sampling

SEED_BITS = 31
"""Some servers take a seed of 32 bits, signed."""

MAX_SAID = 200
"""Characters of what a server said that an error repeats."""

JUNK_PAUSE_S = 0.5
"""Before an answer that is none is asked for again."""

REFUSED = (400, 413, 422)
"""What a server says to a request that it does not take."""

MAX_REFUSED = 8
"""Requests that may be refused before one is answered; then the server takes none."""

REASONING = ("reasoning_content", "reasoning")
"""Where servers put the reasoning: DeepSeek's and older vLLM's name, newer vLLM's."""


class EndpointError(RuntimeError):
    """The server refused, did not answer in time or answered junk; what came before is kept."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One completion to be asked for.

    Example: `Ask(id="gsm8k/17/3", messages=({"role": "user", "content": "2 + 2?"},),
    sampling=Sampling(max_tokens=64), seed=77)`.
    """

    id: str
    messages: Messages
    sampling: Sampling
    seed: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the server wrote; a `rollouts.trials.Finished`.

    Example: `Answer(request_id="gsm8k/17/3", text="<think>\\n2 and 2\\n</think>\\n\\n4",
    finish="stop", num_tokens=12, num_prompt_tokens=9)`.

    Attributes:
        text: With the reasoning, where the server gives it apart, in `<think>` tags before it.
        finish: "stop", "length", "refused", or another word of the server's, as "content_filter".
        num_tokens: As the server counts them, reasoning included.
    """

    request_id: str
    text: str
    finish: str
    num_tokens: int
    num_prompt_tokens: int
    token_ids: tuple[int, ...] = ()


class Endpoint:
    """A client of one server."""

    def __init__(self, config: EndpointConfig, chat_template_kwargs: dict[str, Any] | None = None):
        """`chat_template_kwargs` goes to servers that fill in a template, such as vLLM's.

        Raises ValueError if the key's environment variable is not set.
        """
        self.config = config
        self._key = config.key()
        self._extra = {"chat_template_kwargs": chat_template_kwargs} if chat_template_kwargs else {}

    def answers(self, asks: Iterable[Ask]) -> Iterator[Answer]:
        """One answer an ask, as they come; asks are read as there is room for them.

        A request that the server does not take, such as one that is too long, is answered by
        nothing, finish "refused", as long as it takes others. After a failure nothing new is asked,
        and what is in flight is still given.

        Raises:
            EndpointError: A request failed with all its tries, or all were refused; in one line.
        """
        waiting = iter(asks)
        failure: EndpointError | None = None
        refused: dict[str, BaseException] = {}
        num_answered = 0
        with asyncio.Runner() as runner:  # cancels what is in flight when it closes
            client = runner.run(self._open())
            flight: set[asyncio.Task[Answer]] = set()
            try:
                while True:
                    if failure is None and (num_answered or len(refused) < MAX_REFUSED):
                        runner.run(self._send(client, waiting, flight))
                    if not flight:
                        break
                    for task in runner.run(_first(flight)):
                        flight.discard(task)
                        if (error := task.exception()) is None:
                            num_answered += 1
                            yield task.result()
                        elif getattr(error, "status_code", None) in REFUSED:
                            refused[task.get_name()] = error
                        else:
                            failure = failure or self._known(error)
                    if num_answered:
                        yield from map(_refusal, refused)
                        refused.clear()
            finally:
                for task in flight:
                    task.cancel()
                runner.run(client.close())
        if failure is None and refused:
            failure = self._known(next(iter(refused.values())))
        if failure is not None:
            raise failure

    async def _open(self) -> Any:
        from openai import AsyncOpenAI  # half a second

        return AsyncOpenAI(
            api_key=self._key,
            base_url=self.config.url,
            timeout=self.config.timeout_s,
            max_retries=self.config.retries,
        )

    async def _send(
        self, client: Any, waiting: Iterator[Ask], flight: set[asyncio.Task[Answer]]
    ) -> None:
        while len(flight) < self.config.max_concurrent and (ask := next(waiting, None)):
            flight.add(asyncio.create_task(self._answer(client, ask), name=ask.id))

    async def _answer(self, client: Any, ask: Ask) -> Answer:
        """One answer; junk is asked for again, what openai retries is retried by it."""
        sampling = ask.sampling
        extra = {"top_k": sampling.top_k} if sampling.top_k > 0 else {}
        tries = self.config.retries + 1
        async with asyncio.timeout(self.config.timeout_s * tries):
            for tried in range(tries):
                await asyncio.sleep(JUNK_PAUSE_S if tried else 0)
                try:
                    said: Any = await client.chat.completions.create(
                        model=self.config.model,
                        messages=list(ask.messages),
                        temperature=sampling.temperature,
                        top_p=sampling.top_p,
                        max_tokens=sampling.max_tokens,
                        seed=ask.seed % (1 << SEED_BITS),
                        extra_body={**self._extra, **extra},
                    )
                except ValueError as error:  # no JSON
                    said = error
                if (answer := _read(ask.id, said)) is not None:
                    return answer
        raise EndpointError(
            f"{self._place()}: answered {tries} times with something that is no chat completion with "
            f"token counts ({self._short(said)!a}); is this the address of an OpenAI-compatible server, "
            "with its /v1?"
        )

    def _place(self) -> str:
        return f"endpoint {self.config.shown_url}, model {self.config.model}"

    def _short(self, said: Any) -> str:
        """The start of what a server said, in one line; a key that it repeats is taken out."""
        text = " ".join(str(said).split())
        return (text.replace(self._key, "***") if self.config.key_variable else text)[:MAX_SAID]

    def _known(self, error: BaseException) -> EndpointError:
        """What happened, and what to do, without the key; anything else is raised as it is."""
        import openai

        tries = f"{self.config.retries + 1} tries" if self.config.retries else "its one try"
        match error:
            case EndpointError():
                said = str(error)
            case openai.APITimeoutError() | TimeoutError():
                said = (
                    f"{self._place()}: no answer within {self.config.timeout_s:g} s in {tries}; is it "
                    "at work? Raise timeout_s, or lower max_concurrent or max_tokens"
                )
            case openai.APIConnectionError():
                cause = error.__cause__ or error
                said = (
                    f"{self._place()}: no connection, or one that broke, in {tries} "
                    f"({type(cause).__name__} {self._short(cause)!a}); start the server, or correct the url"
                )
            case openai.APIStatusError():
                said = f"{self._place()}: {error.status_code} ({self._short(error.message)!a}); {_remedy(error)}"
            case openai.OpenAIError() | ValueError():
                said = f"{self._place()}: an answer that cannot be read ({self._short(error)!a}); correct the url"
            case _:
                raise error
        return EndpointError(f"{said}. What came is kept: go on with --resume")


class EndpointSampler:
    """An endpoint behind the `sample` of an engine: requests in, answers out."""

    def __init__(self, endpoint: Endpoint, messages_of: Callable[[Request], Messages]):
        """`messages_of` a request, since a server has its own template and takes no ids."""
        self._endpoint, self._messages_of = endpoint, messages_of

    def sample(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """One answer a request, as they come. Raises EndpointError as `Endpoint.answers`."""
        return self._endpoint.answers(
            Ask(id=r.id, messages=self._messages_of(r), sampling=r.sampling, seed=r.seed)
            for r in requests
        )


async def _first(flight: set[asyncio.Task[Answer]]) -> set[asyncio.Task[Answer]]:
    done, _ = await asyncio.wait(flight, return_when=asyncio.FIRST_COMPLETED)
    return done


def _refusal(request_id: str) -> Answer:
    return Answer(
        request_id=request_id, text="", finish="refused", num_tokens=0, num_prompt_tokens=0
    )


def _read(request_id: str, said: Any) -> Answer | None:
    """The answer in what openai parsed, which checks no types; None if it is none."""
    try:
        (choice, *_), usage = said.choices, said.usage
        reasoning = next(filter(None, map(_field(choice.message), REASONING)), "")
        content = choice.message.content or ""
        counts = usage.completion_tokens, usage.prompt_tokens
        finish = choice.finish_reason
    except (AttributeError, TypeError, ValueError):
        return None
    if not all(isinstance(text, str) for text in (reasoning, content, finish)):
        return None
    if not all(type(count) is int and count >= 0 for count in counts):
        return None
    return Answer(
        request_id=request_id,
        # JSON can hold half of a surrogate pair, which no tokenizer and no server takes.
        text=_joined(reasoning, content, finish).encode("utf-8", "replace").decode(),
        finish=finish,
        num_tokens=counts[0],
        num_prompt_tokens=counts[1],
    )


def _field(message: Any) -> Callable[[str], Any]:
    return lambda name: getattr(message, name, None)


def _joined(reasoning: str, content: str, finish: str) -> str:
    """One text of both; reasoning that was cut off stays open."""
    if not reasoning:
        return content
    if not content and finish == "length":
        return f"<think>\n{reasoning}"
    return f"<think>\n{reasoning.strip()}\n</think>\n\n{content.strip()}"


def _remedy(error: Any) -> str:
    if error.status_code in (401, 403):
        return "give the name of the variable with the right key in key_variable"
    if error.status_code == 404:
        return "correct the url (with its /v1) or the model's name"
    if error.status_code == 429:
        return "lower max_concurrent, or wait"
    if error.status_code >= 500:
        return "see the server's log"
    return "the server does not take this request"
