"""A stand-in for vLLM, in a process of its own: it fetches adapters with the resolver's own code and answers a probe as
the fake trainer's weights would. Settings as `serving.vllm` has them.
"""

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.vllm import adapters
from serving.vllm.settings import ServingSettings
from tests.chaos import fake_training as training
from tests.support.fake_replica import completion


class FakeVllm:
    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._source = adapters.Source(
            url=settings.control_plane_url, token=settings.serving_token.get_secret_value()
        )
        settings.adapter_dir.mkdir(parents=True, exist_ok=True)

    async def health(self, _: Request) -> Response:
        return Response()

    async def completions(self, request: Request) -> Response:
        asked = await request.json()
        if asked["model"] == self._settings.base_model:
            return JSONResponse(completion([1], []))
        try:
            folder = await adapters.fetch(
                asked["model"], source=self._source, folder=self._settings.adapter_dir
            )
        except adapters.AdapterError as error:
            return JSONResponse({"error": {"message": str(error)}}, status_code=404)
        if folder is None:
            return JSONResponse({"error": {"message": "no such model"}}, status_code=404)
        weights = training.weights_in((folder / adapters.WEIGHTS).read_bytes())
        ids = asked["prompt"]
        return JSONResponse(completion(ids, list(training.logprobs(weights, len(ids)))))

    async def unload(self, _: Request) -> Response:
        return Response()


def main() -> None:
    settings = ServingSettings()
    fake = FakeVllm(settings)
    app = Starlette(
        routes=[
            Route("/health", fake.health),
            Route("/v1/completions", fake.completions, methods=["POST"]),
            Route("/v1/unload_lora_adapter", fake.unload, methods=["POST"]),
        ]
    )
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning", lifespan="off")


if __name__ == "__main__":
    main()
