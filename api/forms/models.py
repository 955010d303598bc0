"""The wire of models, as OpenAI has it, and the manifest that replicas fetch adapters by."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

from api.domain.keys import Caller
from api.domain.models import BaseModel as BaseModelValue
from api.domain.models import ModelVersion
from api.forms.wire import unix
from api.services.models import AdapterManifest


class ModelObject(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


def model_object(model: BaseModelValue | ModelVersion, caller: Caller) -> ModelObject:
    owner = "system" if isinstance(model, BaseModelValue) else caller.organization_id
    return ModelObject(id=model.name, created=unix(model.created_at), owned_by=owner)


class ManifestFileObject(BaseModel):
    name: str
    url: str
    size_bytes: int
    sha256: str


class HeldBody(BaseModel):
    """The adapters that a replica holds."""

    ids: list[str] = Field(max_length=10_000)


class GoneObject(BaseModel):
    ids: list[str]


class ManifestObject(BaseModel):
    id: str
    base_model: str
    rank: int
    files: Sequence[ManifestFileObject]


def manifest_object(manifest: AdapterManifest) -> ManifestObject:
    return ManifestObject(
        id=manifest.id,
        base_model=manifest.base_model,
        rank=manifest.rank,
        files=[ManifestFileObject(**vars(file)) for file in manifest.files],
    )
