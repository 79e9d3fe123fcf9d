"""What is asked of every server, and how fast its tokens shall come."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Flow:
    """How the tokens of a stream come.

    Attributes:
        burst: so many at once.
        pause_ms: so long until the next ones; the pauses of all streams end at the same moments.
        tokens: of each stream.
        bytes: of each token, where it is not a word; only our server has those.
    """

    burst: int
    pause_ms: int
    tokens: int
    bytes: int | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The request, for any of the servers."""
        size = "" if self.bytes is None else f" {self.bytes}"
        message = {"role": "user", "content": f"{self.burst} {self.pause_ms}{size}"}
        return {"model": "drip", "stream": True, "max_tokens": self.tokens, "messages": [message]}

    @property
    def seconds(self) -> float:
        """How long a stream lasts where nobody is late."""
        return self.tokens / self.burst * self.pause_ms / 1000

    def request(self) -> bytes:
        """The same as bytes of HTTP/1.1, without compression."""
        body = json.dumps(self.body).encode()
        head = (
            f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body
