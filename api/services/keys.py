"""API keys: from a bearer token to a caller. Only a key's HMAC is stored, so a stolen database opens nothing."""

import hashlib
import hmac
import logging
import time
from typing import Final

from api.domain.errors import ErrorKind, ServiceError
from api.domain.ids import NewId
from api.domain.keys import Caller
from api.store import keys
from api.store.database import Database

CACHE_SECONDS: Final = 1.0
CACHE_SIZE: Final = 10_000
DEFAULT_PROJECT: Final = "default"

log = logging.getLogger("tuningfork.keys")


class KeyService:
    def __init__(self, *, database: Database, pepper: str, new_id: NewId) -> None:
        self._database, self._pepper, self._new_id = database, pepper.encode(), new_id
        self._known: dict[bytes, tuple[float, Caller]] = {}

    async def bootstrap(self, *, organization: str, key: str) -> None:
        """The operator's own key, in the default project. A key that is there stays where it is."""
        async with self._database.transaction() as connection:
            slug = await keys.ensure_key(
                connection,
                organization=organization,
                project=DEFAULT_PROJECT,
                digest=self.digest(key),
                redacted=masked(key),
                new_id=self._new_id,
            )
        if slug != organization:
            log.warning(
                "the operator's key stays in the organization %r: %r would be made with another key alone",
                slug,
                organization,
            )
        self.forget()
        try:
            await self.authenticate(key)
        except ServiceError as error:
            if error.kind is not ErrorKind.UNAUTHENTICATED:
                raise
            log.warning(
                "the operator's key is refused: it was revoked, has expired, or its project is archived"
            )

    def forget(self) -> None:
        """After a key was revoked here. Other processes forget within a second."""
        self._known.clear()

    async def authenticate(self, token: str | None) -> Caller:
        """A revoked key stops working within a second. Raises ServiceError(UNAUTHENTICATED)."""
        if not token:
            raise ServiceError(
                ErrorKind.UNAUTHENTICATED,
                "You didn't provide an API key. Send it as 'Authorization: Bearer <key>'; `tuningfork up` "
                "writes one to client.env in its home folder.",
            )
        digest = self.digest(token)
        at, caller = self._known.get(digest, (0.0, None))
        if caller is not None and time.monotonic() - at < CACHE_SECONDS:
            return caller
        async with self._database.transaction() as connection:
            caller = await keys.find_caller(connection, digest=digest)
        if caller is None:
            raise ServiceError(
                ErrorKind.UNAUTHENTICATED,
                f"Incorrect API key provided: {masked(token)}. Use the key in client.env of the service's home "
                "folder, or ask its operator for one.",
                code="invalid_api_key",
            )
        if len(self._known) >= CACHE_SIZE:
            self._known.clear()
        self._known[digest] = (time.monotonic(), caller)
        return caller

    def digest(self, key: str) -> bytes:
        return hmac.digest(self._pepper, key.encode(), hashlib.sha256)


def masked(token: str) -> str:
    return f"{token[:6]}…{token[-4:]}" if len(token) >= 20 else "…"
