"""Where a home's database and bucket are: those of the running service, the operator's own, or started for a while."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from deploy.embedded import credentials, object_store, postgres
from deploy.embedded.home import Home
from deploy.embedded.settings import UpSettings, inherited_environment

FILE: Final = "stores.json"


@dataclass(frozen=True, kw_only=True)
class Stores:
    database_url: str
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str
    s3_bucket: str
    s3_secure: bool
    s3_region: str = "us-east-1"  # a service of the release before wrote none


def remember(home: Home, stores: Stores) -> None:
    """So that commands beside the running service find them."""
    credentials.write_private(home.path / FILE, json.dumps(asdict(stores)))


def forget(home: Home) -> None:
    (home.path / FILE).unlink(missing_ok=True)


@contextmanager
def reached(settings: UpSettings) -> Iterator[Stores]:
    """Raises SystemExit with the reason when they cannot be."""
    if settings.database_url and settings.s3_endpoint:
        yield own(settings, database_url="", endpoint="", secrets=None)
        return
    home = Home(settings.home)
    with ExitStack() as stack:
        try:
            stack.enter_context(home.locked())
        except SystemExit:
            yield running(home.path / FILE)
            return
        home.end_leftovers()
        yield started(settings, home, stack)


def running(path: Path) -> Stores:
    if not path.exists():
        raise SystemExit("The service is just starting or ending: try again in a moment.")
    return Stores(**json.loads(path.read_text()))


def started(settings: UpSettings, home: Home, stack: ExitStack) -> Stores:
    secrets = credentials.load_or_make(home.secrets)
    url = endpoint = ""
    pids: list[int] = []
    env = inherited_environment()
    if settings.database_url is None:
        folder, log = home.path / "postgres", home.log("postgres")
        server = postgres.start(folder, password=secrets.postgres_password, log=log, env=env)
        stack.callback(server.stop)
        url, pids = server.url, [*pids, server.process.pid]
    if settings.s3_endpoint is None:
        objects = object_store.start(
            home.path / "objects",
            access_key=secrets.s3_access_key,
            secret_key=secrets.s3_secret_key,
            log=home.log("object_store"),
            env=env,
        )
        stack.callback(objects.stop)
        endpoint, pids = objects.endpoint, [*pids, objects.process.pid]
    home.remember(pids)
    return own(settings, database_url=url, endpoint=endpoint, secrets=secrets)


def own(
    settings: UpSettings, *, database_url: str, endpoint: str, secrets: credentials.Credentials | None
) -> Stores:
    """What the operator has named counts before what was started."""
    if settings.s3_endpoint is None and secrets is not None:
        access_key, secret_key = secrets.s3_access_key, secrets.s3_secret_key
    elif settings.s3_access_key is not None and settings.s3_secret_key is not None:
        access_key, secret_key = settings.s3_access_key, settings.s3_secret_key.get_secret_value()
    else:
        raise SystemExit("TUNINGFORK_S3_ENDPOINT needs TUNINGFORK_S3_ACCESS_KEY and _S3_SECRET_KEY.")
    return Stores(
        database_url=settings.database_url.get_secret_value() if settings.database_url else database_url,
        s3_endpoint=settings.s3_endpoint or endpoint,
        s3_access_key=access_key,
        s3_secret_key=secret_key,
        s3_bucket=settings.s3_bucket,
        s3_secure=settings.s3_secure,
        s3_region=settings.s3_region if settings.s3_endpoint else Stores.s3_region,
    )
