"""A janitor over real stores, with every duty due at once."""

from api.domain.retention import Retention
from api.services.janitor import DUTIES, Janitor
from api.services.wakeups import Wakeup
from tests.support.stores import World

SHORT = Retention(event_days=7, usage_days=90, checkpoint_days=1000)


def janitor_of(world: World, retention: Retention = SHORT) -> Janitor:
    return Janitor(database=world.database, blobs=world.blobs, retention=retention, woken_by=Wakeup())


async def swept(world: World, retention: Retention = SHORT) -> None:
    """Each duty has been done: what was taken from the rows is gone from the bucket too."""
    janitor = janitor_of(world, retention)
    await janitor.sweep()
    for _ in range(4):  # bytes wait for the rows; the bucket has three prefixes
        async with world.database.transaction() as connection:
            await connection.execute("update janitor_duty set due_at = now()")
            await connection.execute("update deletion set try_at = now()")
        await janitor.sweep()


async def run_by(world: World) -> dict[str, int]:
    """How much each duty has swept so far."""
    async with world.database.transaction() as connection:
        rows = await (await connection.execute("select name, swept from janitor_duty")).fetchall()
    assert {row["name"] for row in rows} <= {duty.name for duty in DUTIES}
    return {row["name"]: row["swept"] for row in rows}
