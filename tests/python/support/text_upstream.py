"""A server of OpenAI's API that does to each request what a test says: raw sockets, so that every byte is known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.python.support.http_server import HttpServer, Peer, Received

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Answer = Callable[[Peer, Received], None]

EVENTS = {"Content-Type": "text/event-stream"}
JSON = {"Content-Type": "application/json"}


def event(text: str, **more: Any) -> bytes:
    """A token of a chat, with fields that nobody here knows."""
    choice = {"index": 0, "delta": {"content": text}, "logprobs": {"content": []}, **more}
    return b"data: " + json.dumps({"id": "up-1", "choices": [choice], "x_strange": {"a": 1}}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def begin(peer: Peer) -> None:
    """The head of a stream."""
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")


def stream(peer: Peer, pieces: Iterable[bytes]) -> None:
    """A whole stream, piece by piece."""
    begin(peer)
    for piece in pieces:
        peer.chunk(piece)
    peer.chunk(b"")


def upstream(answer: Answer, *names: str) -> HttpServer:
    """A server that lists models of those names, and answers what is asked of them so."""

    def behave(peer: Peer) -> None:
        for request in peer:
            if request.target == "/v1/models":
                rows = [{"id": name, "object": "model"} for name in names]
                peer.answer(json.dumps({"object": "list", "data": rows}), headers=JSON)
            elif request.target.startswith("/v1/models/"):
                name = request.target.removeprefix("/v1/models/").replace("%2F", "/")
                status = "200 OK" if name in names else "404 Not Found"
                peer.answer(json.dumps({"id": name}), status=status, headers=JSON)
            elif request.method == "GET" or request.target.startswith("/v2/"):
                peer.answer(json.dumps({"error": "there is nothing here"}), status="404 Not Found", headers=JSON)
            else:
                answer(peer, request)

    return HttpServer(behave)


def asked(server: HttpServer) -> list[dict[str, Any]]:
    """The bodies of what models were asked."""
    return [json.loads(each.body) for each in server.requests if each.target.startswith("/v1/") and each.body]
