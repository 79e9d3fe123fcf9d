"""What a text model is asked: the request that it gets, and how functions of several kinds become one."""

from __future__ import annotations

import inspect
import json
from dataclasses import FrozenInstanceError, dataclass
from operator import index
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

MAX_TOKENS = 2048
"""Tokens of an answer at most, where nothing else is said."""

ASYNC_WORKERS = 100
"""Requests that an `async def` text model answers at a time, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class _Asked:
    prompt: str | None = None
    messages: tuple[dict[str, str], ...] | None = None
    max_tokens: int = MAX_TOKENS
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    metadata: dict[str, str] | None = None
    model: str = ""
    user: str | None = None
    stream: bool = False


class GenerateRequest(_Asked):
    """What a model of `task="generate"` is asked; it cannot be changed, except for `prompt_tokens`.

    Penstock sees to `max_tokens` and `stop` itself: a model that goes on is not asked for more. A token is what the
    model yields at a time.

    Attributes:
        prompt: the text that is to be gone on with; `None` in a chat.
        messages: the conversation, each with `role`, `content` and perhaps `name`; `None` where there is a prompt.
        max_tokens: tokens of the answer at most, 2048 by default.
        temperature: from 0, always the likeliest, to 2.
        top_p: the share of the likeliest tokens that is chosen from, 0 to 1.
        stop: texts that end the answer, at most 4.
        seed: what chance is to begin with; `None` where any will do. Of several choices, each has one of its own.
        metadata: what else the sender says, by name.
        model: the name that was asked for.
        user: for whom the sender asks.
        stream: true where the sender wants the answer as it comes.
        prompt_tokens: how many tokens the prompt has: the model may say so, and `usage` then does.

    Example:
        >>> request = GenerateRequest(prompt="once upon")
        >>> request.text, request.max_tokens
        ('once upon', 2048)
    """

    __slots__ = ("_prompt_tokens", "_tell")

    _prompt_tokens: int
    _tell: Callable[[int], None]

    @property
    def prompt_tokens(self) -> int | None:
        """How many tokens the prompt has, where the model has said so."""
        return getattr(self, "_prompt_tokens", None)

    @prompt_tokens.setter
    def prompt_tokens(self, count: int) -> None:
        count = index(count)
        if count < 0:
            raise ValueError(f"prompt_tokens must be a whole number of at least 0, not {count}")
        object.__setattr__(self, "_prompt_tokens", count)
        tell = getattr(self, "_tell", None)
        if tell is not None:
            tell(count)

    def __setattr__(self, name: str, value: object) -> None:
        """Sets `prompt_tokens`.

        Raises:
            AttributeError: for anything else: a request cannot be changed.
        """
        if name != "prompt_tokens":
            raise FrozenInstanceError(f"a request cannot be changed: it has no {name} to set")
        object.__setattr__(self, name, value)

    @property
    def text(self) -> str:
        """The prompt; of a chat, its messages as `role: content` in lines, and `assistant: ` for the answer."""
        if self.messages is None:
            return self.prompt or ""
        said = [f"{message['role']}: {message['content']}\n" for message in self.messages]
        return "".join([*said, "assistant: "])


def request_of(document: str, tell: Callable[[int], None] | None = None) -> GenerateRequest:
    """The request that a document of the data plane stands for; `tell` is called with the length of its prompt."""
    asked: dict[str, Any] = json.loads(document)
    messages = asked.get("messages")
    if messages is not None:
        asked["messages"] = tuple(messages)
    asked["stop"] = tuple(asked.get("stop", ()))
    request = GenerateRequest(**asked)
    if tell is not None:
        object.__setattr__(request, "_tell", tell)
    return request


def as_generator(function: Callable[..., Any]) -> Callable[..., Any]:
    """A generator function of what answers one request: as a generator, an iterator, or a text as a whole."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return function
    if inspect.iscoroutinefunction(function):
        return _awaited(function)
    call = type(function).__call__
    if inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
        return function
    return _awaited(function) if inspect.iscoroutinefunction(call) else _called(function)


def _called(function: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    def one(request: GenerateRequest) -> Generator[Any, Any, Any]:
        answer = function(request)
        if isinstance(answer, str | bytes):
            yield answer
            return "stop"
        return (yield from answer)

    return one


def _awaited(function: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
    async def one(request: GenerateRequest) -> AsyncIterator[Any]:
        answer = await function(request)
        if isinstance(answer, str | bytes):
            yield answer
            return
        async for piece in answer:
            yield piece

    return one
