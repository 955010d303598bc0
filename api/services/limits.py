"""Rate limits per project and base model, and what was used.

The buckets live in this process: beside each other, n control planes let through up to n times a limit.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from api.domain.errors import ErrorKind, ServiceError, not_found
from api.domain.keys import Caller
from api.domain.limits import Bucket, RateLimit, Usage
from api.services.audit import AuditLog
from api.services.metering import Metering
from api.services.projects import live_project, project_of
from api.store import limits
from api.store.database import Database

REFRESH_SECONDS: Final = 1.0
MOST_PROJECTS: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Buckets:
    requests: Bucket
    tokens: Bucket


class LimitService:
    def __init__(
        self,
        *,
        database: Database,
        audit: AuditLog,
        metering: Metering,
        base_models: Sequence[str],
        default_requests: int,
        default_tokens: int,
    ) -> None:
        self._database, self._audit, self._base_models = database, audit, base_models
        self._metering = metering
        self._default_requests, self._default_tokens = default_requests, default_tokens
        self._buckets: dict[tuple[str, str], Buckets] = {}
        self._known: dict[str, tuple[float, Mapping[str, RateLimit]]] = {}

    async def admit(self, caller: Caller, *, base_model: str, tokens: int) -> Mapping[str, str]:
        """Takes one request; `tokens` is a guess at its prompt. The headers that tell what is left.

        Raises ServiceError(RATE_LIMITED) with the seconds to wait.
        """
        buckets = await self._of(caller.project_id, base_model)
        waits = {
            "requests": buckets.requests.seconds_until(1),
            "tokens": buckets.tokens.seconds_until(tokens),
        }
        what = max(waits, key=lambda name: waits[name])
        if waits[what] > 0:
            size = (buckets.requests if what == "requests" else buckets.tokens).size
            raise ServiceError(
                ErrorKind.RATE_LIMITED,
                f"Rate limit reached for `{base_model}`: {size} {what} per minute. "
                f"Try again in {waits[what]:.1f} s, or ask an owner of the organization for more.",
                code="rate_limit_exceeded",
                retry_after_seconds=waits[what],
            )
        buckets.requests.take(1)
        return headers(buckets)

    def settle(self, caller: Caller, *, base_model: str, model: str, usage: Usage) -> None:
        """Pays for what was answered and writes it down. Asks nobody: what was answered waits for no database."""
        buckets = self._buckets.get((caller.project_id, base_model))
        if buckets is not None:
            buckets.tokens.take(usage.input_tokens + usage.output_tokens)
        self.record(caller, model=model, usage=usage)

    def record(self, caller: Caller, *, model: str, usage: Usage) -> None:
        """Writes down what was used, without a limit."""
        self._metering.count(caller, model=model, usage=usage)

    async def _of(self, project_id: str, base_model: str) -> Buckets:
        limit = await self._limit(project_id, base_model)
        key = (project_id, base_model)
        if key not in self._buckets:
            if len(self._buckets) >= MOST_PROJECTS:
                self._buckets.clear()
            self._buckets[key] = Buckets(
                requests=Bucket(limit.requests, time.monotonic), tokens=Bucket(limit.tokens, time.monotonic)
            )
        self._buckets[key].requests.resize(limit.requests)
        self._buckets[key].tokens.resize(limit.tokens)
        return self._buckets[key]

    async def _limit(self, project_id: str, base_model: str) -> RateLimit:
        at, known = self._known.get(project_id, (0.0, None))
        if known is None or time.monotonic() - at > REFRESH_SECONDS:
            async with self._database.tenant(project_id) as connection:
                known = await limits.of_project(connection, project_id=project_id)
            self._known[project_id] = (time.monotonic(), known)
        return known.get(base_model) or self._default(base_model)

    def _default(self, base_model: str) -> RateLimit:
        return RateLimit(model=base_model, requests=self._default_requests, tokens=self._default_tokens)

    async def list(self, caller: Caller, project_id: str) -> Sequence[RateLimit]:
        caller.require_admin(project_id)
        async with self._database.transaction() as connection:
            await project_of(connection, caller, project_id)
            known = await limits.of_project(connection, project_id=project_id)
        return [known.get(name) or self._default(name) for name in self._base_models]

    async def change(
        self, caller: Caller, project_id: str, model: str, *, requests: int | None, tokens: int | None
    ) -> RateLimit:
        caller.require_admin()
        if model not in self._base_models:
            raise not_found(f"No rate limit for `{model}`: it is no base model here.", param="rate_limit_id")
        async with self._database.transaction() as connection:
            await live_project(connection, caller, project_id)
            before = (await limits.of_project(connection, project_id=project_id)).get(model) or self._default(
                model
            )
            limit = RateLimit(
                model=model,
                requests=before.requests if requests is None else requests,
                tokens=before.tokens if tokens is None else tokens,
            )
            await limits.put(connection, project_id=project_id, limit=limit)
            changes = {
                "max_requests_per_1_minute": limit.requests,
                "max_tokens_per_1_minute": limit.tokens,
            }
            details = {"id": f"rl-{model}", "changes_requested": changes}
            await self._audit.record(
                connection, caller, "rate_limit.updated", project_id=project_id, details=details
            )
        self._known.pop(project_id, None)
        return limit


def headers(buckets: Buckets) -> dict[str, str]:
    """OpenAI's names and its form of durations."""
    told = {}
    for name, bucket in (("requests", buckets.requests), ("tokens", buckets.tokens)):
        told[f"x-ratelimit-limit-{name}"] = str(bucket.size)
        told[f"x-ratelimit-remaining-{name}"] = str(max(0, int(bucket.level())))
        told[f"x-ratelimit-reset-{name}"] = duration(bucket.seconds_until(bucket.size))
    return told


def duration(seconds: float) -> str:
    """`120ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.3g}s"
    return f"{int(seconds // 60)}m{int(seconds % 60)}s"
