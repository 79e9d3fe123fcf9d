"""A model that leaks: a limit of its process bounds it, its requests fail by name, and the others do not notice."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

import penstock
from penstock import Server
from penstock.errors import ModelError, PenstockError
from tests.python.support.leaking import leaky, steady
from tests.python.support.waiting import until

X = {"x": np.ones((1, 1), np.float32)}


def _until_full(client: penstock.Client) -> PenstockError:
    for _ in range(64):
        try:
            assert client.infer("leaky", X)["y"][0, 0] == 1
        except PenstockError as error:
            return error
    raise AssertionError("nothing bounded it")


def test_a_model_that_leaks_meets_the_limit_of_its_process_alone() -> None:
    with Server([leaky, steady], port=0) as server, penstock.Client(server.url) as client:
        before = _resident_bytes()
        error = _until_full(client)
        assert "MemoryError" in str(error), error
        # It is full, and says so to each, at once; nobody else is.
        for _ in range(3):
            with pytest.raises(PenstockError, match="MemoryError"):
                client.infer("leaky", X)
            assert client.infer("steady", X)["y"][0, 0] == 1
        assert _resident_bytes() - before < 128 << 20
        # What is loaded anew has a process of its own again.
        assert client.post("/v2/repository/models/leaky/load").status_code == 200
        assert client.infer("leaky", X)["y"][0, 0] == 1
        # And one that the system ends, as it does where its memory is used up, is replaced.
        full = _until_full(client)
        assert "MemoryError" in str(full)
        (number,) = server.stats().models["leaky"].processes if hasattr(server.stats().models["leaky"], "processes") else (0,)
        if number:
            os.kill(number, signal.SIGKILL)
            until(lambda: client.infer("leaky", X)["y"][0, 0] == 1)
    assert issubclass(ModelError, PenstockError)


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
