"""The control plane's composition root: builds every part once and runs REST, gRPC and the background loops."""

import asyncio
import contextlib
import logging
import math
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
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
from api.services.publishing import MOST_PER_BASE
from api.settings import MIN_SECRET, ApiSettings
from api.store.database import Database
from api.store.migrate import migrate
from serving.gateway.client import ReplicaClient
from serving.gateway.replicas import Replicas

START_PAUSE_SECONDS: Final = 0.5
DELIVERERS: Final = 4  # a slow receiver holds up few others
EVAL_RUNNERS: Final = 2  # a slow grader of one run leaves the other to the next

log = logging.getLogger("tuningfork.start")


def run() -> None:
    logs.install()
    uvloop.run(serve(ApiSettings()))


async def serve(settings: ApiSettings) -> None:
    """Returns after SIGTERM or SIGINT, once running requests have had their grace."""
    if len(settings.key_pepper.get_secret_value()) < MIN_SECRET:
        log.warning(
            "the key pepper is shorter than %d characters: whoever guesses it and reads the database can try keys",
            MIN_SECRET,
        )
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
        engines = await rpc.build(
            leases=parts.leases,
            services=parts.services,
            new_request_id=partial(new_id, "req_"),
            worker_token=settings.worker_token.get_secret_value(),
            address=grpc_address(settings),
            tls=tls_of(settings),
            reuse_port=settings.reuse_port,
        )
        await engines.grpc.start()
        app = rest.build(parts.services, new_request_id=partial(new_id, "req_"))
        await run_until_signal(parts, uvicorn_of(settings, app), engines, settings)


async def patiently(work: Callable[[], Awaitable[object]]) -> None:
    """A database that goes away again while we start is waited for: whoever started us would only start us again."""
    while True:
        try:
            await work()
            return
        except ServiceError as error:
            log.warning("the start waits: %s", error.message)
            await asyncio.sleep(START_PAUSE_SECONDS)


def grpc_address(settings: ApiSettings) -> str:
    host = settings.grpc_host.removeprefix("[").removesuffix("]")
    return f"[{host}]:{settings.grpc_port}" if ":" in host else f"{host}:{settings.grpc_port}"


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
        region=settings.s3_region,
    )


def replicas_of(settings: ApiSettings) -> Replicas:
    return Replicas(
        ReplicaClient(
            base_model=replica.base_model, url=replica.url, api_key=replica.api_key.get_secret_value()
        )
        for replica in settings.replicas
    )


class RestServer(uvicorn.Server):
    """Ends when it is told to, not by a signal of its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def uvicorn_of(settings: ApiSettings, app: Any) -> RestServer:
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=PatientProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.grace_seconds),
        lifespan="off",
    )
    return RestServer(config)


def listening(settings: ApiSettings) -> list[socket.socket] | None:
    """A socket that another process may listen on beside us; None: uvicorn's own, which is ours alone."""
    if not settings.reuse_port:
        return None
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((settings.host, settings.port))
    return [sock]


async def run_until_signal(
    parts: Parts, server: RestServer, engines: rpc.Server, settings: ApiSettings
) -> None:
    """A loop that dies takes the process with it: whoever started us starts us again."""
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    loops = [asyncio.create_task(loop.run()) for loop in parts.loops]
    loops += [asyncio.create_task(parts.publishing.run()) for _ in range(publishers(settings))]
    loops += [asyncio.create_task(parts.deliveries.run()) for _ in range(DELIVERERS)]
    loops += [asyncio.create_task(parts.eval_runs.run()) for _ in range(EVAL_RUNNERS)]
    serving = asyncio.create_task(server.serve(listening(settings)))
    stop = asyncio.create_task(asked.wait())
    await asyncio.wait({serving, stop, *loops}, return_when=asyncio.FIRST_COMPLETED)
    await drain(parts, engines)
    if asked.is_set():
        await asyncio.wait({serving, *loops}, timeout=settings.drain_seconds)
    server.should_exit = True
    await asyncio.gather(serving, engines.grpc.stop(settings.grace_seconds))
    await parts.metering.close()
    await parts.scheduler.close()
    for loop in (*loops, stop):
        if loop.done() and not loop.cancelled():
            loop.result()
        loop.cancel()


def publishers(settings: ApiSettings) -> int:
    """Enough for every base, and for jobs of bases that were taken away: no replica that hangs holds up another's jobs."""
    return MOST_PER_BASE * (len(settings.replicas) + 1)


async def drain(parts: Parts, engines: rpc.Server) -> None:
    """Everything is served on; whoever asks is told to go elsewhere."""
    parts.services.health.draining = True
    parts.leases.drain()
    await engines.drain()
