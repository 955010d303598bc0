"""Usage and costs of an organization, for its owners."""

from collections.abc import Mapping, Sequence
from typing import Literal

from api.domain.errors import invalid
from api.domain.keys import Caller
from api.domain.usage import Cost, Price, Span, UsageBucket, UsageFilter, costs
from api.services.metering import Metering
from api.store import usage
from api.store.database import Database

PRICED = ("project_id", "api_key_id", "model")


class UsageService:
    def __init__(self, *, database: Database, metering: Metering, prices: Mapping[str, Price]) -> None:
        self._database, self._metering, self._prices = database, metering, prices

    async def added_up(
        self, caller: Caller, kind: Literal["requests", "training"], span: Span, wanted: UsageFilter
    ) -> Sequence[UsageBucket]:
        """Oldest first."""
        check(caller, span)
        await self._metering.flush()
        async with self._database.transaction() as connection:
            return await usage.added_up(
                connection, kind, organization_id=caller.organization_id, span=span, wanted=wanted
            )

    async def costs(self, caller: Caller, span: Span, wanted: UsageFilter) -> Sequence[Cost]:
        """By the operator's prices; without one a model costs nothing. Oldest first."""
        asked = UsageFilter(group_by=PRICED, projects=wanted.projects, keys=wanted.keys)
        found = list(await self.added_up(caller, "requests", span, asked))
        if wanted.keys is None:  # no key trains
            found += await self.added_up(caller, "training", span, asked)
        made = costs(found, self._prices, group_by=wanted.group_by, width=span.width)
        return sorted(made, key=lambda cost: (cost.start, cost.line_item or "", cost.project_id or ""))


def check(caller: Caller, span: Span) -> None:
    caller.require_admin()
    if span.end <= span.first:
        raise invalid("end_time must come after start_time.", param="end_time")
