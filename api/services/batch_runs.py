"""Background: validates batches, answers their lines at low priority, and writes their files.

Batches take turns of some seconds each. Every answer is written down as it comes, so a killed service asks only the
lines again that had none; it holds a batch for a minute at most.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import IO, Final

from api.blobs.objects import Blobs, file_key
from api.domain.batches import (
    MAX_REQUESTS,
    MOST_ERRORS,
    Batch,
    BatchError,
    BatchLine,
    BatchLineError,
    BatchStatus,
    BatchTurn,
    batch_line,
)
from api.domain.errors import ErrorKind, ServiceError
from api.domain.ids import NewId
from api.domain.request_id import serving
from api.services.batch_answers import BatchAnswers, unanswered
from api.services.batch_files import BatchFiles
from api.services.held import held
from api.services.jsonl import LineError, lines_from, parse_line
from api.services.models import ModelService
from api.services.turns import take_turns
from api.services.wakeups import Wakeup
from api.store import batches
from api.store.database import Database
from serving.gateway.proxy import ReplicaAwayError

HOLD_SECONDS: Final = 60.0
BEAT_SECONDS: Final = 5.0
TURN_SECONDS: Final = 20.0
RETRY_SECONDS: Final = 5.0
LINES_AT_ONCE: Final = 8
PAGE: Final = 500
INPUT_GONE: Final = BatchError(
    code="input_file_gone", message="The bytes of the input file are no longer there."
)

log = logging.getLogger("tuningfork.batches")


class InputGoneError(Exception):
    """The row of the input file has no bytes. They do not come back, so nothing is gained by waiting."""


class BatchRuns:
    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        new_id: NewId,
        models: ModelService,
        answers: BatchAnswers,
        woken_by: Wakeup,
    ) -> None:
        self._database, self._blobs, self._models, self._answers = database, blobs, models, answers
        self._woken_by = woken_by
        self._files = BatchFiles(database=database, blobs=blobs, new_id=new_id)

    async def run(self) -> None:
        await take_turns(self.take_turn, what="batches wait", log=log, woken_by=self._woken_by)

    async def take_turn(self) -> bool:
        """Whether any batch was due."""
        async with self._database.transaction() as connection:
            turn = await batches.claim(connection, hold_seconds=HOLD_SECONDS)
        if turn is None:
            return False
        try:
            with serving(turn.batch.id):
                await self._while_held(turn)
        except ReplicaAwayError:
            await self._release(turn.batch, seconds=RETRY_SECONDS)
        except ServiceError:
            await self._release(turn.batch, seconds=RETRY_SECONDS)
            raise
        else:
            await self._release(turn.batch, seconds=0)
        return True

    async def _while_held(self, turn: BatchTurn) -> None:
        """It is released after this, not within: a last beat would take it again."""
        async with held(partial(self._hold, turn.batch), every_seconds=BEAT_SECONDS):
            try:
                await self._step(turn)
            except InputGoneError:
                await self._finish_without_input(turn)

    async def _hold(self, batch: Batch) -> None:
        async with self._database.transaction() as connection:
            await batches.hold(connection, batch_id=batch.id, hold_seconds=HOLD_SECONDS)

    async def _step(self, turn: BatchTurn) -> None:
        match turn.batch.status:
            case "validating" if not turn.overdue:
                await self._validate(turn)
            case "validating":
                late = BatchError(code="batch_expired", message="It could not be checked within 24 hours.")
                await self._begin(turn.batch, None, [late])
            case "in_progress" if not turn.overdue:
                await self._ask(turn)
            case _:
                await self._finish(turn.batch, end_of(turn))

    async def _lines(self, batch: Batch) -> AsyncIterator[tuple[int, bytes]]:
        number = 0
        if await self._blobs.size(file_key(batch.input_file_id)) is None:
            raise InputGoneError
        async for lines in lines_from(self._blobs.read(file_key(batch.input_file_id))):
            for line in lines:
                number += 1
                if line.strip():
                    yield number, line

    async def _validate(self, turn: BatchTurn) -> None:
        batch, check = turn.batch, Check(turn.batch.endpoint)
        async for number, line in self._lines(batch):
            check.add(number, line)
            if check.full:
                break
        errors = check.errors
        if not errors and check.total == 0:
            errors = [BatchError(code="empty_file", message="The input file has no lines.")]
        if not errors:
            try:
                await self._models.served(turn.caller, check.model)
            except ServiceError as error:
                if error.kind is not ErrorKind.NOT_FOUND:
                    raise
                errors = [BatchError(code="model_not_found", message=error.message, param="body.model")]
        await self._begin(batch, check, errors)

    async def _begin(self, batch: Batch, check: "Check | None", errors: Sequence[BatchError]) -> None:
        """When it was cancelled meanwhile, neither statement finds it."""
        async with self._database.transaction() as connection:
            if errors or check is None:
                await batches.fail(connection, batch_id=batch.id, errors=errors)
            else:
                await batches.begin(connection, batch_id=batch.id, total=check.total, model=check.model)

    async def _ask(self, turn: BatchTurn) -> None:
        batch, until = turn.batch, time.monotonic() + TURN_SECONDS
        async with self._database.transaction() as connection:
            done = await batches.answered(connection, batch_id=batch.id)
        async for group in self._groups(batch, done):
            async with self._database.transaction() as connection:
                going = await batches.going(connection, batch_id=batch.id)
            if not going or time.monotonic() > until:
                return
            await self._answer_all(turn, group)
        async with self._database.transaction() as connection:
            await batches.finalize(connection, batch_id=batch.id)

    async def _groups(self, batch: Batch, done: set[int]) -> AsyncIterator[list[tuple[int, BatchLine]]]:
        group = []
        async for number, line in self._lines(batch):
            if number not in done:
                group.append((number, batch_line(parse_line(line), endpoint=batch.endpoint)))
            if len(group) == LINES_AT_ONCE:
                yield group
                group = []
        if group:
            yield group

    async def _answer_all(self, turn: BatchTurn, group: list[tuple[int, BatchLine]]) -> None:
        """Raises ReplicaAwayError or ServiceError after all have come to an end."""
        work = [self._answer(turn, number, line) for number, line in group]
        for failure in await asyncio.gather(*work, return_exceptions=True):
            if failure is not None:
                raise failure

    async def _answer(self, turn: BatchTurn, number: int, line: BatchLine) -> None:
        answer = await self._answers.answer(turn, number, line)
        async with self._database.transaction() as connection:
            await batches.answer(connection, batch=turn.batch, answer=answer)

    async def _release(self, batch: Batch, *, seconds: float) -> None:
        async with self._database.transaction() as connection:
            await batches.release(connection, batch_id=batch.id, seconds=seconds)

    async def _finish(self, batch: Batch, status: BatchStatus) -> None:
        with self._files.open() as (output, errors):
            if batch.total:
                await self._write(batch, status, output, errors)
            await self._files.keep(batch, status, output=output, errors=errors)

    async def _finish_without_input(self, turn: BatchTurn) -> None:
        """With what was answered by then, as it is in no other place. What was to end unfinished does not fail by it."""
        batch, status, why = turn.batch, end_of(turn), list[BatchError]()
        if status == "completed":
            status, why = "failed", [INPUT_GONE]
        log.error("the bytes of %s, the input of %s, are not there", batch.input_file_id, batch.id)
        async with self._database.transaction() as connection:
            numbers = sorted(await batches.answered(connection, batch_id=batch.id))
        with self._files.open() as (output, errors):
            for start in range(0, len(numbers), PAGE):
                first, last = numbers[start], numbers[start : start + PAGE][-1]
                async with self._database.transaction() as connection:
                    found = await batches.answers(connection, batch_id=batch.id, first=first, last=last)
                for _, answer in sorted(found.items()):
                    (errors if answer.failed else output).write(answer.line.encode() + b"\n")
            await self._files.keep(batch, status, output=output, errors=errors, why=why)

    async def _write(self, batch: Batch, status: BatchStatus, output: IO[bytes], errors: IO[bytes]) -> None:
        """In the order of the input. A line without an answer has its reason instead."""
        page: dict[int, tuple[bool, str]] = {}
        last = 0
        async for number, line in self._lines(batch):
            if number > last:
                last = number + PAGE - 1
                async with self._database.transaction() as connection:
                    found = await batches.answers(connection, batch_id=batch.id, first=number, last=last)
                page = {each: (answer.failed, answer.line) for each, answer in found.items()}
            custom_id = batch_line(parse_line(line), endpoint=batch.endpoint).custom_id
            failed, text = page.get(number) or (True, unanswered(batch, number, custom_id, status))
            (errors if failed else output).write(text.encode() + b"\n")


def end_of(turn: BatchTurn) -> BatchStatus:
    """As what it ends when nothing more is asked."""
    if turn.batch.status == "cancelling":
        return "cancelled"
    return "expired" if turn.batch.status == "in_progress" and turn.overdue else "completed"


class Check:
    """Reads the lines of a new batch one by one and collects what is wrong with them."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._seen: set[str] = set()
        self.model = ""
        self.total = 0
        self.errors: list[BatchError] = []

    @property
    def full(self) -> bool:
        return len(self.errors) >= MOST_ERRORS or self.total > MAX_REQUESTS

    def add(self, number: int, line: bytes) -> None:
        self.total += 1
        try:
            self._check(line)
        except BatchLineError as error:
            self.errors.append(
                BatchError(code=error.code, message=error.message, line=number, param=error.param)
            )
        except LineError as error:
            message = f"The line {error.reason}"
            self.errors.append(BatchError(code="invalid_json_line", message=message, line=number))

    def _check(self, line: bytes) -> None:
        if self.total > MAX_REQUESTS:
            raise BatchLineError(f"A batch has at most {MAX_REQUESTS} requests.", code="too_many_tasks")
        asked = batch_line(parse_line(line), endpoint=self._endpoint)
        if asked.custom_id in self._seen:
            raise BatchLineError(
                f"The custom_id '{asked.custom_id}' is used twice.",
                code="duplicate_custom_id",
                param="custom_id",
            )
        self._seen.add(asked.custom_id)
        self.model = self.model or asked.body["model"]
        if asked.body["model"] != self.model:
            raise BatchLineError(
                f"All requests of a batch ask one model; the first asks '{self.model}'.",
                code="mismatched_model",
                param="body.model",
            )
