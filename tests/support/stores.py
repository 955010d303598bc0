"""One real Postgres and one real S3 server per session; a fresh database and bucket prefix for each test."""

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from api.blobs.objects import Blobs
from api.domain.cost import Pricing
from api.domain.ids import NewId, make_id
from api.domain.keys import Caller
from api.domain.poison import MAX_LOST_ATTEMPTS
from api.domain.quotas import Quotas
from api.domain.usage import Price
from api.services.asking import Asking
from api.services.audit import AuditLog
from api.services.backends import Backends
from api.services.files import FileService
from api.services.graders import GraderService
from api.services.jobs import JobService
from api.services.keys import KeyService
from api.services.leases import LeaseService
from api.services.limits import LimitService
from api.services.metering import Metering
from api.services.models import ModelService
from api.services.quotas import QuotaService
from api.services.scheduler import Scheduler
from api.services.spending import spending_of
from api.services.tracking import Backend
from api.services.validation import Validation
from api.services.wakeups import Wakeup
from api.store.database import Database
from api.store.migrate import migrate
from deploy.embedded import object_store, postgres
from engine.graders.sandbox.bubblewrap import Sandbox
from serving.gateway.client import ReplicaClient
from serving.gateway.replicas import Replicas

BASE = "tiny-base"
TEMPLATE = "migrated"
PRICES = {BASE: Price(input=1, output=2, training=3, device_hour=36)}


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("postgres")
    server = postgres.start(folder, password="test-password", log=folder / "log", env=os.environ)
    wait_for_no_disk(server.url)
    yield server.url
    server.stop()


def wait_for_no_disk(server_url: str) -> None:
    """Nobody kills this server: what a crash leaves is tried on servers of its own (`tests/support/cluster.py`)."""
    with psycopg.connect(server_url, autocommit=True) as admin:
        for setting in (b"fsync", b"full_page_writes", b"synchronous_commit"):
            admin.execute(b"alter system set " + setting + b" = off")
        admin.execute("select pg_reload_conf()")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object_store.ObjectStore]:
    folder: Path = tmp_path_factory.mktemp("s3")
    server = object_store.start(
        folder, access_key="key", secret_key="secret-word", log=folder / "log", env=os.environ
    )
    yield server
    server.stop()


@pytest_asyncio.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    url = await fresh_database(postgres_url)
    opened = Database(url)
    await opened.open()
    yield opened
    await opened.close()


async def fresh_database(server_url: str) -> str:
    """A copy of a migrated template instead of the migrations; copied as files, since nothing waits for the disk."""
    name = f"test_{secrets.token_hex(6)}"
    async with await psycopg.AsyncConnection.connect(server_url, autocommit=True) as admin:
        known = await (
            await admin.execute("select 1 from pg_database where datname = %s", (TEMPLATE,))
        ).fetchone()
        if known is None:
            await admin.execute(sql.SQL("create database {}").format(sql.Identifier(TEMPLATE)))
            template = Database(named(server_url, TEMPLATE))
            await template.open()
            await migrate(template)
            await template.close()
        await admin.execute(
            sql.SQL("create database {} template {} strategy file_copy").format(
                sql.Identifier(name), sql.Identifier(TEMPLATE)
            )
        )
    return named(server_url, name)


def named(server_url: str, database: str) -> str:
    return server_url.rsplit("/", 1)[0] + "/" + database


@pytest_asyncio.fixture
async def blobs(s3: object_store.ObjectStore) -> Blobs:
    return await blobs_over(s3)


async def blobs_over(s3: object_store.ObjectStore, *, bucket: str = "tests") -> Blobs:
    store = Blobs(
        endpoint=s3.endpoint,
        access_key="key",
        secret_key="secret-word",
        bucket=bucket,
        secure=False,
        region="us-east-1",
    )
    await store.ensure_bucket()
    return store


@dataclass(frozen=True, kw_only=True)
class World:
    """The control plane's services over real stores, without their background loops."""

    database: Database
    blobs: Blobs
    new_id: NewId
    files: FileService
    jobs: JobService
    keys: KeyService
    leases: LeaseService
    scheduler: Scheduler
    quotas: QuotaService
    validation: Validation
    backends: Backends
    caller: Caller
    stranger: Caller


LEASE_SECONDS = 2
QUOTAS = Quotas(storage_bytes=10**9, queued_jobs=1_000, running_jobs=100, training_tokens=10**9)


@pytest_asyncio.fixture
async def nobody() -> AsyncIterator[Replicas]:
    """Nobody answers behind it: what is done before a model is asked, and without one, can be tried."""
    replicas = Replicas([ReplicaClient(base_model=BASE, url="http://127.0.0.1:9", api_key="nobody")])
    yield replicas
    await replicas.close()


def graders_over(database: Database, blobs: Blobs, replicas: Replicas, audit: AuditLog) -> GraderService:
    models = ModelService(database=database, blobs=blobs, audit=audit, replicas=replicas, salt_key="salt")
    limits = LimitService(
        database=database,
        audit=audit,
        metering=Metering(database=database),
        base_models=[BASE],
        default_requests=5,
        default_tokens=1000,
    )
    return GraderService(models=models, asking=Asking(models=models, limits=limits), sandbox=Sandbox())


@pytest_asyncio.fixture
async def world(database: Database, blobs: Blobs, nobody: Replicas) -> World:
    return await world_over(database, blobs, replicas=nobody)


CONNECTED = Backends(
    connected=[
        Backend(type="wandb", kind="wandb-offline", environment={}, while_running=False),
        Backend(type="tensorboard", kind="tensorboard", environment={}, whole=True),
    ],
    missing={"mlflow": "Its operator sets TUNINGFORK_API_MLFLOW_TRACKING_URI."},
)


async def world_over(
    database: Database, blobs: Blobs, *, replicas: Replicas, backends: Backends = CONNECTED
) -> World:
    new_id = partial(make_id, random_below=secrets.randbelow)
    to_validate, queued, trained = Wakeup(), Wakeup(), Wakeup()
    audit = AuditLog(database=database, new_id=new_id)
    spending = spending_of(
        Pricing(prices=PRICES, currency="eur"),
        QUOTAS,
        database=database,
        blobs=blobs,
        replicas=replicas,
        audit=audit,
    )
    quotas = spending.quotas
    keys = KeyService(database=database, pepper="pepper", new_id=new_id)
    await keys.bootstrap(organization="personal", key="sk-tf-ours")
    await keys.bootstrap(organization="other", key="sk-tf-theirs")
    scheduler = Scheduler(
        database=database,
        new_id=new_id,
        holder=new_id("scheduler-"),
        woken_by=queued,
        max_lost=MAX_LOST_ATTEMPTS,
        running_jobs=QUOTAS.running_jobs,
        alive_seconds=LEASE_SECONDS,
    )
    return World(
        scheduler=scheduler,
        database=database,
        blobs=blobs,
        new_id=new_id,
        files=FileService(
            database=database, blobs=blobs, new_id=new_id, audit=audit, quotas=quotas, max_bytes=10_000_000
        ),
        jobs=JobService(
            audit=audit,
            quotas=quotas,
            database=database,
            new_id=new_id,
            random_below=secrets.randbelow,
            base_models=[BASE],
            graders=graders_over(database, blobs, replicas, audit),
            plans=spending.plans,
            backends=backends,
            to_validate=to_validate,
            queued=queued,
            trained=trained,
        ),
        keys=keys,
        leases=LeaseService(
            scheduler=scheduler,
            database=database,
            blobs=blobs,
            new_id=new_id,
            quotas=quotas,
            caps=spending.caps,
            lease_seconds=LEASE_SECONDS,
            queued=queued,
            trained=trained,
        ),
        quotas=quotas,
        validation=Validation(
            database=database,
            new_id=new_id,
            checks=spending.checks,
            estimates=spending.estimates,
            woken_by=to_validate,
            wakes=queued,
        ),
        backends=backends,
        caller=await keys.authenticate("sk-tf-ours"),
        stranger=await keys.authenticate("sk-tf-theirs"),
    )
