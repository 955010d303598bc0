"""Carries a request to a replica and its answer back, under the public model name. Knows no tenant."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import orjson

from serving.gateway.client import ReplicaClient
from serving.gateway.requests import RequestError

LOW_PRIORITY: Final = 10  # vLLM serves smaller numbers first
INTERNAL_FIELDS: Final = ("prompt_logprobs", "prompt_token_ids", "kv_transfer_params")


class ReplicaAwayError(Exception):
    """No replica can answer now; the same request may succeed in a moment."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """`served_name` is what the replica calls the model, `public_name` what users do, `base_model` what it rests on.

    `cache_salt` keeps the prefix caches of projects apart, so that timing tells nothing of another's prompts.
    """

    replica: ReplicaClient
    base_model: str
    served_name: str
    public_name: str
    cache_salt: str
    priority: int = 0


async def complete(target: Target, path: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The whole answer. Raises RequestError or ReplicaAwayError."""
    response = await send(target, path, request)
    try:
        reply = orjson.loads(await response.aread())
    except httpx.HTTPError as error:
        raise ReplicaAwayError from error
    finally:
        await response.aclose()
    return named(reply, target.public_name)


async def open_stream(target: Target, path: str, request: Mapping[str, Any]) -> AsyncIterator[bytes]:
    """Server-sent events, once the replica has accepted the request. Raises as `complete` does.

    Closing the iterator closes the connection, and with it the replica stops generating.
    """
    response = await send(target, path, request)
    return frames(response, target.public_name)


async def frames(response: httpx.Response, public_name: str) -> AsyncIterator[bytes]:
    """One event each: its `event:` line, if it has one, and its `data:`."""
    event = b""
    try:
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                event = line.encode() + b"\n"
            elif line.startswith("data: {"):
                yield event + b"data: " + orjson.dumps(named(orjson.loads(line[6:]), public_name)) + b"\n\n"
                event = b""
            elif line.startswith("data: "):
                yield event + line.encode() + b"\n\n"
                event = b""
    except httpx.HTTPError:
        yield b"data: " + orjson.dumps(broken_off()) + b"\n\n"
    finally:
        await response.aclose()


def broken_off() -> dict[str, Any]:
    message = "The model's replica went away in the middle of its answer. Please try again."
    return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}


def named(reply: dict[str, Any], public_name: str) -> dict[str, Any]:
    """The replica knows adapters by internal ids, and users by their names."""
    for holder in (reply, reply.get("message"), reply.get("response")):
        if isinstance(holder, dict) and "model" in holder:
            holder["model"] = public_name
    choices = reply.get("choices") or ()
    for holder in (reply, *choices):
        for field in INTERNAL_FIELDS:
            holder.pop(field, None)
    return reply


async def send(target: Target, path: str, request: Mapping[str, Any]) -> httpx.Response:
    body = {**request, "model": target.served_name, "cache_salt": target.cache_salt}
    if target.priority:
        body["priority"] = target.priority
    try:
        response = await target.replica.forward(path, orjson.dumps(body))
        if response.is_success:
            return response
        await response.aread()
    except httpx.HTTPError as error:
        raise ReplicaAwayError from error
    await response.aclose()
    raise refusal(response, target)


def refusal(response: httpx.Response, target: Target) -> Exception:
    """The replica's 4xx is about the request; all else, an adapter it cannot fetch too, is about itself."""
    if response.status_code not in {400, 413, 422}:
        return ReplicaAwayError()
    try:
        error = orjson.loads(response.content).get("error", {})
    except orjson.JSONDecodeError:
        error = {}
    message = str(error.get("message") or "The model refused the request.")
    message = message.replace(target.served_name, target.public_name)
    too_long = "maximum context length" in message or "maximum model length" in message
    return RequestError(
        message,
        param=error.get("param") or ("messages" if too_long else None),
        code="context_length_exceeded" if too_long else None,
    )
