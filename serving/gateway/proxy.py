"""Carries a request to a replica and its answer back, under the public model name. Knows no tenant."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import httpx
import orjson

from serving.gateway.client import ReplicaClient
from serving.gateway.requests import RequestError

INTERNAL_FIELDS: Final = ("prompt_logprobs", "prompt_token_ids", "kv_transfer_params")


class ReplicaAwayError(Exception):
    """No replica can answer now; the same request may succeed in a moment."""


async def complete(
    replica: ReplicaClient, path: str, request: Mapping[str, Any], *, served_name: str, public_name: str
) -> dict[str, Any]:
    """The whole answer. Raises RequestError or ReplicaAwayError."""
    response = await send(replica, path, request, served_name=served_name, public_name=public_name)
    try:
        reply = orjson.loads(await response.aread())
    except httpx.HTTPError as error:
        raise ReplicaAwayError from error
    finally:
        await response.aclose()
    return named(reply, public_name)


async def open_stream(
    replica: ReplicaClient, path: str, request: Mapping[str, Any], *, served_name: str, public_name: str
) -> AsyncIterator[bytes]:
    """Server-sent events, once the replica has accepted the request. Raises as `complete` does.

    Closing the iterator closes the connection, and with it the replica stops generating.
    """
    response = await send(replica, path, request, served_name=served_name, public_name=public_name)
    return frames(response, public_name)


async def frames(response: httpx.Response, public_name: str) -> AsyncIterator[bytes]:
    try:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                yield b"data: " + orjson.dumps(named(orjson.loads(line[6:]), public_name)) + b"\n\n"
            elif line.startswith("data: "):
                yield line.encode() + b"\n\n"
    except httpx.HTTPError:
        yield b"data: " + orjson.dumps(broken_off()) + b"\n\n"
    finally:
        await response.aclose()


def broken_off() -> dict[str, Any]:
    message = "The model's replica went away in the middle of its answer. Please try again."
    return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}


def named(reply: dict[str, Any], public_name: str) -> dict[str, Any]:
    """The replica knows adapters by internal ids, and users by their names."""
    if "model" in reply:
        reply["model"] = public_name
    for field in INTERNAL_FIELDS:
        reply.pop(field, None)
    for choice in reply.get("choices", ()):
        for field in INTERNAL_FIELDS:
            choice.pop(field, None)
    return reply


async def send(
    replica: ReplicaClient, path: str, request: Mapping[str, Any], *, served_name: str, public_name: str
) -> httpx.Response:
    body = orjson.dumps({**request, "model": served_name})
    try:
        response = await replica.forward(path, body)
        if response.is_success:
            return response
        await response.aread()
    except httpx.HTTPError as error:
        raise ReplicaAwayError from error
    await response.aclose()
    raise refusal(response, served_name=served_name, public_name=public_name)


def refusal(response: httpx.Response, *, served_name: str, public_name: str) -> Exception:
    """The replica's 4xx is about the request; all else, an adapter it cannot fetch too, is about itself."""
    if response.status_code not in {400, 413, 422}:
        return ReplicaAwayError()
    try:
        error = orjson.loads(response.content).get("error", {})
    except orjson.JSONDecodeError:
        error = {}
    message = str(error.get("message") or "The model refused the request.").replace(served_name, public_name)
    too_long = "maximum context length" in message or "maximum model length" in message
    return RequestError(
        message,
        param=error.get("param") or ("messages" if too_long else None),
        code="context_length_exceeded" if too_long else None,
    )
