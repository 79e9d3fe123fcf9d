"""Load with a name for every request, so that each can be found again at the server."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock.errors import PenstockError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import penstock
    from tests.interop.support.nginx import Exchange


@dataclass
class Account:
    """How every request ended: by its target, as a status or as the error that was raised."""

    ended: dict[str, int | PenstockError] = field(default_factory=dict)

    def failed(self) -> dict[str, Any]:
        return {target: end for target, end in self.ended.items() if end != 200}


async def one(client: penstock.AsyncClient, method: str, target: str, account: Account) -> None:
    """Sends one request and notes its one end; anything but an answer or an error of ours leaves through the task."""
    assert target not in account.ended
    try:
        response = await client.request(method, target)
    except PenstockError as error:
        account.ended[target] = error
        await asyncio.sleep(0)  # an error may come without a wait: whoever asks again at once lets others run
    else:
        account.ended[target] = response.status_code


class Load:
    """Tasks that send one request after the other, GET or POST, until they are told to stop."""

    def __init__(self, client: penstock.AsyncClient, *, tasks: int, path: str = "/") -> None:
        self.gets = Account()
        self.posts = Account()
        self._client = client
        self._path = path
        self._numbers = itertools.count()
        self._stopping = False
        self._tasks = [asyncio.create_task(self._run(index % 2 == 0)) for index in range(tasks)]

    @property
    def sent(self) -> int:
        return len(self.gets.ended) + len(self.posts.ended)

    async def _run(self, reads: bool) -> None:
        method, account = ("GET", self.gets) if reads else ("POST", self.posts)
        while not self._stopping:
            await one(self._client, method, f"{self._path}?n={next(self._numbers)}", account)

    async def stop(self) -> None:
        """Lets every request that is under way come to its end."""
        self._stopping = True
        await asyncio.wait_for(asyncio.gather(*self._tasks), 60)


def repeated(exchanges: Sequence[Exchange], method: str) -> dict[str, int]:
    """The requests of that method that reached the server more than once."""
    counts = Counter(exchange.target for exchange in exchanges if exchange.method == method)
    return {target: count for target, count in counts.items() if count > 1}
