"""Context variables: a function sees those of its definition and no caller's."""

from __future__ import annotations

import asyncio
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING

import pytest

from penstock import Batcher, batched

if TYPE_CHECKING:
    from collections.abc import Callable

WHO: ContextVar[str] = ContextVar("who", default="nobody")


def who(x: list) -> list:
    return [WHO.get()] * len(x)


async def async_who(x: list) -> list:
    await asyncio.sleep(0)
    return [WHO.get()] * len(x)


def write(x: list) -> list:
    before = WHO.get()
    WHO.set(x[0])
    return [before] * len(x)


KINDS = {"worker": (who, 1), "workers": (who, 3), "inline": (who, "inline"), "async": (async_who, 1)}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


def defined_by(name: str | None, fn: Callable, workers: int | str) -> Batcher:
    """A batcher that was defined in a context of its own, empty where nobody is named."""

    def define() -> Batcher:
        if name is not None:
            WHO.set(name)
        return batched(fn, workers=workers)

    return Context().run(define)


@EVERY_KIND
@pytest.mark.parametrize(("name", "seen"), [("author", "author"), (None, "nobody")])
async def test_the_function_sees_the_context_of_its_definition_and_not_the_callers(
    kind: str, name: str | None, seen: str
) -> None:
    f = defined_by(name, *KINDS[kind])

    async def caller(number: int) -> str:
        WHO.set(f"caller {number}")
        return await f("x")

    assert set(await asyncio.gather(*map(caller, range(5)))) == {seen}


@EVERY_KIND
@pytest.mark.parametrize(("name", "seen"), [("author", "author"), (None, "nobody")])
def test_call_shows_the_function_the_context_of_its_definition(kind: str, name: str | None, seen: str) -> None:
    f = defined_by(name, *KINDS[kind])

    def caller() -> str:
        WHO.set("caller")
        return f.call("x")

    assert copy_context().run(caller) == seen


@pytest.mark.parametrize("workers", [1, "inline"])
async def test_what_a_function_sets_reaches_no_caller(workers: int | str) -> None:
    f = defined_by("author", write, workers)
    WHO.set("caller")
    assert await f("changed") == "author"
    assert WHO.get() == "caller"
    assert f.call("changed") in ("author", "changed")
    assert WHO.get() == "caller"


@pytest.mark.parametrize("workers", [1, "inline"])
async def test_setting_a_variable_after_the_definition_does_not_reach_the_function(workers: int | str) -> None:
    WHO.set("before")
    f = batched(who, workers=workers)
    WHO.set("after")
    assert await f("x") == "before"


async def test_a_callback_of_the_future_runs_in_the_context_of_its_owner() -> None:
    f = batched(who)
    seen = []
    WHO.set("owner")
    future = f("x")
    future.add_done_callback(lambda _: seen.append(WHO.get()))
    WHO.set("later")
    await future
    await asyncio.sleep(0)
    assert seen == ["owner"]


async def test_a_batched_function_can_call_another_from_any_context() -> None:
    inner = defined_by("inner", who, "inline")
    outer = defined_by("outer", lambda x: [f"{WHO.get()} {inner.call(item)}" for item in x], "inline")
    assert await outer("x") == "outer inner"
