"""A model that leaks: a limit of its process bounds it, its requests fail by name, and the others do not notice."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

import penstock
from penstock import Server
from penstock.errors import PenstockError
from tests.python.support.leaking import Leaky, steady

X = {"x": np.ones((1, 1), np.float32)}


def _until_full(client: penstock.Client) -> None:
    with pytest.raises(PenstockError, match="MemoryError"):
        _ask_often(client)


def _ask_often(client: penstock.Client) -> None:
    for _ in range(64):
        assert client.infer("leaky", X)["y"][0, 0] == 1


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_model_that_leaks_meets_the_limit_of_its_process_alone() -> None:
    with Server([Leaky, steady], port=0) as server, penstock.Client(server.url) as client:
        before = _resident_bytes()
        _until_full(client)
        # It is full, and says so to each; nobody else is.
        for _ in range(3):
            with pytest.raises(PenstockError, match="MemoryError"):
                client.infer("leaky", X)
            assert client.infer("steady", X)["y"][0, 0] == 1
        assert _resident_bytes() - before < 128 << 20, "what the model kept is none of the server's"
        # Loaded anew it has a new process.
        assert client.post("/v2/repository/models/leaky/load").status_code == 200
        assert client.infer("leaky", X)["y"][0, 0] == 1
        _until_full(client)
        # So it has where the system ends the one that is full, as it does when memory runs out.
        assert server._native is not None
        (number,) = server._native.process_numbers(0)
        os.kill(number, signal.SIGKILL)
        assert client.infer("leaky", X)["y"][0, 0] == 1
        assert server._native.process_numbers(0) != [number]
        assert client.infer("steady", X)["y"][0, 0] == 1
