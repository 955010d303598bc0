"""Models: what a caller may use, under which name a replica serves it, and the adapter's own files."""

import hmac
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from api.blobs.objects import Blobs
from api.domain.errors import ServiceError, invalid, not_found
from api.domain.keys import Caller
from api.domain.models import AdapterFile, BaseModel, ModelVersion
from api.services.audit import AuditLog
from api.services.deletions import Deletions
from api.store import deletions, models
from api.store.database import Database
from serving.gateway.client import ReplicaError
from serving.gateway.proxy import Target
from serving.gateway.replicas import Replicas

log = logging.getLogger("tuningfork.models")


@dataclass(frozen=True, kw_only=True)
class ManifestFile:
    """`url` is a presigned GET."""

    name: str
    url: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class AdapterManifest:
    """All that a replica needs to fetch an adapter."""

    id: str
    base_model: str
    rank: int
    files: Sequence[ManifestFile]


class ModelService:
    def __init__(
        self, *, database: Database, blobs: Blobs, audit: AuditLog, replicas: Replicas, salt_key: str
    ) -> None:
        self._audit = audit
        self._database, self._blobs, self._replicas = database, blobs, replicas
        self._salt_key = salt_key.encode()
        self._deletions = Deletions(database=database, blobs=blobs)

    async def remember_bases(self) -> None:
        async with self._database.transaction() as connection:
            await models.ensure_base(connection, names=self._replicas.base_models)

    async def list(self, caller: Caller) -> Sequence[BaseModel | ModelVersion]:
        async with self._database.tenant(caller.project_id) as connection:
            bases = await models.bases(connection, names=self._replicas.base_models)
            return [*bases, *await models.published(connection, project_id=caller.project_id)]

    async def retrieve(self, caller: Caller, name: str) -> BaseModel | ModelVersion:
        async with self._database.tenant(caller.project_id) as connection:
            if name in self._replicas.base_models:
                return (await models.bases(connection, names=[name]))[0]
            version = await models.by_name(connection, project_id=caller.project_id, name=name)
        if version is None:
            raise no_such_model(name)
        return version

    async def delete(self, caller: Caller, name: str) -> None:
        """From the answer on the model is gone for its users; then the replica and the store let go of it."""
        version = await self._version(caller, name)
        async with self._database.tenant(caller.project_id) as connection:
            job_id = await models.started_from(
                connection, project_id=caller.project_id, version_id=version.id
            )
            if job_id is not None:
                raise invalid(
                    f"{name} is what {job_id} starts from: wait until that job ends, or cancel it.",
                    param="model",
                )
            keys = await models.delete(connection, project_id=caller.project_id, version_id=version.id)
            if keys is None:
                raise no_such_model(name)
            await deletions.add(connection, project_id=caller.project_id, subject=name, keys=keys)
            await self._audit.note(connection, caller, "model.deleted", name)
        if version.base_model in self._replicas.base_models:  # else the operator has changed the base
            try:
                await self._replicas.of(version.base_model).unload(version.id)
            except ReplicaError as error:
                log.warning("%s stays loaded until its replica restarts: %s", version.id, error)
        await self._deletions.finish(keys)

    async def _version(self, caller: Caller, name: str) -> ModelVersion:
        """The caller's own: what another project shares may be asked, not taken or deleted."""
        model = await self.retrieve(caller, name)
        if isinstance(model, BaseModel):
            raise invalid(
                f"{name} is a base model: only fine-tuned models can be deleted or downloaded.", param="model"
            )
        if model.project_id != caller.project_id:
            raise no_such_model(name)
        return model

    async def adapter_files(
        self, caller: Caller, name: str
    ) -> tuple[ModelVersion, Sequence[tuple[AdapterFile, AsyncIterator[bytes]]]]:
        version = await self._version(caller, name)
        return version, [(file, self._blobs.read(file.blob_key)) for file in version.files.values()]

    async def manifest(self, version_id: str) -> AdapterManifest:
        """For replicas, before and after the model is published."""
        async with self._database.transaction() as connection:
            version = await models.by_id(connection, version_id=version_id)
        if version is None:
            raise no_such_model(version_id)
        return AdapterManifest(
            id=version.id,
            base_model=version.base_model,
            rank=version.rank,
            files=[
                ManifestFile(
                    name=file.name,
                    url=self._blobs.get_url(file.blob_key),
                    size_bytes=file.size_bytes,
                    sha256=file.sha256,
                )
                for file in version.files.values()
            ],
        )

    async def gone(self, version_ids: Sequence[str]) -> Sequence[str]:
        """For replicas: of these, those that they must not hold any longer."""
        async with self._database.transaction() as connection:
            return await models.gone(connection, ids=version_ids)

    async def served(self, caller: Caller, name: str, *, priority: int = 0) -> Target:
        """Where the caller's requests for this model go. Raises ServiceError(NOT_FOUND)."""
        base, served_name = name, name
        if name not in self._replicas.base_models:
            async with self._database.tenant(caller.project_id) as connection:
                version = await models.by_name(connection, project_id=caller.project_id, name=name)
            if version is None or version.base_model not in self._replicas.base_models:
                raise no_such_model(name)
            base, served_name = version.base_model, version.id
        return Target(
            replica=self._replicas.of(base),
            base_model=base,
            served_name=served_name,
            public_name=name,
            cache_salt=hmac.digest(self._salt_key, caller.project_id.encode(), "sha256").hex(),
            priority=priority,
        )


def no_such_model(name: str) -> ServiceError:
    return not_found(
        f"The model `{name}` does not exist or you do not have access to it.",
        param="model",
        code="model_not_found",
    )
