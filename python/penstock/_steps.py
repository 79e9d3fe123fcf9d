"""Functions that are generators: a batch that is answered step by step, while requests leave and join it."""

from __future__ import annotations

import inspect
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

from penstock.errors import ConfigError, ItemError, OutputError, StreamError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
    from typing import Self

    from penstock import _native

R = TypeVar("R")

STREAM_BUFFER = 1024
"""Values that the reader of a stream may be behind its batch; from there on its request pauses."""

SlowReader = Literal["pause", "buffer", "drop"]
"""What a stream does whose reader is too slow: it takes no part in the steps for a while, keeps everything, or leaves
out what the reader has no room for."""

Changes: TypeAlias = tuple[list[int], list[int], list[int], bool]
"""Of a batch: who is out, who takes no part for now, who does again; and whether it has to wait for its readers."""

_NONE: Any = object()


class Batch:
    """A batch that is being run by a generator, which `penstock.batched` gives it instead of the items.

    Every request has an index for as long as it is in the batch: 0 for the first, and so on; those who join later go on
    counting. Each `yield` is one step for all that are live: an array or a list with one value for each of `live`, in
    that order, or a dictionary of values by index, or `None` where the step had no values. An `ItemError` in a value's
    place fails that request and no other. When the function returns, what is still live is finished.

    A caller that leaves (cancelled, timed out, a stream that was closed) is out of `live` after the next `yield`. Where
    all that are left leave, the generator is closed.

    A request whose reader is too slow takes no part for a while: it is in `paused`, and not in `live`, from the next
    `join` on (without one, from the `yield` on), and comes back at another. Keep what you know of it until it is
    finished. To see who is done after a step, look at those whom the step was for. Where all are too slow, the `yield`
    waits.

    Example:
        >>> import asyncio, penstock
        >>> @penstock.batched(max_batch_size=8)
        ... def count_down(batch):
        ...     left = {}
        ...     while batch.live:
        ...         step = {}
        ...         for i in batch:
        ...             left[i] = left.get(i, batch[i] + 1) - 1
        ...             step[i] = left[i]
        ...         yield step
        ...         for i in batch.live:
        ...             if left[i] == 0:
        ...                 batch.finish(i)
        ...         batch.join()
        >>> async def main():
        ...     return await asyncio.gather(count_down(3), count_down(1))
        >>> asyncio.run(main())
        [[3, 2, 1, 0], [1, 0]]
    """

    def __init__(self, steps: _native.Steps, inputs: Inputs | None = None) -> None:
        self._steps = steps
        self._served = steps.is_served
        self._text = steps.is_text
        self._declared = inputs
        self._riders: dict[int, _Rider] = {}
        self._resting: dict[int, _Rider] = {}
        self._known = 0
        self._gone = False
        self._add(steps.columns, steps.size, steps.lengths)

    @property
    def live(self) -> list[int]:
        """The indices of the requests that take part in the next step, in the order in which they came."""
        return list(self._riders)

    @property
    def paused(self) -> list[int]:
        """The indices of the requests that take no part for now, because their readers are too slow; they come back."""
        return list(self._resting)

    def __len__(self) -> int:
        """How many requests are live."""
        return len(self._riders)

    def __iter__(self) -> Iterator[int]:
        """The indices of `live`, as they are now: a request may be finished meanwhile."""
        return iter(self.live)

    def __contains__(self, index: object) -> bool:
        """True where the request is live."""
        return index in self._riders

    def __getitem__(self, index: int) -> Any:
        """What a live request gave, as it was given: its item; of several positional arguments, a tuple.

        Its arrays are copies. Items of any shapes and types share a batch.

        Raises:
            IndexError: where no live request has that index.
        """
        rider = self._riders.get(index) or self._resting.get(index)
        if rider is None:
            raise IndexError(f"no live request has the index {index}; live are {self.live}")
        return rider.item()

    @property
    def inputs(self) -> dict[int, dict[str, Any]]:
        """Of a served model: the inputs of each live request by name, by index.

        Raises:
            ConfigError: in a function that is not served.
        """
        if self._declared is None:
            raise ConfigError("only a served model has declared inputs: look at batch[i]")
        names = self._declared.names
        return {index: dict(zip(names, rider.parts(), strict=True)) for index, rider in self._riders.items()}

    def finish(self, index: int, value: Any = _NONE) -> None:
        """Gives a request its result and takes it out of the batch. One that has left already is none of your concern.

        Args:
            index: of the request.
            value: its result; without it, the list of the values of its steps. The reader of a stream, who has those,
                is not given it. Of a text model, why the text is over: `"stop"`, `"length"`, or nothing.

        Raises:
            IndexError: where no request ever had that index.
        """
        if self._text and not (value is _NONE or value is None or isinstance(value, str)):
            raise TypeError(f"a text is finished with the reason as a str, or with nothing, not with {value!r}")
        rider = self._leave(index)
        if rider is None:
            return
        own = value is _NONE
        if self._text:
            self._follow(self._steps.end_steps([(index, (None if own else value, rider.prompt_tokens()))]))
        else:
            self._follow(self._steps.finish([(index, rider.values if own else value)], own))

    def fail(self, index: int, error: BaseException) -> None:
        """Fails a request and takes it out of the batch.

        An `ItemError` is raised as it is, anything else as the cause of a `ModelError`.

        Raises:
            IndexError: where no request ever had that index.
        """
        if not isinstance(error, BaseException):
            raise TypeError(f"a request fails with an exception, not with {error!r}")
        if self._leave(index) is not None:
            self._follow(self._steps.fail([index], error))

    def join(self, limit: int | None = None) -> list[int]:
        """Takes requests that wait for a batch like this one: of the same keyword arguments and `key`.

        Args:
            limit: take so many at most; the batch never has more than `max_batch_size` at a time.

        Returns:
            Their indices; none where nobody waits. It never blocks.
        """
        room = self._steps.largest - len(self._riders) - len(self._resting)
        joined, changes = self._steps.join(max(0, room if limit is None else min(limit, room)))
        if joined is None:
            self._follow(changes)
            return []
        columns, first, count, lengths = joined
        self._known = first
        self._add(columns, count, lengths)
        self._follow(changes)
        return list(range(first, first + count))

    def remaining(self) -> float | None:
        """Seconds until the earliest deadline of a live request; `None` where none has one."""
        return self._steps.remaining(self.live)

    def __repr__(self) -> str:
        return f"<penstock.Batch live={self.live}>"

    def _add(self, columns: tuple[Any, ...], count: int, lengths: list[int]) -> None:
        for row in range(count):
            index = self._known + row
            feed = None if self._served else self._steps.feed(index)
            if feed is not None and feed.slow_reader == "pause" and not self._steps.may_wait:
                feed.slow_reader = "fail"
            rider = _Rider(columns, row, feed)
            if self._declared is not None:
                rider.make = self._declared.make
                rider.note_prompt = partial(self._steps.note_prompt, index) if rider.make is not None else None
                if lengths:
                    rider.padded, rider.length = self._declared.padded, lengths[row]
            self._riders[index] = rider
        self._known += count

    def _leave(self, index: int) -> _Rider | None:
        rider = self._riders.pop(index, None) or self._resting.pop(index, None)
        if rider is None and (isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < self._known):
            raise IndexError(f"no request has the index {index}")
        return rider

    def _step(self, yielded: Any) -> bool:
        """Takes the values of a step, and lets go of those who left; false where the batch has to wait for readers."""
        if self._served:
            return not self._follow(self._steps.step(yielded))
        if yielded is not None:
            self._give(*self._values(yielded))
        return not self._follow(self._steps.stepped())

    def _wait(self) -> None:
        """Waits until somebody's reader has room, or somebody has left or could join."""
        while self._follow(self._steps.wait()):
            pass

    async def _wait_async(self) -> None:
        waits = True
        while waits:
            changed = self._steps.listen()
            waits = self._follow(self._steps.look())
            if waits:
                await changed

    def _follow(self, changes: Changes | None) -> bool:
        """Does as the extension says of who takes part; true where the batch has to wait."""
        if changes is None:
            return False
        gone, paused, again, waits = changes
        for index in gone:
            self._gone = True
            if self._riders.pop(index, None) is None:
                self._resting.pop(index, None)
        for index in paused:
            self._resting[index] = self._riders.pop(index)
        if again:
            self._riders.update({index: self._resting.pop(index) for index in again})
            self._riders = dict(sorted(self._riders.items()))
        return waits

    @property
    def _deserted(self) -> bool:
        """True where everybody that was left has left."""
        return self._gone and not self._riders and not self._resting

    def _values(self, yielded: Any) -> tuple[list[int], list[Any]]:
        if not isinstance(yielded, dict):
            indices = self.live
            return indices, self._steps.rows(yielded, len(indices))
        for index in yielded:
            if index not in self._riders:
                raise OutputError(f"a step has a value for {index!r}, which is not live; live are {self.live}")
        return list(yielded), self._steps.rows(list(yielded.values()), len(yielded))

    def _give(self, indices: list[int], values: list[Any]) -> None:
        streamed: list[tuple[int, Any]] = []
        for index, value in zip(indices, values, strict=True):
            rider = self._riders[index]
            if isinstance(value, ItemError):
                self.fail(index, value)
            elif rider.feed is None:
                rider.values.append(value)
            elif rider.feed.takes():
                streamed.append((index, value))
            elif rider.feed.slow_reader == "fail":
                del self._riders[index]
                self._follow(self._steps.refuse(index, StreamError(f"the reader is {STREAM_BUFFER} values behind")))
        if streamed:
            self._steps.send(streamed)

    def _end(self) -> None:
        missed, self._resting = self._resting, {}
        for index in missed:
            self._steps.refuse(index, StreamError("the function ended while the reader was too slow for it"))
        riders, self._riders = self._riders, {}
        if riders and self._text:
            self._steps.end_steps([(index, (None, rider.prompt_tokens())) for index, rider in riders.items()])
        elif riders:
            self._steps.finish([(index, rider.values) for index, rider in riders.items()], True)  # noqa: FBT003


@dataclass(frozen=True)
class Inputs:
    """What a served model declares: the names of its inputs, and which of them has rows of any length.

    `make` makes of the one text of a text model what `batch[i]` gives; what it is given beside is to be told how many
    tokens the prompt has.
    """

    names: tuple[str, ...]
    padded: int | None
    make: Callable[[str, Callable[[int], None] | None], Any] | None = None


class _Rider:
    """A live request: its row, and the values of its steps or where they go."""

    __slots__ = ("columns", "feed", "length", "made", "make", "note_prompt", "padded", "row", "values")

    def __init__(self, columns: tuple[Any, ...], row: int, feed: Feed | None) -> None:
        self.columns = columns
        self.row = row
        self.feed = feed
        self.values: list[Any] = []
        self.padded: int | None = None
        self.length = 0
        self.make: Callable[[str, Callable[[int], None] | None], Any] | None = None
        self.note_prompt: Callable[[int], None] | None = None
        self.made: Any = None

    def parts(self) -> tuple[Any, ...]:
        rows = (column[self.row] for column in self.columns)
        return tuple(row[: self.length] if at == self.padded else row for at, row in enumerate(rows))

    def item(self) -> Any:
        if self.make is not None:
            # Always the same one: what is noted on it is told at once.
            if self.made is None:
                self.made = self.make(self.columns[0][self.row], self.note_prompt)
            return self.made
        parts = self.parts()
        return parts[0] if len(parts) == 1 else parts

    def prompt_tokens(self) -> int | None:
        """How many tokens the prompt has, where the model has noted it."""
        count = getattr(self.made, "prompt_tokens", None)
        return count if isinstance(count, int) and count >= 0 else None


def is_stepwise(function: object) -> bool:
    """True for a generator function, async or not, and for an object that is called as one."""
    return _is(function, inspect.isgeneratorfunction) or is_async_stepwise(function)


def is_async_stepwise(function: object) -> bool:
    """True for an async generator function."""
    return _is(function, inspect.isasyncgenfunction)


def _is(function: object, kind: Callable[[object], bool]) -> bool:
    return kind(function) or (not inspect.isclass(function) and kind(type(function).__call__))


def driven(function: Callable[..., Generator[Any]], inputs: Inputs | None = None) -> Callable[..., None]:
    """The function over a whole batch that drives a generator."""

    def run(steps: _native.Steps, **keywords: Any) -> None:
        batch = Batch(steps, inputs)
        generator = function(batch, **keywords)
        try:
            for yielded in generator:
                if not batch._step(yielded):  # noqa: SLF001  one module
                    batch._wait()  # noqa: SLF001  as above
                if batch._deserted:  # noqa: SLF001  as above
                    break
        finally:
            generator.close()
        batch._end()  # noqa: SLF001  as above

    return run


def driven_async(
    function: Callable[..., AsyncGenerator[Any]], inputs: Inputs | None = None
) -> Callable[..., Coroutine[Any, Any, None]]:
    """As `driven`, for an async generator."""

    async def run(steps: _native.Steps, **keywords: Any) -> None:
        batch = Batch(steps, inputs)
        generator = function(batch, **keywords)
        try:
            async for yielded in generator:
                if not batch._step(yielded):  # noqa: SLF001  as above
                    await batch._wait_async()  # noqa: SLF001  as above
                if batch._deserted:  # noqa: SLF001  as above
                    break
        finally:
            await generator.aclose()
        batch._end()  # noqa: SLF001  as above

    return run


def driven_each(function: Callable[[Any], Generator[Any, None, Any]], inputs: Inputs) -> Callable[..., None]:
    """The function over a batch of one that drives a generator over one request; it returns why its text is over."""

    def run(steps: _native.Steps, **keywords: Any) -> None:
        batch = Batch(steps, inputs)
        (index,) = batch.live
        generator = function(batch[index], **keywords)
        say = steps.step
        try:
            for piece in (ended := _Ended(generator)):
                changes = say([piece])
                if changes is not None:
                    if batch._follow(changes):  # noqa: SLF001  as above
                        batch._wait()  # noqa: SLF001  as above
                    if batch._deserted:  # noqa: SLF001  as above
                        return
        finally:
            generator.close()
        batch.finish(index, ended.value)

    return run


def driven_each_async(
    function: Callable[[Any], AsyncGenerator[Any]], inputs: Inputs
) -> Callable[..., Coroutine[Any, Any, None]]:
    """As `driven_each`, for an async generator, which returns nothing."""

    async def run(steps: _native.Steps, **keywords: Any) -> None:
        batch = Batch(steps, inputs)
        (index,) = batch.live
        generator = function(batch[index], **keywords)
        say = steps.step
        try:
            async for piece in generator:
                changes = say([piece])
                if changes is not None:
                    if batch._follow(changes):  # noqa: SLF001  as above
                        await batch._wait_async()  # noqa: SLF001  as above
                    if batch._deserted:  # noqa: SLF001  as above
                        return
        finally:
            await generator.aclose()
        batch.finish(index, None)

    return run


class _Ended:
    """What a generator yields, and what it has returned once it is at its end."""

    __slots__ = ("_generator", "value")

    def __init__(self, generator: Generator[Any, None, Any]) -> None:
        self._generator = generator
        self.value: Any = None

    def __iter__(self) -> Generator[Any]:
        self.value = yield from self._generator


class Feed:
    """Between a batch and the reader of a stream: the batch counts what it sends, the reader what it took."""

    __slots__ = ("done", "dropped", "left", "paused", "ring", "sent", "slow_reader", "taken", "values", "waiting")

    def __init__(self, slow_reader: SlowReader = "pause", ring: Callable[[], None] | None = None) -> None:
        self.slow_reader: SlowReader | Literal["fail"] = slow_reader
        self.ring: Callable[[], None] | None = ring
        self.values: deque[Any] = deque()
        self.sent: int = 0
        self.taken: int = 0
        self.dropped: int = 0
        self.paused: bool = False
        self.left: bool = False
        self.waiting: asyncio.Future[None] | None = None
        self.done: asyncio.Future[Any] | None = None

    def takes(self) -> bool:
        """Counts a value that is about to be sent; false where it is left out, or ends the stream."""
        if self.slow_reader in {"drop", "fail"} and self.sent - self.taken >= STREAM_BUFFER:
            self.dropped += 1
            return False
        self.sent += 1
        return True

    def is_slow(self) -> bool:
        """True where the batch is to go on without this reader for now: until it has taken half of what it has."""
        if self.slow_reader != "pause":
            return False
        was, self.paused = self.paused, True
        # Whoever takes a value from here on sees that he is waited for.
        behind = self.sent - self.taken
        self.paused = behind > STREAM_BUFFER // 2 if was else behind >= STREAM_BUFFER
        return self.paused

    def take(self) -> Any:
        """The next value, for the reader."""
        self.taken += 1
        if self.paused and self.ring is not None and self.sent - self.taken <= STREAM_BUFFER // 2:
            self.ring()
        return self.values.popleft()

    def leave(self) -> None:
        """Notes that the reader wants no more. Whichever thread this is: the batch looks at it between two steps."""
        self.left = True
        if self.paused and self.ring is not None:
            self.ring()
        self.wake()

    def push(self, value: Any) -> None:
        """Takes a value, on the reader's loop."""
        self.values.append(value)
        self.wake()

    def wake(self, _: object = None) -> None:
        """Wakes the reader."""
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(None)


class Stream(Generic[R]):
    """The values of one request's steps, as they come: an async iterator, made by `Batcher.stream`.

    Leaving it (`break`, `aclose`, cancelling its reader, dropping it) takes the request out of its batch within one
    step. The failure of the request is raised after the values that came before it.

    A reader that falls 1024 values behind never holds the others of its batch up. Its request pauses: it takes no part
    in the steps until the reader has taken half of them. `Batcher.options(slow_reader=...)` says otherwise. The reader
    of an `"inline"` batcher, which cannot wait for the loop that it runs on, gets `StreamError`.
    """

    def __init__(
        self,
        submit: Callable[[Feed], asyncio.Future[Any]],
        slow_reader: SlowReader = "pause",
        ring: Callable[[], None] | None = None,
    ) -> None:
        self._feed = Feed(slow_reader, ring)
        self._ended = False
        self._feed.done = submit(self._feed)
        self._feed.done.add_done_callback(_noted)
        self._feed.done.add_done_callback(self._feed.wake)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        """The next value.

        Raises:
            StreamError: where the reader of an inline batcher is too far behind.
            PenstockError: what the request failed with.
        """
        feed = self._feed
        while not feed.values:
            done = feed.done
            if self._ended or done is None or feed.left:
                raise StopAsyncIteration
            if done.done():
                self._ended = True
                done.result()
                raise StopAsyncIteration
            if feed.waiting is not None:
                raise ConfigError("a stream has one reader at a time")
            feed.waiting = done.get_loop().create_future()
            try:
                await feed.waiting
            finally:
                feed.waiting = None
        value: R = feed.take()
        return value

    async def aclose(self) -> None:
        """Leaves the stream. Safe to call twice."""
        self._leave()
        if self._feed.done is not None:
            self._feed.done.cancel()
        self._feed.values.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # Whichever thread this is: the batch looks at it between two steps.
        self._leave()

    def _leave(self) -> None:
        self._feed.leave()


def _noted(done: asyncio.Future[Any]) -> None:
    """A stream that nobody reads to its end need not complain of a failure."""
    if not done.cancelled():
        done.exception()
