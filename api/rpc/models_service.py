"""Models over gRPC."""

from typing import Any

from tuningfork.v1 import models_pb2 as pb
from tuningfork.v1 import models_pb2_grpc

from api.forms.models import model_object
from api.rpc.calls import caller
from api.rpc.convert import shown
from api.services.services import Services


class ModelServicer(models_pb2_grpc.ModelServiceServicer):  # type: ignore[misc]
    def __init__(self, services: Services) -> None:
        self._services = services

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        found = await self._services.models.list(caller())
        return pb.ListModelsResponse(data=[shown(pb.Model, model_object(m, caller())) for m in found])

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        model = await self._services.models.retrieve(caller(), request.model)
        return pb.GetModelResponse(model=shown(pb.Model, model_object(model, caller())))

    async def DeleteModel(self, request: pb.DeleteModelRequest, context: Any) -> pb.DeleteModelResponse:
        await self._services.models.delete(caller(), request.model)
        return pb.DeleteModelResponse(id=request.model, deleted=True)
