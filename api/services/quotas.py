"""Quotas of a project: what is left of them, refusals, and what an owner sets.

A check stands in the transaction of the write that it allows, behind a lock of the project, so that any number of
requests at once cannot pass a limit together.
"""

from collections.abc import Mapping
from typing import Any, Final, get_args

from api.domain.cost import Pricing
from api.domain.errors import ErrorKind, ServiceError, invalid
from api.domain.keys import Caller
from api.domain.priorities import Priority, Standing
from api.domain.quotas import Quota, QuotaReport, Quotas
from api.services.audit import AuditLog
from api.services.projects import live_project, project_of
from api.store import quotas
from api.store.database import Connection, Database

NAMES: Final[tuple[Quota, ...]] = get_args(Quota)
OWNER: Final = "or ask an owner of the organization for more."
MEND: Final[Mapping[Quota, tuple[str, str]]] = {
    "storage_bytes": ("bytes of files and pending uploads", f"Delete files, {OWNER}"),
    "queued_jobs": ("jobs that wait or are paused", f"Wait until some have started, cancel some, {OWNER}"),
    "running_jobs": ("jobs that run", f"Wait until some have ended, {OWNER}"),
    "training_tokens": ("tokens trained in this calendar month (UTC)", f"Wait for the next month, {OWNER}"),
    "training_cost": ("for training in this calendar month (UTC)", f"Wait for the next month, {OWNER}"),
}


class QuotaService:
    def __init__(
        self,
        *,
        database: Database,
        audit: AuditLog,
        defaults: Quotas,
        pricing: Pricing,
        standing: Standing = Standing(),  # noqa: B008 - frozen
    ) -> None:
        """`standing`: of a project of which no owner has said otherwise."""
        self._database, self._audit, self._defaults = database, audit, defaults
        self._default_standing, self._pricing = standing, pricing

    @property
    def default_running_jobs(self) -> int:
        return self._defaults.running_jobs

    async def check_job(self, connection: Connection, project_id: str) -> None:
        """Before a job is written. Raises ServiceError(OVER_QUOTA)."""
        await quotas.lock(connection, project_id=project_id)
        await self._check(connection, project_id, "queued_jobs", more=1)
        await self._check(connection, project_id, "training_tokens", more=1)
        await self._check_cost(connection, project_id)

    async def check_priority(self, connection: Connection, project_id: str, asked: Priority) -> None:
        """Raises ServiceError(INVALID) for more than the project's jobs may be given."""
        most = (await self._standing(connection, project_id)).max_priority
        if asked > most:
            raise invalid(
                f"Invalid 'priority': jobs of your project may be given at most '{most.word}'. An owner of the "
                "organization can allow more by the project's quota 'max_priority'.",
                param="priority",
            )

    async def _standing(self, connection: Connection, project_id: str) -> Standing:
        own = await quotas.standing(connection, project_id=project_id)
        default = self._default_standing
        return Standing(
            weight=own.get("weight", default.weight),
            max_priority=Priority(own.get("max_priority", default.max_priority)),
        )

    async def check_storage(self, connection: Connection, project_id: str, *, more: int) -> None:
        """Before `more` bytes are written down. Raises ServiceError(OVER_QUOTA)."""
        await quotas.lock(connection, project_id=project_id)
        await self._check(connection, project_id, "storage_bytes", more=more)

    async def check_start(self, connection: Connection, project_id: str) -> None:
        """Before a job begins to train: those before it may have used up the month's tokens or money meanwhile."""
        await quotas.lock(connection, project_id=project_id)
        await self._check(connection, project_id, "training_tokens", more=1)
        await self._check_cost(connection, project_id)

    async def cost_reached(self, connection: Connection, project_id: str) -> float | None:
        """The money that the project may spend on training in a month, once it has."""
        own = await quotas.own(connection, project_id=project_id)
        limit = own.get("training_cost", self._defaults.training_cost)
        if limit is None or await self._used(connection, "training_cost", project_id) < limit:
            return None
        return limit

    async def _check_cost(self, connection: Connection, project_id: str) -> None:
        limit = await self.cost_reached(connection, project_id)
        if limit is not None:
            used = await self._used(connection, "training_cost", project_id)
            raise over("training_cost", limit=limit, used=used, unit=f" {self._pricing.currency}")

    async def _check(self, connection: Connection, project_id: str, quota: Quota, *, more: int) -> None:
        own = await quotas.own(connection, project_id=project_id)
        limit = own.get(quota, getattr(self._defaults, quota))
        used = await self._used(connection, quota, project_id)
        if used + more > limit:
            raise over(quota, limit=limit, used=used, more=more)

    async def _used(self, connection: Connection, quota: Quota, project_id: str) -> float:
        if quota == "training_cost":
            return self._pricing.of_all(await quotas.spent_this_month(connection, project_id=project_id))
        return await quotas.used(connection, quota, project_id=project_id)

    async def report(self, caller: Caller, project_id: str) -> QuotaReport:
        caller.require_admin(project_id)
        async with self._database.transaction() as connection:
            await project_of(connection, caller, project_id)
            return await self._report(connection, project_id)

    async def _report(self, connection: Connection, project_id: str) -> QuotaReport:
        own = await quotas.own(connection, project_id=project_id)
        used: dict[str, Any] = {name: await self._used(connection, name, project_id) for name in NAMES}
        limits: dict[str, Any] = {name: own.get(name, getattr(self._defaults, name)) for name in NAMES}
        standing = await self._standing(connection, project_id)
        return QuotaReport(limits=Quotas(**limits), used=Quotas(**used), standing=standing)

    async def change(
        self,
        caller: Caller,
        project_id: str,
        changes: Mapping[Quota, float | None],
        *,
        standing: Mapping[str, int | None],
    ) -> QuotaReport:
        """None sets a quota back to the operator's default; what is not named stays. Counts from now on."""
        caller.require_admin()
        async with self._database.transaction() as connection:
            await live_project(connection, caller, project_id)
            await quotas.lock(connection, project_id=project_id)
            own = await quotas.own(connection, project_id=project_id)
            values = {name: changes[name] if name in changes else own.get(name) for name in NAMES}
            await quotas.put(connection, project_id=project_id, values=values)
            if standing:
                stands = {**await quotas.standing(connection, project_id=project_id), **standing}
                await quotas.stand(
                    connection,
                    project_id=project_id,
                    weight=stands.get("weight"),
                    max_priority=stands.get("max_priority"),
                )
            requested = {str(name): value for name, value in changes.items()} | dict(standing)
            details = {"id": project_id, "changes_requested": requested}
            await self._audit.record(
                connection, caller, "project.quotas.updated", project_id=project_id, details=details
            )
            return await self._report(connection, project_id)


def over(quota: Quota, *, limit: float, used: float, more: int = 0, unit: str = "") -> ServiceError:
    what, mend = MEND[quota]
    asked = f", and this needs {more} more" if quota == "storage_bytes" else ""
    return ServiceError(
        ErrorKind.OVER_QUOTA,
        f"You exceeded a quota of your project: {shown(limit)}{unit} {what}. It has {shown(used)}{asked}. {mend}",
        code=f"{quota}_quota_exceeded",
    )


def shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"
