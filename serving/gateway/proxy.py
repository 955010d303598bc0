"""Carries a request to a replica and its answer back, under the public model name. Knows no tenant."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from serving.gateway.client import OpenReply, ReplicaClient, ReplicaError
from serving.gateway.requests import RequestError

LOW_PRIORITY: Final = 10  # vLLM serves smaller numbers first
INTERNAL_FIELDS: Final = ("prompt_logprobs", "prompt_token_ids", "kv_transfer_params")
INTERNAL_MARKS: Final = tuple(f'"{field}"'.encode() for field in INTERNAL_FIELDS)
AWAY: Final = "The model's replica went away in the middle of its answer. Please try again."
BROKEN_OFF_HERE: Final = (
    b"data: "
    + orjson.dumps({"error": {"message": AWAY, "type": "server_error", "param": None, "code": None}})
    + b"\n\n"
)
# Anthropic's SDK passes over an event without a name: an answer cut short would look whole.
BROKEN_OFF: Final[Mapping[str, bytes]] = {
    "/v1/messages": b"event: error\ndata: "
    + orjson.dumps({"type": "error", "error": {"type": "overloaded_error", "message": AWAY}})
    + b"\n\n"
}


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
    answer = await send(target, path, request)
    try:
        reply = orjson.loads(await answer.read())
    except ReplicaError as error:
        raise ReplicaAwayError from error
    finally:
        answer.close()
    return named(reply, target.public_name)


async def open_stream(target: Target, path: str, request: Mapping[str, Any]) -> AsyncIterator[bytes]:
    """Server-sent events, once the replica has accepted the request. Raises as `complete` does.

    Closing the iterator closes the connection, and with it the replica stops generating.
    """
    return frames(await send(target, path, request), target, broken_off=BROKEN_OFF.get(path, BROKEN_OFF_HERE))


async def frames(answer: OpenReply, target: Target, *, broken_off: bytes) -> AsyncIterator[bytes]:
    """One event each: its `event:` line, if it has one, and its `data:`."""
    told = (quoted(target.served_name), quoted(target.public_name))
    begun = b""
    try:
        async for chunk in answer.chunks():
            *events, begun = (begun + chunk).split(b"\n\n")
            for event in events:
                yield renamed(event, *told) + b"\n\n"
    except ReplicaError:
        yield broken_off
    finally:
        answer.close()


def quoted(name: str) -> bytes:
    return b'"model":' + orjson.dumps(name)


def renamed(event: bytes, served: bytes, public: bytes) -> bytes:
    """As `named`, without reading JSON where it need not be read: a token costs a tenth of that.

    Inside a text every quotation mark has a backslash before it, so that `served` can be nothing but a field.
    """
    if served in event and not any(field in event for field in INTERNAL_MARKS):
        return event.replace(served, public)
    head, mark, data = event.partition(b"data: ")
    if not data.startswith(b"{"):
        return event
    return head + mark + orjson.dumps(named(orjson.loads(data), orjson.loads(public.partition(b":")[2])))


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


async def send(target: Target, path: str, request: Mapping[str, Any]) -> OpenReply:
    body = {**request, "model": target.served_name, "cache_salt": target.cache_salt}
    if target.priority:
        body["priority"] = target.priority
    try:
        answer = await target.replica.forward(path, orjson.dumps(body))
        if answer.status < 400:
            return answer
        reason = await answer.read()
    except ReplicaError as error:
        raise ReplicaAwayError from error
    raise refusal(answer.status, reason, target)


def refusal(status: int, reason: bytes, target: Target) -> Exception:
    """The replica's 4xx is about the request; all else, an adapter it cannot fetch too, is about itself."""
    if status not in {400, 413, 422}:
        return ReplicaAwayError()
    try:
        error = orjson.loads(reason).get("error", {})
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
