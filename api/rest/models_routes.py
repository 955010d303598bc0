"""`/v1/models`. A model's name may hold `/` and `:`, so it takes the rest of the path."""

import tempfile
import zipfile
from collections.abc import AsyncIterator, Sequence
from typing import IO, Final

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

from api.domain.models import AdapterFile
from api.forms.models import (
    GoneObject,
    HeldBody,
    ManifestObject,
    ModelObject,
    manifest_object,
    model_object,
)
from api.forms.wire import Deleted, ListObject
from api.rest.context import CallerDep, ReplicaDep, ServicesDep
from api.rest.document import bytes_of

router = APIRouter(tags=["models"])
CHUNK_BYTES: Final = 1024 * 1024
IN_MEMORY_BYTES: Final = 16 * 1024 * 1024


@router.get("/v1/models", operation_id="listModels")
async def list_models(caller: CallerDep, services: ServicesDep) -> ListObject[ModelObject]:
    return ListObject(data=[model_object(model, caller) for model in await services.models.list(caller)])


@router.get(
    "/v1/models/{name:path}/adapter",
    operation_id="downloadModelAdapter",
    response_class=StreamingResponse,
    responses=bytes_of("application/zip"),
)
async def adapter(name: str, caller: CallerDep, services: ServicesDep) -> StreamingResponse:
    """Ours: a zip of `adapter_model.safetensors` and `adapter_config.json`, in peft's layout."""
    version, contents = await services.models.adapter_files(caller, name)
    archive = await zipped(contents)
    headers = {"content-disposition": f'attachment; filename="{version.id}.zip"'}
    body = iterate_in_threadpool(iter(lambda: archive.read(CHUNK_BYTES), b""))
    return StreamingResponse(body, media_type="application/zip", headers=headers)


async def zipped(contents: Sequence[tuple[AdapterFile, AsyncIterator[bytes]]]) -> IO[bytes]:
    """Stored, not deflated: weights do not shrink."""
    archive = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as entries:
        for file, chunks in contents:
            with entries.open(file.name, "w", force_zip64=True) as entry:
                async for chunk in chunks:
                    await run_in_threadpool(entry.write, chunk)
    archive.seek(0)
    return archive


@router.get("/v1/models/{name:path}", operation_id="retrieveModel")
async def retrieve(name: str, caller: CallerDep, services: ServicesDep) -> ModelObject:
    return model_object(await services.models.retrieve(caller, name), caller)


@router.delete("/v1/models/{name:path}", operation_id="deleteModel")
async def delete(name: str, caller: CallerDep, services: ServicesDep) -> Deleted:
    await services.models.delete(caller, name)
    return Deleted(id=name, object="model")


@router.post("/internal/adapters/gone", dependencies=[ReplicaDep], include_in_schema=False)
async def gone(body: HeldBody, services: ServicesDep) -> GoneObject:
    """What a vLLM replica holds and must let go of."""
    return GoneObject(ids=list(await services.models.gone(body.ids)))


@router.get("/internal/adapters/{version_id}", dependencies=[ReplicaDep], include_in_schema=False)
async def manifest(version_id: str, services: ServicesDep) -> ManifestObject:
    """Where a vLLM replica finds an adapter that it does not hold yet."""
    return manifest_object(await services.models.manifest(version_id))
