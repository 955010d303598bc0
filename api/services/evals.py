"""Evals and their runs as their owners see them. `eval_runs` does the work."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import orjson

from api.domain.errors import ErrorKind, ServiceError, invalid, not_found
from api.domain.eval_forms import config_from, data_source_from
from api.domain.evals import (
    MAX_CRITERIA,
    MAX_INLINE_BYTES,
    Criterion,
    DataConfig,
    DataSource,
    Eval,
    EvalRun,
    ItemStatus,
    NewRun,
    OrderBy,
    OutputItem,
    RunStatus,
)
from api.domain.ids import NewId
from api.domain.json_values import storable
from api.domain.keys import Caller
from api.domain.pages import Order, Page
from api.services.audit import AuditLog
from api.services.eval_schemas import wrong_schema
from api.services.eval_sources import RowCheck, SourceError, inline_rows, wrong_file
from api.services.graders import GraderService, badly_formed
from api.services.jsonl import MAX_DEPTH, depth
from api.services.models import ModelService
from api.services.wakeups import Wakeup
from api.store import eval_runs, evals, files
from api.store.database import Connection, Database
from engine.contract.grader_forms import GraderFormError
from engine.contract.graders import Multi, TextSimilarity
from serving.gateway.requests import RequestError, chat_request
from serving.gateway.responses import responses_request

INLINE_SECONDS: Final = 5.0


class EvalService:
    def __init__(
        self,
        *,
        database: Database,
        new_id: NewId,
        new_uuid: Callable[[], str],
        audit: AuditLog,
        graders: GraderService,
        models: ModelService,
        wakes: Wakeup,
    ) -> None:
        self._database, self._new_id, self._new_uuid, self._audit = database, new_id, new_uuid, audit
        self._graders, self._models, self._wakes = graders, models, wakes

    async def create(
        self,
        caller: Caller,
        *,
        name: str | None,
        metadata: Mapping[str, str] | None,
        config: object,
        criteria: object,
    ) -> Eval:
        """`config` and `criteria` as they came. Raises ServiceError naming the field."""
        checked = await asyncio.to_thread(checked_config, config)
        listed = await self._criteria(caller, criteria)
        eval_id = self._new_id("eval_")
        async with self._database.tenant(caller.project_id) as connection:
            made = await evals.insert(
                connection,
                eval_id=eval_id,
                project_id=caller.project_id,
                name=name or eval_id,
                metadata=metadata,
                config=checked,
                criteria=listed,
            )
            await self._audit.note(connection, caller, "eval.created", eval_id)
        return made

    async def _criteria(self, caller: Caller, given: object) -> list[Criterion]:
        if not isinstance(given, list) or not 1 <= len(given) <= MAX_CRITERIA:
            raise invalid(
                f"Invalid 'testing_criteria': give a list of 1 to {MAX_CRITERIA} graders.",
                param="testing_criteria",
            )
        return [
            await self._criterion(caller, form, path=f"testing_criteria[{number}]")
            for number, form in enumerate(given)
        ]

    async def _criterion(self, caller: Caller, form: object, *, path: str) -> Criterion:
        if isinstance(form, dict) and form.get("type") == "multi":
            raise invalid(
                f"Invalid '{path}.type': an eval takes the graders of a multi grader one by one.", param=path
            )
        grader = await self._graders.validate(caller, form, path=path)
        assert not isinstance(grader, Multi)
        if isinstance(grader, TextSimilarity) and grader.pass_threshold is None:
            raise invalid(
                f"Missing required parameter: '{path}.pass_threshold'.",
                param=f"{path}.pass_threshold",
                code="missing_required_parameter",
            )
        return Criterion(id=f"{grader.name}-{self._new_uuid()}", grader=grader)

    async def list(
        self, caller: Caller, *, order_by: OrderBy, order: Order, after: str | None, limit: int
    ) -> Page[Eval]:
        async with self._database.tenant(caller.project_id) as connection:
            return await evals.page(
                connection,
                project_id=caller.project_id,
                order_by=order_by,
                order=order,
                after=after,
                limit=limit,
            )

    async def retrieve(self, caller: Caller, eval_id: str) -> Eval:
        async with self._database.tenant(caller.project_id) as connection:
            return await the_eval(connection, caller, eval_id)

    async def update(
        self,
        caller: Caller,
        eval_id: str,
        *,
        name: str | None,
        set_metadata: bool,
        metadata: Mapping[str, str] | None,
    ) -> Eval:
        async with self._database.tenant(caller.project_id) as connection:
            changed = await evals.change(
                connection,
                project_id=caller.project_id,
                eval_id=eval_id,
                name=name,
                set_metadata=set_metadata,
                metadata=metadata,
            )
            if changed is None:
                raise no_such_eval(eval_id)
            await self._audit.note(connection, caller, "eval.updated", eval_id)
        return changed

    async def delete(self, caller: Caller, eval_id: str) -> None:
        """Its runs go too; one that is being worked on ends."""
        async with self._database.tenant(caller.project_id) as connection:
            if not await evals.delete(connection, project_id=caller.project_id, eval_id=eval_id):
                raise no_such_eval(eval_id)
            await self._audit.note(connection, caller, "eval.deleted", eval_id)

    async def create_run(
        self,
        caller: Caller,
        eval_id: str,
        *,
        name: str | None,
        metadata: Mapping[str, str] | None,
        data_source: object,
    ) -> EvalRun:
        """Files are read later: what is wrong in one fails the run."""
        found = await self.retrieve(caller, eval_id)
        try:
            source = data_source_from(data_source)
        except GraderFormError as error:
            raise badly_formed(error) from error
        await self._check_source(caller, found, source)
        run_id = self._new_id("evalrun_")
        new = NewRun(name=name, metadata=metadata, source=source)
        async with self._database.tenant(caller.project_id) as connection:
            if source.file_id is not None:
                await check_file(connection, caller, source.file_id)
            await the_eval(connection, caller, eval_id, lock=True)
            run = await eval_runs.insert(connection, run_id=run_id, eval_id=eval_id, caller=caller, new=new)
            await self._audit.note(connection, caller, "eval.run.created", run_id)
        self._wakes.wake()
        return run

    async def _check_source(self, caller: Caller, found: Eval, source: DataSource) -> None:
        if depth(source.form) > MAX_DEPTH or not storable(source.form):
            raise invalid(
                f"'data_source' is nested deeper than {MAX_DEPTH} levels, or holds what cannot be stored: "
                "a NUL character, half a character, or a number that is none or beyond 64 bits.",
                param="data_source",
            )
        if source.model is not None:
            check_sampling(source)
            try:
                await self._models.served(caller, source.model)
            except ServiceError as error:
                if error.kind is not ErrorKind.NOT_FOUND:
                    raise
                raise invalid(error.message, param="data_source.model", code="model_not_found") from error
        if source.rows is not None:
            await asyncio.to_thread(check_rows, found.config, source)

    async def runs(
        self,
        caller: Caller,
        eval_id: str,
        *,
        status: RunStatus | None,
        order: Order,
        after: str | None,
        limit: int,
    ) -> Page[EvalRun]:
        async with self._database.tenant(caller.project_id) as connection:
            await the_eval(connection, caller, eval_id)
            return await eval_runs.page(
                connection,
                project_id=caller.project_id,
                eval_id=eval_id,
                status=status,
                order=order,
                after=after,
                limit=limit,
            )

    async def run(self, caller: Caller, eval_id: str, run_id: str) -> EvalRun:
        async with self._database.tenant(caller.project_id) as connection:
            return await the_run(connection, caller, eval_id, run_id)

    async def cancel_run(self, caller: Caller, eval_id: str, run_id: str) -> EvalRun:
        """What was graded by then is kept. Cancelling twice is no error."""
        async with self._database.tenant(caller.project_id) as connection:
            run = await eval_runs.cancel(
                connection, project_id=caller.project_id, eval_id=eval_id, run_id=run_id
            )
            if run is not None:
                await self._audit.note(connection, caller, "eval.run.canceled", run_id)
                return run
            run = await the_run(connection, caller, eval_id, run_id)
        if run.status != "canceled":
            raise invalid(f"Cannot cancel a run with status '{run.status}'.", param="run_id")
        return run

    async def delete_run(self, caller: Caller, eval_id: str, run_id: str) -> None:
        async with self._database.tenant(caller.project_id) as connection:
            if not await eval_runs.delete(
                connection, project_id=caller.project_id, eval_id=eval_id, run_id=run_id
            ):
                raise no_such_run(run_id)
            await self._audit.note(connection, caller, "eval.run.deleted", run_id)

    async def output_items(
        self,
        caller: Caller,
        eval_id: str,
        run_id: str,
        *,
        status: ItemStatus | None,
        order: Order,
        after: str | None,
        limit: int,
    ) -> Page[OutputItem]:
        async with self._database.tenant(caller.project_id) as connection:
            await the_run(connection, caller, eval_id, run_id)
            return await eval_runs.output_items(
                connection,
                project_id=caller.project_id,
                run_id=run_id,
                status=status,
                order=order,
                after=after,
                limit=limit,
            )

    async def output_item(self, caller: Caller, eval_id: str, run_id: str, item_id: str) -> OutputItem:
        async with self._database.tenant(caller.project_id) as connection:
            item = await eval_runs.output_item(
                connection, project_id=caller.project_id, eval_id=eval_id, run_id=run_id, item_id=item_id
            )
        if item is None:
            raise not_found(f"No output item found with id '{item_id}'.", param="output_item_id")
        return item


async def the_eval(connection: Connection, caller: Caller, eval_id: str, *, lock: bool = False) -> Eval:
    found = await evals.get(connection, project_id=caller.project_id, eval_id=eval_id, lock=lock)
    if found is None:
        raise no_such_eval(eval_id)
    return found


async def the_run(connection: Connection, caller: Caller, eval_id: str, run_id: str) -> EvalRun:
    run = await eval_runs.get(connection, project_id=caller.project_id, eval_id=eval_id, run_id=run_id)
    if run is None:
        raise no_such_run(run_id)
    return run


def no_such_eval(eval_id: str) -> ServiceError:
    return not_found(f"No eval found with id '{eval_id}'.", param="eval_id")


def no_such_run(run_id: str) -> ServiceError:
    return not_found(f"No run found with id '{run_id}'.", param="run_id")


def checked_config(form: object) -> DataConfig:
    try:
        config = config_from(form)
    except GraderFormError as error:
        raise badly_formed(error) from error
    if config.item_schema is not None:
        reason = wrong_schema(config.item_schema)
        if reason is None and not storable(config.item_schema):
            reason = "it holds a NUL character, half a character, or a number that is none or beyond 64 bits."
        if reason is not None:
            path = "data_source_config.item_schema"
            raise invalid(f"Invalid '{path}': {reason}", param=path)
    return config


def check_sampling(source: DataSource) -> None:
    """Each parameter within its bounds, before any item is asked."""
    try:
        if source.type == "completions":
            chat_request({"model": source.model, "messages": [{"role": "user"}], **source.sampling})
        else:
            renamed = {"max_completion_tokens": "max_output_tokens", "reasoning_effort": "reasoning"}
            responses_request({renamed.get(name, name): value for name, value in source.sampling.items()})
    except RequestError as error:
        param = f"data_source.sampling_params.{error.param}"
        raise invalid(f"Invalid '{param}': {error.message}", param=param, code=error.code) from error


def check_rows(config: DataConfig, source: DataSource) -> None:
    size = len(orjson.dumps(source.rows))
    if size > MAX_INLINE_BYTES:
        raise invalid(
            f"'data_source.source.content' has {size} bytes; at most {MAX_INLINE_BYTES} are allowed. "
            "Upload more as a file with purpose='evals'.",
            param="data_source.source.content",
        )
    try:
        check = RowCheck(config, sampled=source.model is not None, seconds=INLINE_SECONDS)
        check.page([*inline_rows(source.rows or ())])
    except SourceError as error:
        raise invalid(error.message, param="data_source.source.content") from error


async def check_file(connection: Connection, caller: Caller, file_id: str) -> None:
    file = await files.get(connection, project_id=caller.project_id, file_id=file_id)
    reason = wrong_file(file, file_id)
    if reason is not None:
        raise (not_found if file is None else invalid)(reason, param="data_source.source.id")
