"""Clients that other people wrote, each against a real server."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import subprocess
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import ml_dtypes
import numpy as np
import pytest
import requests
import urllib3

from penstock import Server, model
from tests.python.support.arrays import same, sample
from tests.python.support.waiting import PATIENCE

with warnings.catch_warnings():
    # What these packages import is not ours to answer for.
    warnings.simplefilter("ignore")
    import tritonclient.http as triton
    import tritonclient.http.aio as triton_aio
    from tritonclient.utils import InferenceServerException

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

NUMBERS = {
    "BOOL": "bool",
    **{f"INT{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "FP16": "float16",
    "BF16": "bfloat16",
    "FP32": "float32",
    "FP64": "float64",
}
TENSORS = {
    **{datatype.lower(): (element, [3]) for datatype, element in NUMBERS.items()},
    "text": ("string", [2]),
    "raw": ("bytes", [2]),
}
X = {"x": ("float32", [2])}
ROW = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, -2]}]}
BODY = json.dumps(ROW).encode()
DOUBLED = [3.0, -4.0]


@model("mirror", inputs=TENSORS, outputs=TENSORS)
def mirror(*tensors: Any) -> dict[str, Any]:
    return dict(zip(TENSORS, tensors, strict=True))


@model("double", inputs=X, outputs={"y": ("float32", [2])})
def double(x: Any) -> Any:
    return x * np.float32(2)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server([mirror, double], port=0) as server:
        yield server


@pytest.fixture(scope="module")
def narrow() -> Iterator[Server]:
    with Server([double], port=0, max_body="16KiB") as server:
        yield server


def address(server: Server) -> str:
    return server.url.removeprefix("http://")


def infer_url(server: Server) -> str:
    return f"{server.url}/v2/models/double/infer"


def doubled(body: bytes | str) -> list[float]:
    data: list[float] = json.loads(body)["outputs"][0]["data"]
    return data


def numbered(number: int) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [number, 0]}]}


# tritonclient


def everything() -> dict[str, np.ndarray]:
    arrays = {datatype.lower(): _finite(element) for datatype, element in NUMBERS.items()}
    arrays["text"] = np.array([["", "zwölf 😀"], ["b", 'c"\\']], object)
    arrays["raw"] = np.array([[b"", b"ab"], [b"c", b"d\0"]], object)
    return arrays


def _finite(element: str) -> np.ndarray:
    """What JSON has a word for."""
    if element == "bfloat16":
        return np.array([[1.5, -2, 0], [3.25e38, 1e-30, -0.0]], ml_dtypes.bfloat16)
    array = sample(element, (2, 3), seed=7)
    return np.where(np.isfinite(array), array, 1).astype(element) if "float" in element else array


def datatype_of(name: str) -> str:
    return "BYTES" if name in {"text", "raw"} else name.upper()


def triton_inputs(module: Any, arrays: dict[str, np.ndarray], *, binary: bool) -> list[Any]:
    inputs = []
    for name, array in arrays.items():
        tensor = module.InferInput(name, list(array.shape), datatype_of(name))
        # tritonclient sends bfloat16 as binary data only.
        tensor.set_data_from_numpy(array, binary_data=binary or name == "bf16")
        inputs.append(tensor)
    return inputs


def triton_outputs(module: Any, *, binary: bool) -> list[Any]:
    return [module.InferRequestedOutput(name, binary_data=binary or name == "bf16") for name in TENSORS]


def assert_mirrored(result: Any, arrays: dict[str, np.ndarray], *, binary: bool) -> None:
    for name, array in arrays.items():
        came = result.as_numpy(name)
        if name in {"text", "raw"}:
            texts = [value if isinstance(value, bytes) else str(value).encode() for value in came.ravel()]
            expected = [value if isinstance(value, bytes) else value.encode() for value in array.ravel()]
            assert (texts, came.shape) == (expected, array.shape), name
        else:
            assert same(came, array), f"{name}: {came!r} is not {array!r}"


@pytest.fixture
def triton_client(server: Server) -> Iterator[Any]:
    client = triton.InferenceServerClient(address(server), concurrency=8)
    yield client
    client.close()


@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("binary_in", [True, False])
def test_triton_sends_and_reads_every_datatype(triton_client: Any, binary_in: bool, binary_out: bool) -> None:
    arrays = everything()
    result = triton_client.infer(
        "mirror",
        triton_inputs(triton, arrays, binary=binary_in),
        outputs=triton_outputs(triton, binary=binary_out),
        request_id="einundzwanzig",
    )
    assert_mirrored(result, arrays, binary=binary_out)
    told = result.get_response()
    assert (told["id"], told["model_name"], told["model_version"]) == ("einundzwanzig", "mirror", "1")


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_triton_packs_what_it_sends(triton_client: Any, packing: str) -> None:
    arrays = everything()
    for binary in (True, False):
        result = triton_client.infer(
            "mirror",
            triton_inputs(triton, arrays, binary=binary),
            request_compression_algorithm=packing,
            response_compression_algorithm=packing,
        )
        assert_mirrored(result, arrays, binary=True)


def test_triton_gets_the_outputs_that_it_asks_for(triton_client: Any) -> None:
    inputs = triton_inputs(triton, everything(), binary=True)
    wanted = [triton.InferRequestedOutput("int8", binary_data=False), triton.InferRequestedOutput("fp64")]
    result = triton_client.infer("mirror", inputs, outputs=wanted)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["int8", "fp64"]
    assert result.as_numpy("uint8") is None


def test_triton_sees_what_there_is(triton_client: Any) -> None:
    assert triton_client.is_server_live()
    assert triton_client.is_server_ready()
    assert triton_client.is_model_ready("mirror", "1")
    assert not triton_client.is_model_ready("nobody")
    assert triton_client.get_server_metadata()["name"] == "penstock"
    metadata = triton_client.get_model_metadata("mirror")
    declared = {tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in metadata["inputs"]}
    assert declared == {name: (datatype_of(name), [-1, *axes]) for name, (_, axes) in TENSORS.items()}


def test_triton_tells_what_was_wrong(triton_client: Any) -> None:
    row = np.ones((1, 2), np.float32)
    for name, version, array, words in (
        ("nobody", "", row, "nobody"),
        ("double", "9", row, "version '9'"),
        ("double", "", np.ones((1, 3), np.float32), r"shape \[1, 3\]"),
        ("double", "", np.ones((1, 2), np.float64), "FP64"),
    ):
        tensor = triton.InferInput("x", list(array.shape), "FP64" if array.dtype == np.float64 else "FP32")
        tensor.set_data_from_numpy(array)
        with pytest.raises(InferenceServerException, match=words):
            triton_client.infer(name, [tensor], model_version=version)
    tensor = triton.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(row)
    assert triton_client.infer("double", [tensor]).as_numpy("y").tolist() == [[2, 2]]


def test_triton_asks_many_things_at_once(triton_client: Any) -> None:
    pending = []
    for number in range(64):
        tensor = triton.InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.array([[number, -number]], np.float32), binary_data=number % 2 == 0)
        pending.append(triton_client.async_infer("double", [tensor], request_id=str(number)))
    for number, request in enumerate(pending):
        result = request.get_result(timeout=PATIENCE)
        assert result.as_numpy("y").tolist() == [[number * 2, -number * 2]]
        assert result.get_response()["id"] == str(number)


async def test_triton_aio(server: Server) -> None:
    arrays = everything()
    async with triton_aio.InferenceServerClient(address(server)) as client:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata("double"))["versions"] == ["1"]
        for packing in (None, "gzip", "deflate"):
            inputs = triton_inputs(triton_aio, arrays, binary=True)
            result = await client.infer("mirror", inputs, request_compression_algorithm=packing)
            assert_mirrored(result, arrays, binary=True)
        with pytest.raises(InferenceServerException, match="nobody"):
            await client.infer("nobody", inputs)

        async def one(number: int) -> Any:
            tensor = triton_aio.InferInput("x", [1, 2], "FP32")
            tensor.set_data_from_numpy(np.array([[number, 0]], np.float32))
            return (await client.infer("double", [tensor])).as_numpy("y")[0, 0]

        assert await asyncio.gather(*map(one, range(40))) == [number * 2 for number in range(40)]


# httpx


def test_httpx_speaks_http2_by_prior_knowledge(server: Server) -> None:
    with httpx.Client(http1=False, http2=True, timeout=PATIENCE) as client:
        for number in range(20):
            answer = client.post(infer_url(server), json=numbered(number))
            assert (answer.http_version, doubled(answer.content)) == ("HTTP/2", [number * 2, 0])
        assert client.get(f"{server.url}/nowhere").status_code == 404
        answer = client.head(f"{server.url}/v2")
        assert (answer.status_code, answer.content) == (200, b"")
        packed = client.post(infer_url(server), content=gzip.compress(BODY), headers={"content-encoding": "gzip"})
        assert doubled(packed.content) == DOUBLED
        assert server.stats().connections >= 1


async def test_httpx_opens_many_streams(server: Server) -> None:
    async with httpx.AsyncClient(http1=False, http2=True, timeout=PATIENCE) as client:
        await client.get(f"{server.url}/v2")
        before = server.stats().connections

        async def one(number: int) -> list[float]:
            return doubled((await client.post(infer_url(server), json=numbered(number))).content)

        answers = await asyncio.gather(*map(one, range(200)))
        assert answers == [[number * 2, 0] for number in range(200)]
        assert server.stats().connections == before, "one connection was enough"


def test_httpx_sends_a_body_of_unknown_length(server: Server) -> None:
    pieces = (BODY[at : at + 7] for at in range(0, len(BODY), 7))
    with httpx.Client(timeout=PATIENCE) as client:
        answer = client.post(infer_url(server), content=pieces)
        assert (answer.http_version, doubled(answer.content)) == ("HTTP/1.1", DOUBLED)
        assert "queue;dur=" in answer.headers["server-timing"]


# aiohttp


async def test_aiohttp(server: Server) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(BODY), 11):
            yield BODY[at : at + 11]

    url = infer_url(server)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as session:
        for arguments in (
            {"json": ROW},
            {"data": pieces()},
            {"data": BODY, "compress": "gzip"},
            {"data": BODY, "compress": "deflate"},
            {"data": BODY, "expect100": True},
        ):
            async with session.post(url, **arguments) as answer:
                assert (answer.status, doubled(await answer.read())) == (200, DOUBLED), arguments
        async with session.post(url, data=b"{") as answer:
            assert (answer.status, answer.content_type) == (400, "application/json")
            assert "error" in await answer.json()

        async def one(number: int) -> list[float]:
            async with session.post(url, json=numbered(number)) as answer:
                return doubled(await answer.read())

        assert await asyncio.gather(*map(one, range(100))) == [[number * 2, 0] for number in range(100)]


# requests and urllib3


def test_requests(server: Server) -> None:
    url = infer_url(server)
    with requests.Session() as session:
        for arguments in (
            {"json": ROW},
            {"data": (BODY[at : at + 9] for at in range(0, len(BODY), 9))},
            {"data": gzip.compress(BODY, mtime=0), "headers": {"content-encoding": "gzip"}},
            {"data": zlib.compress(BODY), "headers": {"content-encoding": "deflate"}},
        ):
            answer = session.post(url, timeout=PATIENCE, **arguments)
            assert (answer.status_code, doubled(answer.content)) == (200, DOUBLED)
        answer = session.post(url, json={"inputs": []}, timeout=PATIENCE)
        assert (answer.status_code, "'x' is missing" in answer.json()["error"]) == (400, True)
        assert session.head(f"{server.url}/v2", timeout=PATIENCE).status_code == 200
        assert session.put(url, timeout=PATIENCE).headers["allow"] == "POST"


def test_urllib3_keeps_its_connection(server: Server) -> None:
    with urllib3.HTTPConnectionPool(address(server), maxsize=1, block=True, timeout=PATIENCE) as pool:
        for body, status in ((BODY, 200), (b"no json", 400), (BODY, 200), (b"", 400), (BODY, 200)):
            assert pool.request("POST", "/v2/models/double/infer", body=body).status == status
        assert (pool.num_connections, pool.num_requests) == (1, 5)


def test_whoever_sends_too_much_reads_that(narrow: Server) -> None:
    bulk = BODY + b" " * (8 << 20)
    pieces = (bulk[at : at + (1 << 20)] for at in range(0, len(bulk), 1 << 20))
    answers = [
        requests.post(infer_url(narrow), bulk, timeout=PATIENCE),
        urllib3.PoolManager().request("POST", infer_url(narrow), body=bulk, retries=False, timeout=PATIENCE),
        httpx.post(infer_url(narrow), content=bulk, timeout=PATIENCE),
        requests.post(infer_url(narrow), pieces, timeout=PATIENCE),
    ]
    for answer in answers:
        status = answer.status if isinstance(answer, urllib3.BaseHTTPResponse) else answer.status_code
        assert (status, "max_body=16384" in answer.json()["error"]) == (413, True)
    assert doubled(requests.post(infer_url(narrow), BODY, timeout=PATIENCE).content) == DOUBLED


# curl

curl_only = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")


def curl(*arguments: str, body: bytes = b"") -> list[str]:
    """What curl read, then what `--write-out` says, a line for each transfer."""
    command = ["curl", "--silent", "--show-error", "--max-time", str(PATIENCE), *arguments]
    done = subprocess.run(command, input=body, capture_output=True, check=True)
    return done.stdout.decode().splitlines()


TOLD = ["--write-out", "\n%{http_version} %{response_code} %{num_connects}\n"]


@curl_only
@pytest.mark.parametrize(
    ("arguments", "body", "version"),
    [
        (["--http2-prior-knowledge"], BODY, "2"),
        (["--http1.0"], BODY, "1"),
        (["--header", "Expect: 100-continue"], BODY, "1.1"),
        (["--header", "Content-Encoding: gzip"], gzip.compress(BODY, mtime=0), "1.1"),
        (["--http2-prior-knowledge", "--header", "Content-Encoding: deflate"], zlib.compress(BODY), "2"),
        (["--compressed"], BODY, "1.1"),
        (["--header", "Transfer-Encoding: chunked"], BODY, "1.1"),
    ],
)
def test_curl(server: Server, arguments: list[str], body: bytes, version: str) -> None:
    answer, told = curl(*arguments, *TOLD, "--data-binary", "@-", infer_url(server), body=body)
    assert (doubled(answer), told) == (DOUBLED, f"{version} 200 1")


@curl_only
def test_curl_keeps_its_connection(server: Server) -> None:
    """Over HTTP/1.1: before 8.0 it cannot use an HTTP/2 connection of prior knowledge again (curl's issue 10634)."""
    again = [*TOLD, "--data-binary", BODY.decode(), infer_url(server)]
    wrong = [*TOLD, "--data-binary", "{", infer_url(server)]
    lines = curl(*again, "--next", *wrong, "--next", *again, "--next", "--head", *TOLD, f"{server.url}/v2")
    told = [line.split()[1:] for line in lines if line[:1] in "12" and len(line.split()) == 3]
    assert told == [["200", "1"], ["400", "0"], ["200", "0"], ["200", "0"]]


@curl_only
def test_curl_sends_nothing_that_was_refused_ahead(narrow: Server) -> None:
    command = ["--header", "Expect: 100-continue", "--write-out", "\n%{response_code} %{size_upload}\n"]
    answer, told = curl(*command, "--data-binary", "@-", infer_url(narrow), body=b" " * (1 << 20))
    assert ("max_body=16384" in json.loads(answer)["error"], told) == (True, "413 0")
