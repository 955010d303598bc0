"""The REST application behind a real socket, over real stores and a fake model: for clients that are programs."""

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

import pytest
import uvicorn

from api.domain.ids import make_id
from api.domain.jobs import Job
from api.rest import app as rest
from api.services.outbound import Outbound, OutboundError
from api.store.database import Database
from deploy.embedded import object_store
from deploy.embedded.ports import free_port
from serving.gateway.replicas import Replicas
from tests.support.app import OUR_KEY, services_over
from tests.support.fake_model import fake_model
from tests.support.fake_replica import fake_replica
from tests.support.stores import BASE, World, blobs_over, fresh_database, world_over

PLENTY = 10**8


class FakeOutbound(Outbound):
    """Checks a URL as ever, and sends nothing anywhere: the URLs are made up."""

    async def post(self, url: str, **_: object) -> int:
        raise OutboundError(f"nobody is at {len(url)} characters")


@dataclass(frozen=True, kw_only=True)
class Live:
    """`tuned` is a model that was trained here; its job and file are there too."""

    url: str
    api_key: str
    project_id: str
    key_id: str
    tuned: str
    file_id: str


@asynccontextmanager
async def serving(postgres_url: str, s3: object_store.ObjectStore) -> AsyncIterator[Live]:
    database = Database(await fresh_database(postgres_url))
    await database.open()
    world = await world_over(database, await blobs_over(s3))
    async with fake_replica(fake_model, base_model=BASE) as replica:
        services = services_over(
            world,
            Replicas([replica]),
            outbound=FakeOutbound(allow_private=False),
            requests_a_minute=PLENTY,
            tokens_a_minute=PLENTY,
        )
        await services.models.remember_bases()
        app = rest.build(services, new_request_id=partial(make_id, "req_", secrets.randbelow))
        port = free_port()
        server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", lifespan="off")
        )
        running = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        job, tuned = await trained(world)
        yield Live(
            url=f"http://127.0.0.1:{port}",
            api_key=OUR_KEY,
            project_id=world.caller.project_id,
            key_id=world.caller.key_id,
            tuned=tuned,
            file_id=job.training_file,
        )
        server.should_exit = server.force_exit = True
        await running
    await database.close()


async def trained(world: World) -> tuple[Job, str]:
    from tests.store.test_leases import checkpoint, leased, queued, report, upload

    job = await queued(world)
    run = await leased(world)
    await upload(world, run)
    await report(world, run, checkpoint(final=False))
    page = await world.jobs.checkpoints(world.caller, job.id, after=None, limit=1)
    return job, page.items[0].model_name


@contextmanager
def in_a_thread(postgres_url: str, s3: object_store.ObjectStore) -> Iterator[Live]:
    """A loop of its own, so that the test may wait for a program without stopping the service."""
    ready, done = threading.Event(), threading.Event()
    found: list[Live] = []

    async def main() -> None:
        async with serving(postgres_url, s3) as live:
            found.append(live)
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    assert ready.wait(60), "the service did not start"
    yield found[0]
    done.set()
    thread.join(30)


@pytest.fixture(scope="module")
def live(postgres_url: str, s3: object_store.ObjectStore) -> Iterator[Live]:
    with in_a_thread(postgres_url, s3) as running:
        yield running
