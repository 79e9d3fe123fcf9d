"""tritonclient lists, loads and unloads the models of a server, over HTTP and gRPC."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import penstock
from tests.interop.support.served import place

with warnings.catch_warnings():
    # What these packages import is not ours to answer for.
    warnings.simplefilter("ignore")
    import tritonclient.grpc as triton
    import tritonclient.http as triton_http
    from tritonclient.utils import InferenceServerException

if TYPE_CHECKING:
    from collections.abc import Iterator

GRPC, HTTP = "gRPC", "HTTP"


@penstock.model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
class Double:
    def load(self, ctx: penstock.LoadContext) -> None:
        self.by = np.float32(2)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x * self.by


@penstock.model("treble", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])}, version="2")
def treble(x: np.ndarray) -> np.ndarray:
    return x * 3


@pytest.fixture(params=[GRPC, HTTP])
def either(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    with penstock.Server([Double, treble], port=0) as server:
        module, url = (triton, server.grpc_url) if request.param == GRPC else (triton_http, server.url)
        with module.InferenceServerClient(place(url)) as client:
            yield module, client


def rows(client: Any) -> dict[str, tuple[str, str]]:
    """Version and state of each model."""
    index = client.get_model_repository_index()
    if isinstance(index, list):
        return {row["name"]: (row["version"], row["state"]) for row in index}
    return {row.name: (row.version, row.state) for row in index.models}


def ask(module: Any, client: Any, model: str) -> list[list[float]]:
    array = np.ones((1, 2), np.float32)
    tensor = module.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(array)
    return client.infer(model, [tensor]).as_numpy("y").tolist()  # type: ignore[no-any-return]


def test_the_repository_is_listed_loaded_and_unloaded(either: tuple[Any, Any]) -> None:
    module, client = either
    assert rows(client) == {"double": ("1", "READY"), "treble": ("2", "READY")}
    assert client.is_server_ready()
    client.unload_model("double")
    assert rows(client)["double"] == ("1", "UNAVAILABLE")
    assert (client.is_model_ready("double"), client.is_model_ready("treble")) == (False, True)
    client.load_model("double")
    assert client.is_model_ready("double")
    client.load_model("double")
    assert ask(module, client, "double") == [[2, 2]]
    client.unload_model("treble", unload_dependents=True)
    assert not client.is_model_ready("treble")
    assert ask(module, client, "treble") == [[3, 3]], "a request has it loaded again"
    assert client.is_model_ready("treble")
    assert client.is_server_ready()


def test_what_cannot_be_is_refused(either: tuple[Any, Any]) -> None:
    module, client = either
    for ask_for in (
        lambda: client.load_model("nobody"),
        lambda: client.unload_model("nobody"),
        lambda: client.load_model("double", config="{}"),
    ):
        with pytest.raises(InferenceServerException, match=r"nobody|config"):
            ask_for()
    assert ask(module, client, "double") == [[2, 2]]


def test_the_server_names_the_extension(either: tuple[Any, Any]) -> None:
    module, client = either
    metadata = client.get_server_metadata()
    extensions = metadata["extensions"] if module is triton_http else list(metadata.extensions)
    assert {"model_repository", "model_repository(unload_dependents)"} <= set(extensions)
