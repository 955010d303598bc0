"""A backup: the rows of one moment, the objects that they name, and last a manifest with the size and SHA-256 of each.

It is made while the service runs: bytes that go are held back until it is whole. It is read whole, and compared with its
manifest, before a restore writes anything.
"""

import asyncio
import gzip
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from api.blobs.objects import PREFIXES, Blobs
from api.services.held import held
from api.store import deletions, snapshot
from api.store.database import Connection, Database
from api.store.snapshot import Referenced

MANIFEST: Final = "manifest.json"
DIGEST: Final = "manifest.sha256"
FORMAT: Final = 1
HOLD_SECONDS: Final = 600.0
RENEW_SECONDS: Final = 60.0
COPIES_AT_ONCE: Final = 4
CHUNK_BYTES: Final = 1024 * 1024


class BackupError(Exception):
    """The text says what is wrong, for an operator."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file of the backup, by its place in the folder."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`tables`: the columns of each, as they lie in its file. `base_models`: what the models in it were trained on."""

    migrations: Sequence[str]
    tables: Mapping[str, Sequence[str]]
    base_models: Sequence[str]
    files: Mapping[str, Entry]

    @property
    def objects(self) -> list[str]:
        return [name.removeprefix("objects/") for name in self.files if name.startswith("objects/")]


async def back_up(folder: Path, *, database: Database, blobs: Blobs, secrets: bytes | None) -> Manifest:
    """`secrets`: the service's own, to be kept with the rows that need them. Raises BackupError."""
    if folder.exists() and any(folder.iterdir()):
        raise BackupError(f"{folder} is not empty.")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    files: dict[str, Entry] = {}
    async with bytes_held_back(database), snapshot.connected(database.url) as connection:
        async with snapshot.frozen(connection):
            known = await snapshot.migrations(connection)
            tables = await snapshot.tables(connection)
            bases = await snapshot.base_models(connection)
            objects = await snapshot.referenced(connection)
            for table, columns in tables.items():
                name = f"tables/{table}.gz"
                files[name] = await write_table(connection, table, columns, folder / name)
        files |= await copy_objects(objects, blobs=blobs, folder=folder)
    if secrets is not None:
        files["secrets.json"] = write_bytes(folder / "secrets.json", secrets)
    manifest = Manifest(migrations=known, tables=tables, base_models=bases, files=files)
    text = json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1, sort_keys=True).encode()
    write_bytes(folder / MANIFEST, text)
    write_bytes(
        folder / DIGEST, hashlib.sha256(text).hexdigest().encode()
    )  # last: without it there is no backup
    return manifest


@asynccontextmanager
async def bytes_held_back(database: Database) -> AsyncIterator[None]:
    """No bytes go meanwhile, or BackupError in the end. A backup that is killed holds them back for ten minutes more."""
    hold_id = f"backup-{uuid.uuid4().hex}"

    async def renew() -> None:
        async with database.transaction() as connection:
            await deletions.renew_hold(connection, hold_id=hold_id, seconds=HOLD_SECONDS)

    async with database.transaction() as connection:
        if not await deletions.hold(connection, hold_id=hold_id, seconds=HOLD_SECONDS):
            raise BackupError("Another backup is being made, or one was killed less than ten minutes ago.")
    try:
        async with held(renew, every_seconds=RENEW_SECONDS):
            yield
    finally:
        async with database.transaction() as connection:
            kept = await deletions.release(connection, hold_id=hold_id)
    if not kept:
        raise BackupError("Bytes were not held back all the time: Postgres was away for too long. Try again.")


async def write_table(connection: Connection, table: str, columns: Sequence[str], path: Path) -> Entry:
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wb", compresslevel=1) as file:
        async for chunk in snapshot.rows_of(connection, table, columns):
            file.write(chunk)
    return await asyncio.to_thread(entry_of, path)


async def copy_objects(objects: Sequence[Referenced], *, blobs: Blobs, folder: Path) -> dict[str, Entry]:
    places = asyncio.Semaphore(COPIES_AT_ONCE)

    async def one(wanted: Referenced) -> tuple[str, Entry]:
        name = f"objects/{wanted.blob_key}"
        async with places:
            return name, await copy_object(wanted, blobs=blobs, path=folder / name)

    return dict(await asyncio.gather(*(one(wanted) for wanted in objects)))


async def copy_object(wanted: Referenced, *, blobs: Blobs, path: Path) -> Entry:
    """As many bytes as the row says: one that grows under its id has more by now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        async for chunk in blobs.read(wanted.blob_key, size_bytes=wanted.size_bytes):
            digest.update(chunk)
            size += file.write(chunk)
    if size != wanted.size_bytes or (wanted.sha256 and digest.hexdigest() != wanted.sha256):
        raise BackupError(f"{wanted.blob_key} is not what its row says: its size or SHA-256 differs.")
    return Entry(size_bytes=size, sha256=digest.hexdigest())


def write_bytes(path: Path, content: bytes) -> Entry:
    path.touch(mode=0o600)
    path.write_bytes(content)
    return Entry(size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def entry_of(path: Path) -> Entry:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return Entry(size_bytes=path.stat().st_size, sha256=digest.hexdigest())


def checked(folder: Path) -> Manifest:
    """Reads every file of the backup. Raises BackupError for one that is missing or has other bytes."""
    try:
        text, digest = (folder / MANIFEST).read_bytes(), (folder / DIGEST).read_text().strip()
    except OSError as error:
        raise BackupError(
            f"{folder} holds no whole backup: {Path(error.filename).name} is missing."
        ) from error
    if hashlib.sha256(text).hexdigest() != digest:
        raise BackupError(f"{MANIFEST} is damaged.")
    fields: dict[str, Any] = json.loads(text)
    if fields.pop("format") != FORMAT:
        raise BackupError("The backup was made by a later release: restore it with that one.")
    files = {name: Entry(**entry) for name, entry in fields.pop("files").items()}
    for name, entry in files.items():
        if not (folder / name).is_file() or entry_of(folder / name) != entry:
            raise BackupError(f"{name} of the backup is missing or damaged. Nothing was written.")
    return Manifest(files=files, **fields)


async def restore(folder: Path, *, manifest: Manifest, url: str, blobs: Blobs) -> None:
    """Into an empty database and a bucket that holds nothing else. The rows come last, all or none: what fails before
    can be tried again. Raises BackupError."""
    try:
        async with snapshot.connected(url) as connection:
            await snapshot.check_empty(connection)
            await connection.rollback()
            await check_bucket(blobs, manifest)
            for key in manifest.objects:
                path = folder / "objects" / key
                with path.open("rb") as source:
                    await blobs.put(key, source=source, size_bytes=path.stat().st_size)
            async with snapshot.filled(connection, known=manifest.migrations):
                for table, columns in manifest.tables.items():
                    await snapshot.put_rows(
                        connection, table, columns, unpacked(folder / f"tables/{table}.gz")
                    )
    except snapshot.NotEmptyError as error:
        raise BackupError(f"Nothing is restored over another service: {error}.") from error
    except snapshot.UnknownMigrationError as error:
        raise BackupError(
            f"The backup was made by a later release, which has {error}: restore it with that one."
        ) from error


async def check_bucket(blobs: Blobs, manifest: Manifest) -> None:
    """What an interrupted restore has left may be there."""
    ours = set(manifest.objects)
    for prefix in PREFIXES:
        after = ""
        while page := await blobs.page(prefix, after=after, limit=1000):
            after = page[-1].key
            if strange := [found.key for found in page if found.key not in ours]:
                raise BackupError(f"Nothing is restored over another service: the bucket has {strange[0]}.")


def unpacked(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
