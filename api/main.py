"""The control plane's composition root: builds every part once and runs REST, gRPC and the background loops."""

import asyncio
import logging
import secrets
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

import uvicorn
import uvloop

from api import logs
from api.blobs.objects import Blobs
from api.domain.errors import ServiceError
from api.domain.ids import NewId, make_id
from api.parts import Parts
from api.rest import app as rest
from api.rest.patience import PatientProtocol
from api.rpc import server as rpc
from api.settings import ApiSettings
from api.store.database import Database
from api.store.migrate import migrate
from serving.gateway.client import ReplicaClient
from serving.gateway.replicas import Replicas

GRACE_SECONDS: Final = 3
START_PAUSE_SECONDS: Final = 0.5
PUBLISHERS: Final = 4  # jobs that may wait for their replica at the same time
EVAL_RUNNERS: Final = 2  # a slow grader of one run leaves the other to the next

log = logging.getLogger("tuningfork.start")


def run() -> None:
    logs.install()
    uvloop.run(serve(ApiSettings()))


async def serve(settings: ApiSettings) -> None:
    """Returns after SIGTERM or SIGINT, once running requests have had their grace."""
    new_id: NewId = partial(make_id, random_below=secrets.randbelow)
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url.get_secret_value())
        blobs = blobs_of(settings)
        await database.open()
        stack.push_async_callback(database.close)
        await patiently(partial(migrate, database))
        stack.callback(
            asyncio.create_task(blobs.ensure_bucket()).cancel
        )  # all but files works without a store
        replicas = replicas_of(settings)
        stack.push_async_callback(replicas.close)
        parts = Parts(settings, database=database, blobs=blobs, replicas=replicas, new_id=new_id)
        await patiently(parts.prepare)
        server = await rpc.build(
            leases=parts.leases,
            services=parts.services,
            new_request_id=partial(new_id, "req_"),
            worker_token=settings.worker_token.get_secret_value(),
            address=f"{settings.grpc_host}:{settings.grpc_port}",
            tls=tls_of(settings),
        )
        await server.start()
        stack.push_async_callback(server.stop, GRACE_SECONDS)
        app = rest.build(parts.services, new_request_id=partial(new_id, "req_"))
        await run_until_signal(parts, uvicorn_of(settings, app))


async def patiently(work: Callable[[], Awaitable[object]]) -> None:
    """A database that goes away again while we start is waited for: whoever started us would only start us again."""
    while True:
        try:
            await work()
            return
        except ServiceError as error:
            log.warning("the start waits: %s", error.message)
            await asyncio.sleep(START_PAUSE_SECONDS)


def tls_of(settings: ApiSettings) -> rpc.Tls | None:
    if settings.grpc_certificate is None or settings.grpc_key is None:
        return None
    return rpc.Tls(
        certificate=settings.grpc_certificate, key=settings.grpc_key, client_ca=settings.grpc_client_ca
    )


def blobs_of(settings: ApiSettings) -> Blobs:
    return Blobs(
        endpoint=settings.s3_endpoint,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.get_secret_value(),
        bucket=settings.s3_bucket,
        secure=settings.s3_secure,
    )


def replicas_of(settings: ApiSettings) -> Replicas:
    return Replicas(
        ReplicaClient(
            base_model=replica.base_model, url=replica.url, api_key=replica.api_key.get_secret_value()
        )
        for replica in settings.replicas
    )


def uvicorn_of(settings: ApiSettings, app: Any) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=PatientProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        lifespan="off",
    )
    return uvicorn.Server(config)


async def run_until_signal(parts: Parts, server: uvicorn.Server) -> None:
    """A loop that dies takes the process with it: whoever started us starts us again."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, partial(setattr, server, "should_exit", True))
    loops = [asyncio.create_task(loop.run()) for loop in parts.loops]
    loops += [asyncio.create_task(parts.publishing.run()) for _ in range(PUBLISHERS)]
    loops += [asyncio.create_task(parts.eval_runs.run()) for _ in range(EVAL_RUNNERS)]
    serving = asyncio.create_task(server.serve())
    await asyncio.wait({serving, *loops}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
    await parts.metering.close()
    await parts.scheduler.close()
    for loop in loops:
        if loop.done():
            loop.result()
        loop.cancel()
