"""`Idempotency-Key`, by Stripe's rules: the same request twice is done once and answered the same.

What the request makes is written down with it (`made_id`, for jobs and batches), so that a run that was killed after
its commit is not repeated: the next one finds the object and answers with it.

A key is kept for a day per project. What was refused before anything was done (4xx) is not kept, so that a mended
request may use its key again; what was answered otherwise is, a 500 too. Of an answer with a secret it is kept that
there was one: the secret itself is nowhere in clear, and a repeat is refused rather than answered with another.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from api.domain.errors import ErrorKind, ServiceError, invalid
from api.domain.keys import Caller
from api.services.held import HOLD_SECONDS
from api.store import idempotency
from api.store.database import Database

KEEP_SECONDS: Final = 86_400
PATIENCE_SECONDS: Final = 30
POLL_SECONDS: Final = 0.05
MAX_KEY: Final = 255
MAX_BODY_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    content_type: str
    body: bytes


class IdempotencyService:
    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def begin(self, caller: Caller, *, key: str, fingerprint: bytes) -> Answer | None:
        """None: the request is the caller's to run, and `end` must follow. Otherwise what it answered before.

        A twin that runs at this moment is waited for. Raises ServiceError for another request under the same key.
        """
        if not 1 <= len(key) <= MAX_KEY or not key.isprintable():
            raise invalid(
                f"An Idempotency-Key has 1 to {MAX_KEY} printable characters.", param="Idempotency-Key"
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            async with self._database.tenant(caller.project_id) as connection:
                if await idempotency.claim(
                    connection,
                    project_id=caller.project_id,
                    key=key,
                    fingerprint=fingerprint,
                    lock_seconds=HOLD_SECONDS,
                    keep_seconds=KEEP_SECONDS,
                ):
                    return None
                kept = await idempotency.find(connection, project_id=caller.project_id, key=key)
            if kept is not None and (answer := answer_of(kept, fingerprint)) is not None:
                return answer
            await asyncio.sleep(POLL_SECONDS)
        raise ServiceError(
            ErrorKind.UNAVAILABLE,
            "The first request with this Idempotency-Key still runs. Try again shortly.",
        )

    async def hold(self, caller: Caller, key: str) -> None:
        """While the request runs: no twin may begin."""
        async with self._database.tenant(caller.project_id) as connection:
            await idempotency.hold(
                connection, project_id=caller.project_id, key=key, lock_seconds=HOLD_SECONDS
            )

    async def end(
        self, caller: Caller, *, key: str, answer: Answer | None, instead: Answer | None = None
    ) -> None:
        """Keeps the answer; without one worth keeping the key is free again. `instead` is what is kept of an answer that
        holds a secret."""
        async with self._database.tenant(caller.project_id) as connection:
            if answer is None or not worth_keeping(answer):
                await idempotency.release(connection, project_id=caller.project_id, key=key)
            else:
                kept = vars(instead or answer)
                await idempotency.finish(connection, project_id=caller.project_id, key=key, **kept)


def answer_of(kept: idempotency.Kept, fingerprint: bytes) -> Answer | None:
    """None while the first request still runs."""
    if kept.fingerprint != fingerprint:
        raise invalid(
            "This Idempotency-Key was used with another request. Use a new key for a new request.",
            param="Idempotency-Key",
            code="idempotency_key_in_use",
        )
    if kept.status is None:
        return None
    return Answer(
        status=kept.status, content_type=kept.content_type or "application/json", body=kept.body or b""
    )


def worth_keeping(answer: Answer) -> bool:
    refused = 400 <= answer.status < 500 or answer.status == 503
    return not refused and len(answer.body) <= MAX_BODY_BYTES
