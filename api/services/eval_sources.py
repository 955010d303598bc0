"""Where the items of a run come from: the request itself, a file, or stored answers. Everything is checked on the way."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

from api.blobs.objects import Blobs, file_key
from api.domain.eval_forms import wrong_row
from api.domain.evals import MAX_FILE_BYTES, MAX_ITEMS, DataConfig, EvalRow, EvalTurn, Filters, JsonObject
from api.domain.files import File
from api.domain.json_values import storable
from api.domain.stored import StoredCompletion, StoredResponse
from api.services.eval_samples import completion_sample, response_sample
from api.services.eval_schemas import ItemError, ItemSchema
from api.services.jsonl import MAX_DEPTH, LineError, depth, lines_from, parse_line
from api.store import files, stored
from api.store.database import Connection, Database

PAGE: Final = 200
PAGE_BYTES: Final = 4 * 1024**2


class SourceError(Exception):
    """Why a run cannot begin; `code` is what its error will hold."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.message, self.code = message, code


class EvalSources:
    def __init__(self, *, database: Database, blobs: Blobs) -> None:
        self._database, self._blobs = database, blobs

    async def pages(self, turn: EvalTurn) -> AsyncIterator[Sequence[EvalRow]]:
        """All items, in order. Raises SourceError with the place of the first that is wrong."""
        check = RowCheck(turn.config, sampled=turn.run.model is not None)
        async for page in self._unchecked(turn):
            yield await asyncio.to_thread(check.page, page)

    def _unchecked(self, turn: EvalTurn) -> AsyncIterator[Sequence[EvalRow | tuple[str, bytes]]]:
        source = turn.run.source
        if source.filters is not None:
            return self._stored(turn, source.filters)
        return self._lines(turn, source.file_id) if source.file_id is not None else inline(source.rows or ())

    async def _lines(self, turn: EvalTurn, file_id: str) -> AsyncIterator[Sequence[tuple[str, bytes]]]:
        async with self._database.tenant(turn.caller.project_id) as connection:
            file = await files.kept(connection, project_id=turn.caller.project_id, file_id=file_id)
        if (reason := wrong_file(file, file_id)) is not None:
            raise SourceError(reason, code="invalid_file")
        page, size, number = [], 0, 0
        async for lines in lines_from(self._blobs.read(file_key(file_id))):
            for line in lines:
                number += 1
                if line.strip():
                    page.append((f"Line {number}", line))
                    size += len(line)
                if len(page) == PAGE or size > PAGE_BYTES:
                    yield page
                    page, size = [], 0
        yield page

    async def _stored(self, turn: EvalTurn, filters: Filters) -> AsyncIterator[Sequence[EvalRow]]:
        project_id = turn.caller.project_id
        async with self._database.tenant(project_id) as connection:
            ids = await stored.matching(
                connection, project_id=project_id, filters=filters, metadata=turn.config.metadata or {}
            )
        for start in range(0, len(ids), PAGE):
            wanted = ids[start : start + PAGE]
            async with self._database.tenant(project_id) as connection:
                page = await self._page(connection, project_id, filters, wanted)
            yield page

    async def _page(
        self, connection: Connection, project_id: str, filters: Filters, ids: Sequence[str]
    ) -> Sequence[EvalRow]:
        if filters.kind == "responses":
            responses = await stored.responses_of(connection, project_id=project_id, ids=ids)
            return list(map(response_row, responses))
        completions = await stored.completions_of(connection, project_id=project_id, ids=ids)
        return list(map(completion_row, completions))


async def inline(rows: Sequence[JsonObject]) -> AsyncIterator[Sequence[EvalRow]]:
    for start in range(0, len(rows), PAGE):
        yield [*inline_rows(rows[start : start + PAGE], start)]


def inline_rows(rows: Sequence[JsonObject], start: int = 0) -> Iterator[EvalRow]:
    for number, row in enumerate(rows, start):
        yield EvalRow(
            place=f"data_source.source.content[{number}]", item=row["item"], sample=row.get("sample")
        )


def completion_row(found: StoredCompletion) -> EvalRow:
    item = {
        "id": found.id,
        "model": found.model,
        "input": list(found.messages),
        "metadata": dict(found.metadata),
    }
    return EvalRow(place=f"The completion {found.id}", item=item, sample=completion_sample(found.answer))


def response_row(found: StoredResponse) -> EvalRow:
    answer = found.answer
    item = {
        "id": found.id,
        "model": answer.get("model"),
        "instructions": answer.get("instructions"),
        "input": list(found.items),
        "metadata": answer.get("metadata") or {},
    }
    return EvalRow(place=f"The response {found.id}", item=item, sample=response_sample(answer))


def wrong_file(file: File | None, file_id: str) -> str | None:
    """Why an eval cannot read a file, if it cannot."""
    if file is None:
        return f"No such File object: {file_id}"
    if file.purpose != "evals":
        return f"File {file_id} has the purpose '{file.purpose}': upload it with purpose='evals'."
    if file.size_bytes > MAX_FILE_BYTES:
        return (
            f"File {file_id} has {file.size_bytes} bytes; at most {MAX_FILE_BYTES} are allowed for an eval."
        )
    return None


class RowCheck:
    """Of one run. Slow work in the hands of one thread."""

    def __init__(self, config: DataConfig, *, sampled: bool, **bounds: Any) -> None:
        self._schema = None if config.item_schema is None else ItemSchema(config.item_schema, **bounds)
        self._sample_wanted = config.include_sample_schema and not sampled
        self._left = MAX_ITEMS

    def page(self, page: Sequence[EvalRow | tuple[str, bytes]]) -> Sequence[EvalRow]:
        """Raises SourceError."""
        self._left -= len(page)
        if self._left < 0:
            raise SourceError(f"A run has at most {MAX_ITEMS} items.", code="too_many_items")
        rows = [each if isinstance(each, EvalRow) else parsed(*each) for each in page]
        for row in rows:
            if (reason := self._wrong(row)) is not None:
                raise SourceError(f"{row.place}: {reason}", code="invalid_item")
        return rows

    def _wrong(self, row: EvalRow) -> str | None:
        if depth(row.item) > MAX_DEPTH or depth(row.sample) > MAX_DEPTH:
            return f"it is nested deeper than {MAX_DEPTH} levels."
        if not storable(row.item) or not storable(row.sample):
            return "it holds a NUL character, half a character, or a number that is none or beyond 64 bits."
        try:
            if self._schema is not None:
                self._schema.check(row.item)
        except ItemError as error:
            return str(error)
        if self._sample_wanted and row.sample is None:
            return "it has no 'sample', which include_sample_schema asks for."
        return None


def parsed(place: str, line: bytes) -> EvalRow:
    try:
        row = parse_line(line)
    except LineError as error:
        raise SourceError(f"{place} {error.reason}", code="invalid_jsonl") from error
    if not isinstance(row, dict) or (reason := wrong_row(row)) is not None:
        raise SourceError(
            f"{place}: {reason if isinstance(row, dict) else 'it is no object.'}", code="invalid_item"
        )
    return EvalRow(place=place, item=row["item"], sample=row.get("sample"))
