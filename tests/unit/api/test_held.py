"""What is taken is taken again while the work goes on, and not a moment longer."""

import asyncio

from api.domain.errors import ErrorKind, ServiceError
from api.services import held


async def test_a_task_that_loses_a_cancellation_is_cancelled_again() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(60)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await held.ended(task)
    assert task.cancelled()


async def test_the_work_goes_on_when_it_cannot_be_held() -> None:
    tries = 0

    async def hold() -> None:
        nonlocal tries
        tries += 1
        raise ServiceError(ErrorKind.UNAVAILABLE, "no database")

    async with held.held(hold, every_seconds=0.01):
        while tries < 3:
            await asyncio.sleep(0.01)
    last = tries
    await asyncio.sleep(0.05)
    assert tries == last
