"""A stand-in for vLLM as a process: it fetches and checks adapters as the resolver does, and computes nothing.

Settings as `serving.vllm` has them. A probe is answered with the log-probabilities that the trainer told the control plane,
read from its database (`--told-in`); without one, as the fake trainer's weights would have it.
"""

import argparse
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.vllm import adapters
from serving.vllm.settings import ServingSettings
from tests.support import fake_training
from tests.support.fake_model import fake_model
from tests.support.fake_replica import completion

Logprobs = Callable[[Path, int], Awaitable[Sequence[float]]]


async def told(adapter: Path, _tokens: int, *, database_url: str) -> Sequence[float]:
    async with await psycopg.AsyncConnection.connect(database_url, connect_timeout=3) as connection:
        query = "select probe from model_version where id = %s"
        row = await (await connection.execute(query, (adapter.name,))).fetchone()
    assert row is not None
    logprobs: Sequence[float] = row[0]["logprobs"]
    return logprobs


async def of_fake_weights(adapter: Path, tokens: int) -> Sequence[float]:
    weights = fake_training.weights_in((adapter / adapters.WEIGHTS).read_bytes())
    return fake_training.logprobs(weights, tokens)


class FakeVllm:
    """`logprobs`: of a probe of so many tokens, from the adapter in that folder."""

    def __init__(self, *, source: adapters.Source, folder: Path, logprobs: Logprobs) -> None:
        self._source, self._folder, self._logprobs = source, folder, logprobs
        folder.mkdir(parents=True, exist_ok=True)

    async def answer(self, request: Request) -> Response:
        if request.url.path == "/health":
            return Response()
        asked = await request.json()
        if "lora_name" in asked:
            return Response()
        if not str(asked.get("model", "")).startswith("mv-"):
            return await fake_model(request)
        try:
            adapter = await adapters.fetch(asked["model"], source=self._source, folder=self._folder)
        except adapters.NotNowError as error:
            return Response(str(error), status_code=503)
        except adapters.AdapterError as error:
            logging.warning("%s", error)
            return Response(str(error), status_code=404)
        if adapter is None:
            return Response(status_code=404)
        if "prompt_logprobs" in asked:
            return JSONResponse(await self._probed(asked, adapter))
        return await fake_model(request)

    async def _probed(self, asked: dict[str, Any], adapter: Path) -> dict[str, Any]:
        prompt = asked["prompt"]
        return completion(prompt, list(await self._logprobs(adapter, len(prompt))))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--told-in", metavar="DATABASE_URL")
    told_in = parser.parse_args().told_in
    logging.basicConfig(level=logging.INFO)
    settings = ServingSettings()
    fake = FakeVllm(
        source=adapters.Source(
            url=settings.control_plane_url, token=settings.serving_token.get_secret_value()
        ),
        folder=settings.adapter_dir,
        logprobs=partial(told, database_url=told_in) if told_in else of_fake_weights,
    )
    app = Starlette(routes=[Route("/{path:path}", fake.answer, methods=["GET", "POST"])])
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning", lifespan="off")


if __name__ == "__main__":
    main()
