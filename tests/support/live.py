"""The REST application behind a real socket, over real stores and a fake model: for clients that are programs."""

import asyncio
import io
import secrets
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

import pytest
import uvicorn

from api.domain.ids import make_id
from api.rest import app as rest
from api.services.outbound import Outbound, OutboundError
from api.services.services import Services
from api.store.database import Database
from deploy.embedded import object_store
from deploy.embedded.ports import free_port
from serving.gateway.replicas import Replicas
from tests.support.app import OUR_KEY, services_over
from tests.support.evals import evaluated
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
    """By the names that the API uses: `own` is what its key stands on, `kept` what must not be deleted, and `there` what
    exists to be asked for."""

    url: str
    api_key: str
    own: Mapping[str, str]
    kept: Mapping[str, str]
    there: Mapping[str, Sequence[str]]


@asynccontextmanager
async def serving(postgres_url: str, s3: object_store.ObjectStore) -> AsyncIterator[Live]:
    database = Database(await fresh_database(postgres_url))
    await database.open()
    async with fake_replica(fake_model, base_model=BASE) as replica:
        world = await world_over(database, await blobs_over(s3), replicas=Replicas([replica]))
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
        kept = await evaluated(world)
        own, there = await found(world, services)
        there |= {name: [value] for name, value in kept.items()}
        url = f"http://127.0.0.1:{port}"
        yield Live(url=url, api_key=OUR_KEY, own=own, kept=kept, there=there)
        server.should_exit = server.force_exit = True
        await running
    await database.close()


async def found(world: World, services: Services) -> tuple[dict[str, str], dict[str, list[str]]]:
    """A model that was trained, its job and file, and the files of batches and evals."""
    from tests.store.test_leases import checkpoint, leased, queued, report, upload

    job = await queued(world)
    run = await leased(world)
    await upload(world, run)
    await report(world, run, checkpoint(final=False))
    page = await world.jobs.checkpoints(world.caller, job.id, after=None, limit=1)
    line = b'{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"model": "tiny-base"}}'
    asked = await world.files.create(
        world.caller, filename="a.jsonl", purpose="batch", source=io.BytesIO(line), size_bytes=len(line)
    )
    row = b'{"item": {"question": "?", "answer": "blue"}, "sample": {"output_text": "blue"}}'
    rows = await world.files.create(
        world.caller, filename="e.jsonl", purpose="evals", source=io.BytesIO(row), size_bytes=len(row)
    )
    owner = (await services.members.list(world.caller, after=None, limit=1)).items[0]
    caller, tuned = world.caller, page.items[0].model_name
    own = {"project_id": caller.project_id, "key_id": caller.key_id, "member_id": owner.id}
    there = {
        "model": [BASE, tuned],
        "name": [BASE, tuned],
        "training_file": [job.training_file],
        "input_file_id": [asked.id],
        "id": [rows.id],
        "project_id": [caller.project_id],
        "job_id": [job.id],
        "url": ["https://hooks.example/a"],
    }
    return own, there


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
