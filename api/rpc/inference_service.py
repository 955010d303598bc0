"""Chat completions over gRPC: the same fields, bounds, limits and accounts as over REST."""

from collections.abc import AsyncIterator
from typing import Any

from tuningfork.v1 import inference_pb2 as pb
from tuningfork.v1 import inference_pb2_grpc

from api.rpc.calls import caller
from api.rpc.convert import fields_of, shown
from api.services.services import Services


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):  # type: ignore[misc]
    def __init__(self, services: Services) -> None:
        self._services = services

    async def ChatCompletion(
        self, request: pb.ChatCompletionRequest, context: Any
    ) -> pb.ChatCompletionResponse:
        reply = await self._services.asking.chat(caller(), fields_of(request.chat))
        return shown(pb.ChatCompletionResponse, reply)

    async def StreamChatCompletion(
        self, request: pb.StreamChatCompletionRequest, context: Any
    ) -> AsyncIterator[pb.StreamChatCompletionResponse]:
        async for piece in self._services.asking.stream_chat(caller(), fields_of(request.chat)):
            yield shown(pb.StreamChatCompletionResponse, piece)
