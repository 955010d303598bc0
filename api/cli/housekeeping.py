"""`tuningfork backup`, `restore` and `janitor`: on the stores of a home, whether its service runs or not, or on yours."""

import argparse
import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api.blobs.objects import Blobs
from api.cli.service import settings_from
from api.domain.errors import ServiceError
from api.services import backup
from api.services.janitor import Janitor
from api.services.wakeups import Wakeup
from api.settings import KeepSettings
from api.store.database import Database
from deploy.embedded import stores
from deploy.embedded.credentials import write_private
from deploy.embedded.home import Home
from deploy.embedded.settings import UpSettings
from deploy.embedded.stores import Stores


@contextmanager
def told() -> Iterator[None]:
    """In a sentence instead of a traceback."""
    try:
        yield
    except (backup.BackupError, ServiceError) as error:
        raise SystemExit(getattr(error, "message", str(error))) from error


def run_backup(options: argparse.Namespace) -> int:
    settings, folder = settings_from(options), options.folder
    secrets = settings.home / "secrets.json"
    with told(), stores.reached(settings) as reached:
        kept = secrets.read_bytes() if secrets.is_file() else None
        manifest = asyncio.run(make(folder, reached, secrets=kept))
    size = sum(entry.size_bytes for entry in manifest.files.values())
    print(f"{folder}: {len(manifest.tables)} tables and {len(manifest.objects)} objects, {size} bytes.")
    if kept is None:
        print("It holds no secrets: keep TUNINGFORK_API_KEY_PEPPER, without which no API key works.")
    else:
        print("It holds the service's secrets: whoever reads it can read everything.")
    return 0


async def make(folder: Path, reached: Stores, *, secrets: bytes | None) -> backup.Manifest:
    database = Database(reached.database_url)
    await database.open()
    try:
        return await backup.back_up(folder, database=database, blobs=blobs_of(reached), secrets=secrets)
    finally:
        await database.close()


def run_restore(options: argparse.Namespace) -> int:
    settings, folder = settings_from(options), options.folder
    with told():
        manifest = backup.checked(folder)
        if "secrets.json" in manifest.files:
            take_secrets(settings, (folder / "secrets.json").read_text())
        with stores.reached(settings) as reached:
            asyncio.run(put_back(folder, manifest, reached))
    bases = ", ".join(manifest.base_models) or "any base model"
    print(
        f"{len(manifest.tables)} tables and {len(manifest.objects)} objects are back. Its models stand on {bases}."
    )
    return 0


def take_secrets(settings: UpSettings, text: str) -> None:
    """Before anything of the home is made with others."""
    target = Home(settings.home).secrets
    if not target.exists():
        write_private(target, text)
    elif target.read_text() != text:
        raise SystemExit(f"Nothing is restored over another service: {target} holds other secrets.")


async def put_back(folder: Path, manifest: backup.Manifest, reached: Stores) -> None:
    blobs = blobs_of(reached)
    await blobs.ensure_bucket()
    await backup.restore(folder, manifest=manifest, url=reached.database_url, blobs=blobs)


def run_janitor(options: argparse.Namespace) -> int:
    with told(), stores.reached(settings_from(options)) as reached:
        found = asyncio.run(rehearsed(reached))
    for what, count in found.items():
        print(f"{count:>9}  {what}")
    return 0


async def rehearsed(reached: Stores) -> dict[str, int]:
    database = Database(reached.database_url)
    await database.open()
    janitor = Janitor(
        database=database,
        blobs=blobs_of(reached),
        retention=KeepSettings().retention(),
        woken_by=Wakeup(),
    )
    try:
        return dict(await janitor.rehearse())
    finally:
        await database.close()


def blobs_of(reached: Stores) -> Blobs:
    return Blobs(
        endpoint=reached.s3_endpoint,
        access_key=reached.s3_access_key,
        secret_key=reached.s3_secret_key,
        bucket=reached.s3_bucket,
        secure=reached.s3_secure,
        region=reached.s3_region,
    )
