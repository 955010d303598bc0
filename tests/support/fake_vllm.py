"""A stand-in for vLLM as a process: it fetches and checks adapters as the resolver does, and computes nothing.

It answers a probe with the log-probabilities that the trainer told the control plane, read from its database.
"""

import argparse
import logging
from pathlib import Path
from typing import Any

import psycopg
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.vllm import adapters
from tests.support.fake_model import fake_model
from tests.support.fake_replica import completion


class FakeVllm:
    def __init__(self, *, source: adapters.Source, folder: Path, database_url: str) -> None:
        self._source, self._folder, self._database_url = source, folder, database_url
        folder.mkdir(parents=True, exist_ok=True)

    async def answer(self, request: Request) -> Response:
        if request.url.path == "/health":
            return Response()
        asked = await request.json()
        if "lora_name" in asked:
            return Response()
        if str(asked.get("model", "")).startswith("mv-"):
            try:
                found = await adapters.fetch(asked["model"], source=self._source, folder=self._folder)
            except adapters.AdapterError as error:
                logging.warning("%s", error)
                return Response(str(error), status_code=404)
            if found is None:
                return Response(status_code=404)
        if "prompt_logprobs" in asked:
            return JSONResponse(await self._probed(asked))
        return await fake_model(request)

    async def _probed(self, asked: dict[str, Any]) -> dict[str, Any]:
        async with await psycopg.AsyncConnection.connect(self._database_url, connect_timeout=3) as connection:
            query = "select probe from model_version where id = %s"
            row = await (await connection.execute(query, (asked["model"],))).fetchone()
        assert row is not None
        return completion(asked["prompt"], row[0]["logprobs"])


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--port", "--control-plane", "--token", "--database-url", "--folder"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    source = adapters.Source(url=options.control_plane, token=options.token)
    fake = FakeVllm(source=source, folder=Path(options.folder), database_url=options.database_url)
    app = Starlette(routes=[Route("/{path:path}", fake.answer, methods=["GET", "POST"])])
    uvicorn.run(app, host="127.0.0.1", port=int(options.port), log_level="warning", lifespan="off")


if __name__ == "__main__":
    main()
