"""Background: fills runs with the items of their data sources, and takes each through the model and the graders.

Runs take turns of some seconds. What is known of an item is written down after each answer of a model, so a killed
service asks again only what was on its way; it holds a run for a minute at most.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, Final

from api.blobs.objects import Blobs
from api.domain.errors import ErrorKind, ServiceError
from api.domain.evals import EvalItem, EvalRun, EvalTurn, RunError
from api.domain.ids import NewId
from api.services.eval_answers import EvalAnswers, broken
from api.services.eval_sources import EvalSources, SourceError
from api.services.held import ended
from api.services.turns import take_turns
from api.services.wakeups import Wakeup
from api.store import eval_runs
from api.store.database import Database
from engine.contract.graders import PythonGrader
from engine.graders.sandbox.turns import AT_ONCE
from serving.gateway.proxy import ReplicaAwayError

HOLD_SECONDS: Final = 60.0
BEAT_SECONDS: Final = 5.0
TURN_SECONDS: Final = 20.0
RETRY_SECONDS: Final = 5.0
ITEMS_AT_ONCE: Final = 8

log = logging.getLogger("tuningfork.evals")


class EvalRuns:
    def __init__(
        self, *, database: Database, blobs: Blobs, new_id: NewId, answers: EvalAnswers, woken_by: Wakeup
    ) -> None:
        self._database, self._new_id, self._answers, self._woken_by = database, new_id, answers, woken_by
        self._sources = EvalSources(database=database, blobs=blobs)

    async def run(self) -> None:
        await take_turns(self.take_turn, what="evals wait", log=log, woken_by=self._woken_by)

    async def take_turn(self) -> bool:
        """Whether any run was due."""
        async with self._database.transaction() as connection:
            turn = await eval_runs.claim(connection, hold_seconds=HOLD_SECONDS)
        if turn is None:
            return False
        try:
            await self._while_held(turn.run, self._step(turn))
        except ReplicaAwayError:
            await self._release(turn.run, seconds=RETRY_SECONDS)
        except ServiceError as error:
            await self._release(turn.run, seconds=error.retry_after_seconds or RETRY_SECONDS)
            if error.kind is not ErrorKind.RATE_LIMITED:
                raise
        return True

    async def _step(self, turn: EvalTurn) -> None:
        if turn.overdue:
            await self._fail(turn.run, "expired", "The run did not come to its end within 7 days.")
        elif turn.run.status == "queued":
            await self._prepare(turn)
        else:
            await self._work(turn)

    async def _fail(self, run: EvalRun, code: str, message: str) -> None:
        error = RunError(code=code, message=message)
        async with self._database.transaction() as connection:
            await eval_runs.close(connection, run_id=run.id, status="failed", error=error)

    async def _while_held(self, run: EvalRun, step: Coroutine[Any, Any, None]) -> None:
        """Ends early when the run is cancelled or deleted, and with it whatever is on its way."""
        doing, holding = asyncio.create_task(step), asyncio.create_task(self._hold(run))
        try:
            await asyncio.wait({doing, holding}, return_when=asyncio.FIRST_COMPLETED)
            (doing if doing.done() else holding).result()
        finally:
            await ended(doing, holding)

    async def _hold(self, run: EvalRun) -> None:
        going = True
        while going:
            await asyncio.sleep(BEAT_SECONDS)
            async with self._database.transaction() as connection:
                going = await eval_runs.hold(connection, run_id=run.id, hold_seconds=HOLD_SECONDS)

    async def _prepare(self, turn: EvalTurn) -> None:
        """Copies every item; only a data source without a fault begins."""
        run, count = turn.run, 0
        async with self._database.transaction() as connection:
            await eval_runs.forget_items(connection, run_id=run.id)
        try:
            async for rows in self._sources.pages(turn):
                ids = [self._new_id("outputitem_") for _ in rows]
                async with self._database.transaction() as connection:
                    await eval_runs.add_items(connection, run_id=run.id, first=count, ids=ids, rows=rows)
                count += len(rows)
            if count == 0:
                raise SourceError("The data source has no items.", code="no_items")
        except SourceError as error:
            await self._fail(run, error.code, error.message)
        else:
            async with self._database.transaction() as connection:
                await eval_runs.begin(connection, run_id=run.id)

    async def _work(self, turn: EvalTurn) -> None:
        run, until, at_once = turn.run, time.monotonic() + TURN_SECONDS, items_at_once(turn)
        while time.monotonic() < until:
            async with self._database.transaction() as connection:
                items = await eval_runs.pending(connection, run_id=run.id, limit=at_once)
                if not items:
                    return await eval_runs.close(connection, run_id=run.id, status="completed")
            work = [self._item(turn, item, until=until) for item in items]
            for failure in await asyncio.gather(*work, return_exceptions=True):
                if failure is not None:
                    raise failure
        await self._release(run, seconds=0)

    async def _item(self, turn: EvalTurn, item: EvalItem, *, until: float) -> None:
        """As far as this turn goes. An item that trips this service is given up, or it would trip it for ever."""
        try:
            async for state in self._answers.steps(turn, item):
                await self._save(turn.run, state)
                if time.monotonic() > until:
                    return
        except (ServiceError, ReplicaAwayError):
            raise
        except Exception:
            log.exception("item %d of %s failed", item.number, turn.run.id)
            await self._save(turn.run, broken(item))

    async def _save(self, run: EvalRun, item: EvalItem) -> None:
        async with self._database.transaction() as connection:
            await eval_runs.save_item(connection, run_id=run.id, item=item)

    async def _release(self, run: EvalRun, *, seconds: float) -> None:
        async with self._database.transaction() as connection:
            await eval_runs.release(connection, run_id=run.id, seconds=seconds)


def items_at_once(turn: EvalTurn) -> int:
    """Where sources run, as many as an owner may run at a time: others would wait for them, and hold up this turn's end
    and the owner's other requests."""
    runs_sources = any(isinstance(criterion.grader, PythonGrader) for criterion in turn.criteria)
    return AT_ONCE if runs_sources else ITEMS_AT_ONCE
