"""What is claimed is claimed again while the work goes on, whatever becomes of a single try."""

import asyncio

from api.domain.errors import ErrorKind, ServiceError
from api.services.holding import held


async def test_a_claim_is_renewed_until_the_work_is_done() -> None:
    renewed = 0

    async def renew() -> None:
        nonlocal renewed
        renewed += 1
        if renewed == 1:
            raise ServiceError(ErrorKind.UNAVAILABLE, "no database")

    async with held(renew, every_seconds=0.01):
        while renewed < 3:
            await asyncio.sleep(0.01)
    last = renewed
    await asyncio.sleep(0.05)
    assert renewed == last
