"""A database that goes away in the middle of something."""

import asyncio
from urllib.parse import urlsplit

import pytest

from api.domain.errors import ErrorKind, ServiceError
from api.store.database import Database
from tests.support.fault_proxy import Proxies
from tests.support.stores import fresh_database


async def test_a_cancelled_transaction_stays_cancelled_when_the_database_goes_meanwhile(
    postgres_url: str,
) -> None:
    url, proxies = await fresh_database(postgres_url), Proxies()
    port = urlsplit(url).port
    assert port is not None
    network = proxies.to(port)
    database = Database(url.replace(f":{port}/", f":{network.port}/"))
    await database.open()

    async def work() -> None:
        async with database.transaction() as connection:
            await connection.execute("select pg_sleep(30)")

    cancelled, refused = asyncio.create_task(work()), asyncio.create_task(work())
    await asyncio.sleep(0.3)
    await asyncio.to_thread(network.hang)
    cancelled.cancel()
    await asyncio.sleep(0.1)
    await asyncio.to_thread(network.cut)
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    with pytest.raises(ServiceError) as error:
        await refused
    assert error.value.kind is ErrorKind.UNAVAILABLE
    await database.close()
    proxies.close()
