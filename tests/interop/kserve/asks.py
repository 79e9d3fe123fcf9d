"""KServe's client and what it is told: `python asks.py TASK URL [transport]` prints it as JSON."""

import asyncio
import json
import sys
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.inference_client import InferenceGRPCClient

X = np.arange(6, dtype=np.float32).reshape(3, 2)
NUMBERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DATATYPES = {
    **{name.upper(): np.dtype(name) for name in NUMBERS},
    "FP16": np.dtype("float16"),
    "FP32": np.dtype("float32"),
    "FP64": np.dtype("float64"),
    "BOOL": np.dtype("bool"),
}


def asked(model: str, arrays: dict[str, np.ndarray], *, binary: bool) -> InferRequest:
    inputs = []
    for name, array in arrays.items():
        datatype = next((known for known, dtype in DATATYPES.items() if dtype == array.dtype), "BYTES")
        given = InferInput(name, list(array.shape), datatype)
        given.set_data_from_numpy(array, binary_data=binary)
        inputs.append(given)
    return InferRequest(model, inputs, request_id="seven", parameters={"binary_data_output": True} if binary else None)


def told(response: Any) -> dict[str, Any]:
    outputs = {one.name: one.as_numpy() for one in response.outputs}
    return {
        "id": response.id,
        "model": response.model_name,
        "outputs": {
            name: [one.decode() if isinstance(one, bytes) else one for one in array.ravel().tolist()]
            for name, array in outputs.items()
        },
        "types": {name: str(array.dtype) for name, array in outputs.items()},
    }


def rest(transport: str) -> InferenceRESTClient:
    under = None
    if transport == "penstock":
        import penstock

        under = penstock.transport.AsyncTransport()
    return InferenceRESTClient(RESTConfig(protocol="v2", transport=under, http2=transport == "http2", timeout=30))


async def health(url: str, transport: str = "own") -> Any:
    async with rest(transport) as client:
        return {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "double": await client.is_model_ready(url, "double"),
            "nowhere": await client.is_model_ready(url, "nowhere"),
        }


async def closing(url: str, transport: str = "own") -> Any:
    async with rest(transport) as client:
        try:
            return await client.is_server_ready(url)
        except httpx.HTTPStatusError as error:
            return [error.response.status_code, error.response.json()]


async def infer(url: str, transport: str = "own") -> Any:
    async with rest(transport) as client:
        answers = []
        for binary in (False, True):
            request = asked("double", {"x": X}, binary=binary)
            answers.append(told(await client.infer(url, request, model_name="double")))
        many = [client.infer(url, asked("double", {"x": X + n}, binary=True), model_name="double") for n in range(50)]
        sums = [float(told(answer)["outputs"]["y"][0]) for answer in await asyncio.gather(*many)]
        return {"answers": answers, "many": sums}


def of_every_type() -> dict[str, np.ndarray]:
    arrays = {name.lower(): np.array([[0, 1, 1]]).astype(dtype) for name, dtype in DATATYPES.items()}
    arrays["bytes"] = np.array([[b"", "zwölf".encode(), b"c"]], object)
    return arrays


async def types(url: str, transport: str = "own") -> Any:
    async with rest(transport) as client:
        return told(await client.infer(url, asked("types", of_every_type(), binary=True), model_name="types"))


async def refusals(url: str, transport: str = "own") -> Any:
    said = []
    async with rest(transport) as client:
        for model, array in (("picky", X - 9), ("nowhere", X), ("double", X[:, :1])):
            try:
                await client.infer(url, asked(model, {"x": array}, binary=False), model_name=model)
            except httpx.HTTPStatusError as error:
                said.append([error.response.status_code, str(error)])
    return said


async def by_grpc(place: str) -> Any:
    async with InferenceGRPCClient(place, timeout=30) as client:
        answer = told(await client.infer(asked("double", {"x": X}, binary=True)))
        everything = told(await client.infer(asked("types", of_every_type(), binary=True)))
        try:
            await client.infer(asked("picky", {"x": X - 9}, binary=True))
        except grpc.RpcError as error:
            refused = [error.code().name, error.details()]
        return {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "double": await client.is_model_ready("double"),
            "answer": answer,
            "types": everything["types"],
            "bytes": everything["outputs"]["bytes"],
            "refused": refused,
        }


if __name__ == "__main__":
    task, *arguments = sys.argv[1:]
    print(json.dumps(asyncio.run(globals()[task](*arguments))))
