"""A stand-in for vLLM that answers what a test tells it to: for faults that a real one does not have."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.embedded.ports import free_port
from serving.gateway.client import ReplicaClient

Answer = Callable[[Request], Awaitable[Response]]


@asynccontextmanager
async def fake_replica(answer: Answer, *, base_model: str = "tiny-base") -> AsyncIterator[ReplicaClient]:
    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
    port = free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    client = ReplicaClient(base_model=base_model, url=f"http://127.0.0.1:{port}", api_key="key")
    try:
        yield client
    finally:
        await client.close()
        server.should_exit = server.force_exit = True
        await running


def completion(token_ids: list[int], logprobs: list[float]) -> dict[str, Any]:
    """As vLLM answers a token-id prompt with `prompt_logprobs`."""
    pairs = zip(token_ids[1:], logprobs, strict=True)
    entries = [None, *({str(token): {"logprob": logprob}} for token, logprob in pairs)]
    return {"model": "mv-internal", "choices": [{"index": 0, "text": "x", "prompt_logprobs": entries}]}
