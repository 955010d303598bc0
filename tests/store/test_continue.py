"""A job that starts from a tuned model: whose it may be, what its engine gets, and that nobody takes it away."""

import time

import pytest

from api.domain.errors import ErrorKind, ServiceError
from api.domain.jobs import Job, NewJob
from api.domain.usage import Span, UsageFilter
from api.services.audit import AuditLog
from api.services.models import ModelService
from api.store import jobs, usage
from engine.contract.spec import LoraOptions
from serving.gateway.replicas import Replicas
from tests.store.test_leases import checkpoint, lease, leased, queued, report, upload
from tests.support.stores import BASE, World


async def tuned(world: World) -> tuple[str, Job]:
    """A checkpoint's name, and the job that made it, over by now."""
    await queued(world)
    run = await leased(world)
    await upload(world, run)
    await report(world, run, checkpoint(final=False))
    page = await world.jobs.checkpoints(world.caller, run.job_id, after=None, limit=1)
    job = await world.jobs.cancel(world.caller, run.job_id)
    return page.items[0].model_name, job


async def test_its_engine_gets_the_adapter_to_begin_with(world: World) -> None:
    name, source = await tuned(world)
    job = await world.jobs.create(world.caller, NewJob(model=name, training_file=source.training_file))
    assert (job.model, job.base_model, job.lora) == (name, BASE, source.lora)
    async with world.database.transaction() as connection:
        assert await jobs.queue(connection, job_id=job.id, method=source.method)
    found = await lease(world)
    assert found is not None and found.spec.starts_tuned and found.spec.base_model == BASE
    assert {file.name for file in found.initial_files} == {
        "adapter_model.safetensors",
        "adapter_config.json",
    }
    assert found.resume_files == ()


async def test_its_shape_is_the_tuned_models(world: World) -> None:
    name, source = await tuned(world)
    asked = NewJob(model=name, training_file=source.training_file, lora=LoraOptions(rank=3))
    with pytest.raises(ServiceError, match="keeps its adapter's rank") as refused:
        await world.jobs.create(world.caller, asked)
    assert refused.value.param == "lora"
    dropped = NewJob(model=name, training_file=source.training_file, lora=LoraOptions(dropout=0.5))
    assert (await world.jobs.create(world.caller, dropped)).lora.dropout == 0.5


async def test_a_model_that_a_job_starts_from_stays(world: World, nobody: Replicas) -> None:
    name, source = await tuned(world)
    job = await world.jobs.create(world.caller, NewJob(model=name, training_file=source.training_file))
    models = models_over(world, nobody)
    with pytest.raises(ServiceError, match=f"{job.id} starts from") as refused:
        await models.delete(world.caller, name)
    assert refused.value.kind is ErrorKind.INVALID
    await world.jobs.cancel(world.caller, job.id)
    await models.delete(world.caller, name)
    with pytest.raises(ServiceError, match="does not exist"):
        await world.jobs.create(world.caller, NewJob(model=name, training_file=source.training_file))


async def test_a_model_whose_base_is_no_longer_served_can_be_deleted(world: World) -> None:
    """As after `TUNINGFORK_QUANTIZATION=nf4`, which serves another base."""
    name, _ = await tuned(world)
    models = models_over(world, Replicas([]))
    with pytest.raises(ServiceError, match="does not exist"):
        await models.served(world.caller, name)
    await models.delete(world.caller, name)
    with pytest.raises(ServiceError, match="does not exist"):
        await models.retrieve(world.caller, name)


async def test_a_model_whose_base_is_no_longer_served_is_nobodys_start(world: World) -> None:
    """No engine would ever take the job. Said as of a model that is not there, before a dry run too."""
    name, source = await tuned(world)
    async with world.database.transaction() as connection:
        await connection.execute("update model_version set base_model = 'gone-base'")
    for call in (world.jobs.create, world.jobs.dry_run):
        with pytest.raises(ServiceError, match=f"`{name}` does not exist") as refused:
            await call(world.caller, NewJob(model=name, training_file=source.training_file))
        assert (refused.value.kind, refused.value.code) == (ErrorKind.INVALID, "model_not_found")


async def test_another_projects_model_is_nobodys_start_even_when_shared(world: World) -> None:
    name, source = await tuned(world)
    for shared in (False, True):
        if shared:
            async with world.database.transaction() as connection:
                await connection.execute(
                    b"insert into checkpoint_permission (id, project_id, granted_project_id, model_version_id) "
                    b"select 'cp_1', project_id, %s, id from model_version",
                    (world.stranger.project_id,),
                )
        with pytest.raises(ServiceError) as refused:
            await world.jobs.create(world.stranger, NewJob(model=name, training_file=source.training_file))
        assert (refused.value.kind, refused.value.code) == (ErrorKind.INVALID, "model_not_found")


def models_over(world: World, replicas: Replicas) -> ModelService:
    return ModelService(
        database=world.database,
        blobs=world.blobs,
        audit=AuditLog(database=world.database, new_id=world.new_id),
        replicas=replicas,
        salt_key="salt",
    )


async def test_its_tokens_are_told_and_priced_by_the_base_model(world: World) -> None:
    name, source = await tuned(world)
    job = await world.jobs.create(world.caller, NewJob(model=name, training_file=source.training_file))
    await world.jobs.cancel(world.caller, job.id)
    day = 86_400
    today = int(time.time()) // day * day
    span = Span(
        first=today - day, end=today + 2 * day, width=day, starts=[today - day, today], following=None
    )
    for wanted in (UsageFilter(group_by=["model"]), UsageFilter(group_by=["model"], models=[BASE])):
        async with world.database.transaction() as connection:
            found = await usage.added_up(
                connection,
                "training",
                organization_id=world.caller.organization_id,
                span=span,
                wanted=wanted,
            )
        assert {bucket.model for bucket in found} == {BASE}
        assert sum(bucket.requests for bucket in found) == 2
