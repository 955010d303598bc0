"""Who is calling, while a call of a tenant is served; and how long one may take."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from tuningfork.v1 import checkpoints_pb2, files_pb2, graders_pb2, inference_pb2, jobs_pb2, models_pb2

from api.domain.keys import Caller, Scope

MODULES: Final = (files_pb2, jobs_pb2, checkpoints_pb2, models_pb2, graders_pb2, inference_pb2)
READ, WRITE, SAMPLE = Scope.READ, Scope.WRITE, Scope.SAMPLE
# What each call needs of a key. A call that is not here cannot be made: a test holds the two lists together.
SCOPES: Final = {
    "FileService": {
        "CreateFile": WRITE,
        "GetFile": READ,
        "ListFiles": READ,
        "DeleteFile": WRITE,
        "DownloadFile": READ,
    },
    "JobService": {
        "CreateJob": WRITE,
        "GetJob": READ,
        "ListJobs": READ,
        "CancelJob": WRITE,
        "PauseJob": WRITE,
        "ResumeJob": WRITE,
        "ListJobEvents": READ,
        "WatchJob": READ,
    },
    "CheckpointService": {
        "ListCheckpoints": READ,
        "CreatePermissions": WRITE,
        "ListPermissions": READ,
        "DeletePermission": WRITE,
    },
    "ModelService": {"ListModels": READ, "GetModel": READ, "DeleteModel": WRITE},
    "GraderService": {"ValidateGrader": SAMPLE, "RunGrader": SAMPLE},
    "InferenceService": {"ChatCompletion": SAMPLE, "StreamChatCompletion": SAMPLE},
}


@dataclass(frozen=True, kw_only=True)
class Call:
    """`once`: the idempotency key that the caller gave."""

    caller: Caller
    once: str | None


current: ContextVar[Call] = ContextVar("current")


def caller() -> Caller:
    return current.get().caller


def services() -> list[ServiceDescriptor]:
    return [service for module in MODULES for service in module.DESCRIPTOR.services_by_name.values()]


def reply_type(method: str) -> Any:
    """The message class that `/tuningfork.v1.FileService/GetFile` answers with."""
    _, service, name = method.rsplit("/", 2)
    found = next(each for each in services() if each.full_name == service)
    return GetMessageClass(found.methods_by_name[name].output_type)
