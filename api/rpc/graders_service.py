"""Graders over gRPC: their JSON travels as a Struct."""

from typing import Any

from tuningfork.v1 import graders_pb2 as pb
from tuningfork.v1 import graders_pb2_grpc

from api.forms.graders import RunBody, ValidateBody, result_object
from api.forms.words import checked
from api.rpc.calls import caller
from api.rpc.convert import fields_of, shown
from api.services.services import Services
from engine.contract.grader_forms import grader_to


class GraderServicer(graders_pb2_grpc.GraderServiceServicer):  # type: ignore[misc]
    def __init__(self, services: Services) -> None:
        self._services = services

    async def ValidateGrader(
        self, request: pb.ValidateGraderRequest, context: Any
    ) -> pb.ValidateGraderResponse:
        body = checked(ValidateBody, fields_of(request))
        grader = await self._services.graders.validate(caller(), body.grader)
        return shown(pb.ValidateGraderResponse, {"grader": grader_to(grader)})

    async def RunGrader(self, request: pb.RunGraderRequest, context: Any) -> pb.RunGraderResponse:
        body = checked(RunBody, {"model_sample": "", **fields_of(request)})
        grader, grade = await self._services.graders.run(
            caller(), body.grader, model_sample=body.model_sample, item=body.item or {}
        )
        return shown(pb.RunGraderResponse, result_object(grader, grade))
