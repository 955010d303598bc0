"""A stand-in for vLLM that answers every form of request at once, with the same few words: for tests that ask a lot."""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

Json = dict[str, Any]
SAID = "Room 3 opens with 21."
CHAT_USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
USAGE = {
    "input_tokens": 5,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 12,
}


async def fake_model(request: Request) -> Response:
    asked = await request.json()
    path = request.url.path
    if path.endswith(("/tokenize", "/count_tokens")):
        return JSONResponse({"count": 5, "input_tokens": 5, "token_strs": SAID.split()})
    whole, events = FORMS[path]
    answer = whole(asked)
    if not asked.get("stream"):
        return JSONResponse(answer)
    return StreamingResponse(events(answer), media_type="text/event-stream")


def chat(asked: Mapping[str, Any]) -> Json:
    message = {"role": "assistant", "content": SAID, "refusal": None}
    return {
        "id": f"chatcmpl-{secrets.token_hex(8)}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": asked["model"],
        "choices": [choice(n, message=message) for n in range(asked.get("n", 1))],
        "usage": CHAT_USAGE,
    }


def text(asked: Mapping[str, Any]) -> Json:
    return {
        "id": f"cmpl-{secrets.token_hex(8)}",
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": asked["model"],
        "choices": [choice(n, text=SAID) for n in range(asked.get("n", 1))],
        "usage": CHAT_USAGE,
    }


def choice(index: int, **more: Any) -> Json:
    return {"index": index, "finish_reason": "stop", "logprobs": None, **more}


def response(asked: Mapping[str, Any]) -> Json:
    name = secrets.token_hex(8)
    part = {"type": "output_text", "text": SAID, "annotations": []}
    item = {
        "id": f"msg_{name}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    return {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "completed",
        "model": asked["model"],
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": USAGE,
    }


def message(asked: Mapping[str, Any]) -> Json:
    return {
        "id": f"msg_{secrets.token_hex(8)}",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [{"type": "text", "text": SAID}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 5, "output_tokens": 7},
    }


def chat_events(answer: Json) -> Iterator[bytes]:
    head = {name: answer[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    for index in range(len(answer["choices"])):
        yield frame({**head, "choices": [{"index": index, "delta": {"role": "assistant", "content": SAID}}]})
        yield frame({**head, "choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]})
    yield frame({**head, "choices": [], "usage": CHAT_USAGE})
    yield b"data: [DONE]\n\n"


def text_events(answer: Json) -> Iterator[bytes]:
    yield frame(answer)
    yield b"data: [DONE]\n\n"


def response_events(answer: Json) -> Iterator[bytes]:
    begun = {**answer, "status": "in_progress", "output": []}
    yield event({"type": "response.created", "sequence_number": 0, "response": begun})
    yield event({"type": "response.completed", "sequence_number": 1, "response": answer})


def message_events(answer: Json) -> Iterator[bytes]:
    yield event({"type": "message_start", "message": {**answer, "content": []}})
    yield event({"type": "message_stop"})


def frame(data: Json) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def event(data: Json) -> bytes:
    return f"event: {data['type']}\n".encode() + frame(data)


Whole = Callable[[Mapping[str, Any]], Json]
FORMS: dict[str, tuple[Whole, Callable[[Json], Iterator[bytes]]]] = {
    "/v1/chat/completions": (chat, chat_events),
    "/v1/completions": (text, text_events),
    "/v1/responses": (response, response_events),
    "/v1/messages": (message, message_events),
}
