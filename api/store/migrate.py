"""Brings the schema forward: numbered plain SQL files, each applied once, by one process at a time."""

from pathlib import Path

from api.store.database import Connection, Database

FOLDER = Path(__file__).parent / "migrations"
LOCK = 7_283_001  # any number, the same in every process


async def migrate(database: Database) -> list[str]:
    """Names of the migrations that were applied now."""
    async with database.transaction() as connection:
        await connection.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
        await connection.execute("create table if not exists migration (name text primary key)")
        cursor = await connection.execute("select name from migration")
        known = {row["name"] for row in await cursor.fetchall()}
        missing = [path for path in sorted(FOLDER.glob("*.sql")) if path.stem not in known]
        for path in missing:
            await apply(connection, path)
        return [path.stem for path in missing]


async def apply(connection: Connection, path: Path) -> None:
    await connection.execute(path.read_bytes())
    await connection.execute("insert into migration values (%s)", (path.stem,))
