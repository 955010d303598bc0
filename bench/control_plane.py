"""The control plane alone: the real process over Postgres and S3, with many jobs of many projects in it.

Requests come from this process, on the same cores: the rates are what both together can do.
"""

import argparse
import asyncio
import io
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg

from api.blobs.objects import Blobs
from api.domain.errors import ServiceError
from api.services.keys import KeyService
from api.store.database import Database
from deploy.embedded import children, object_store, postgres
from deploy.embedded.ports import free_port

KEY: Final = "sk-tf-bench-0123456789abcdef"
PEPPER: Final = "bench-pepper-0123456789"
BASE: Final = "base"
PAGE: Final = 20
AT_ONCE: Final = 8
ROW: Final = {
    "messages": [{"role": "user", "content": "a" * 400}, {"role": "assistant", "content": "b" * 400}]
}
SEED_PROJECTS: Final = """
insert into project (id, organization_id, name)
select 'proj_bench' || n, (select id from organization), 'bench ' || n from generate_series(1, %s) n
"""
# The caller's project is one among the others, but deep enough for a thousand pages.
SEED_JOBS: Final = """
insert into job (id, project_id, organization_id, model, training_file, method, lora, seed, status, created_at)
select 'ftjob-bench' || n, case when n <= %s then job.project_id else 'proj_bench' || (1 + n %% %s) end,
       job.organization_id, job.model, job.training_file, job.method, job.lora, 1, 'succeeded',
       now() - make_interval(secs => n)
from job, generate_series(1, %s) n
"""
Call = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--projects", type=int, default=1_000)
    parser.add_argument("--requests", type=int, default=1_500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, control_plane(Path(folder)) as (url, database_url, blobs):
        asyncio.run(measure(url, database_url, blobs, options))


async def measure(url: str, database_url: str, blobs: Blobs, options: argparse.Namespace) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=f"{url}/v1", headers=headers, timeout=60) as client:
        job_id = await first_job(client)
        few = await rates(client, job_id, requests=options.requests)
        deep = 1_001 * PAGE
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(SEED_PROJECTS, (options.projects - 1,))
            connection.execute(SEED_JOBS, (deep, options.projects - 1, options.jobs))
            connection.execute("vacuum analyze job")
        many = await rates(client, job_id, requests=options.requests)
        for name in few:
            print(f"{name:<14} with 1 job          {few[name]}")
            print(f"{name:<14} with {options.jobs:,} jobs {many[name]}")
        await pages(client)
        await uploads(client, blobs)
        await key_checks(client, database_url)


async def first_job(client: httpx.AsyncClient) -> str:
    data = b"\n".join([json.dumps(ROW).encode()] * 12)
    file = await client.post("/files", files={"file": ("a.jsonl", data)}, data={"purpose": "fine-tune"})
    body = {"model": BASE, "training_file": file.json()["id"]}
    job: Mapping[str, Any] = (await client.post("/fine_tuning/jobs", json=body)).json()
    while job["status"] == "validating_files":
        await asyncio.sleep(0.1)
        job = (await client.get(f"/fine_tuning/jobs/{job['id']}")).json()
    return str(job["id"])


async def rates(client: httpx.AsyncClient, job_id: str, *, requests: int) -> Mapping[str, str]:
    calls: Mapping[str, Call] = {
        "jobs.retrieve": lambda http: http.get(f"/fine_tuning/jobs/{job_id}"),
        "jobs.list": lambda http: http.get("/fine_tuning/jobs", params={"limit": PAGE}),
    }
    return {name: await rate(client, call, requests=requests) for name, call in calls.items()}


async def rate(client: httpx.AsyncClient, call: Call, *, requests: int) -> str:
    times: list[float] = []

    async def some() -> None:
        for _ in range(requests // AT_ONCE):
            times.append(await timed(client, call))

    started = time.perf_counter()
    await asyncio.gather(*[some() for _ in range(AT_ONCE)])
    seconds = time.perf_counter() - started
    p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
    return f"{len(times) / seconds:6.0f} requests/s   p50 {p50 * 1e3:5.1f} ms   p99 {p99 * 1e3:5.1f} ms"


async def timed(client: httpx.AsyncClient, call: Call) -> float:
    started = time.perf_counter()
    reply = await call(client)
    assert reply.status_code == 200, reply.text
    return time.perf_counter() - started


async def pages(client: httpx.AsyncClient) -> None:
    """By their cursors, which are known beforehand: no page is reached by way of those before it."""

    def page(number: int) -> Call:
        after = f"ftjob-bench{(number - 1) * PAGE}" if number > 1 else None
        query = {"limit": PAGE} | ({"after": after} if after else {})
        return lambda http: http.get("/fine_tuning/jobs", params=query)

    times: dict[int, list[float]] = {1: [], 1000: []}
    for _ in range(200):
        for number, found in times.items():
            found.append(await timed(client, page(number)))
    first, last = (statistics.median(found) for found in times.values())
    print(f"jobs.list      page 1,000 over page 1: {last / first:.2f}   (goal: under 1.5)")


async def uploads(client: httpx.AsyncClient, blobs: Blobs) -> None:
    data = (json.dumps(ROW).encode() + b"\n") * 75_000
    ours, plain = [], []
    for turn in range(5):
        started = time.perf_counter()
        reply = await client.post("/files", files={"file": ("a.jsonl", data)}, data={"purpose": "fine-tune"})
        assert reply.status_code == 200, reply.text
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        await blobs.put(f"bench/plain-{turn}", source=io.BytesIO(data), size_bytes=len(data))
        plain.append(time.perf_counter() - started)
    size, ratio = len(data) / 2**20, statistics.median(plain) / statistics.median(ours)
    print(f"upload         {size:.0f} MiB, checked and stored: {ratio:.2f} of the speed of a plain PUT")


async def key_checks(client: httpx.AsyncClient, database_url: str, *, times: int = 20_000) -> None:
    """As a second control plane beside the first would check them: it hears of a revocation from the database."""
    database = Database(database_url)
    await database.open()
    keys = KeyService(database=database, pepper=PEPPER, new_id=lambda prefix: prefix)
    await keys.authenticate(KEY)
    started = time.perf_counter()
    for _ in range(times):
        await keys.authenticate(KEY)
    cached = (time.perf_counter() - started) / times
    print(f"key check      {cached * 1e3:.4f} ms, cached for a second   (goal: under 0.2)")
    late = [await seconds_to_revoke(client, keys, number) for number in range(5)]
    print(f"a revoked key  refused by another process after {max(late):.2f} s at most   (goal: within 1)")
    await database.close()


async def seconds_to_revoke(client: httpx.AsyncClient, keys: KeyService, number: int) -> float:
    project = (await client.post("/organization/projects", json={"name": f"revoked {number}"})).json()["id"]
    accounts = f"/organization/projects/{project}/service_accounts"
    key = (await client.post(accounts, json={"name": "ci"})).json()["api_key"]
    await keys.authenticate(key["value"])
    gone = await client.delete(f"/organization/projects/{project}/api_keys/{key['id']}")
    assert gone.status_code == 200, gone.text
    started = time.perf_counter()
    while True:
        try:
            await keys.authenticate(key["value"])
        except ServiceError:
            return time.perf_counter() - started
        await asyncio.sleep(0.005)


@contextmanager
def control_plane(folder: Path) -> Iterator[tuple[str, str, Blobs]]:
    """Its URL, the database's, and the object store."""
    database = postgres.start(folder / "pg", password="bench", log=folder / "pg.log", env=os.environ)
    store = object_store.start(
        folder / "s3", access_key="bench", secret_key="bench-secret", log=folder / "s3.log", env=os.environ
    )
    port, log = free_port(), folder / "api.log"
    settings = {
        "port": str(port),
        "grpc_port": str(free_port()),
        "database_url": database.url,
        "s3_endpoint": store.endpoint,
        "s3_access_key": "bench",
        "s3_secret_key": "bench-secret",
        "key_pepper": PEPPER,
        "bootstrap_key": KEY,
        "worker_token": "bench-worker-token",
        "serving_token": "bench-serving-token",
        # Nobody is asked for an answer here.
        "replicas": json.dumps(
            [{"base_model": BASE, "url": "http://127.0.0.1:9", "api_key": "none-0123456789ab"}]
        ),
    }
    env = os.environ | {f"TUNINGFORK_API_{name.upper()}": value for name, value in settings.items()}
    process = children.start([sys.executable, "-m", "api"], log=log, env=env)
    url = f"http://127.0.0.1:{port}"
    blobs = Blobs(
        endpoint=store.endpoint,
        access_key="bench",
        secret_key="bench-secret",
        bucket="tuningfork",
        secure=False,
        region="us-east-1",
    )
    try:
        children.wait_until(lambda: answers(url), seconds=60, what="The service", process=process, log=log)
        yield url, database.url, blobs
    finally:
        children.stop(process, first=signal.SIGTERM, grace_seconds=10)
        store.stop()
        database.stop()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {KEY}"}).is_success
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    main()
