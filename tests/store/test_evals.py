"""Runs of evals over real stores: every data source and grader, and through faults: a replica away, a service that is
killed, a limit that is reached, a run that is cancelled or deleted while it is worked on, two runners."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.domain.errors import ErrorKind, ServiceError
from api.domain.evals import Eval, EvalRun, OutputItem
from api.domain.stored import StoredCompletion
from api.forms.evals import eval_object, output_item_object, run_object
from api.services import eval_runs as eval_runs_module
from api.services.asking import Asking
from api.services.audit import AuditLog
from api.services.eval_answers import EvalAnswers
from api.services.eval_runs import ITEMS_AT_ONCE, EvalRuns
from api.services.evals import EvalService
from api.services.graders import GraderService
from api.services.limits import LimitService
from api.services.metering import Metering
from api.services.models import ModelService
from api.services.stored import StoredService
from api.services.wakeups import Wakeup
from engine.graders.sandbox.bubblewrap import Sandbox
from engine.graders.sandbox.turns import AT_ONCE, Turns
from serving.gateway.proxy import LOW_PRIORITY
from serving.gateway.replicas import Replicas
from tests.support.fake_replica import Answer, fake_replica
from tests.support.janitor import swept
from tests.support.stores import BASE, World

ITEMS = 3 * ITEMS_AT_ONCE
EQUAL = {
    "type": "string_check",
    "name": "equal",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
    "operation": "eq",
}
JUDGE = {
    "type": "score_model",
    "name": "judge",
    "model": BASE,
    "input": [{"role": "user", "content": "Judge {{ sample.output_text }}"}],
    "pass_threshold": 0.5,
}
SCHEMA = {
    "type": "object",
    "properties": {"question": {"type": "string"}, "answer": {"type": "string"}},
    "required": ["answer"],
}
CUSTOM = {"type": "custom", "item_schema": SCHEMA, "include_sample_schema": True}
ASKING = {
    "model": BASE,
    "input_messages": {"type": "template", "template": [{"role": "user", "content": "{{ item.question }}"}]},
}


@dataclass
class FaultyReplica:
    """Says what it was asked, judges with 0.75, and is away from the `until`-th request on."""

    until: int = 10**9
    asked: list[dict[str, Any]] = field(default_factory=list)
    meanwhile: Callable[[], Any] | None = None

    async def answer(self, request: Request) -> Response:
        if len(self.asked) >= self.until:
            return JSONResponse({"error": {"message": "away"}}, status_code=503)
        body = await request.json()
        self.asked.append(body)
        if self.meanwhile is not None:
            await self.meanwhile()
        if "input" in body:
            return JSONResponse(response(body))
        text = body["messages"][-1]["content"]
        if "response_format" in body:
            text = json.dumps({"steps": [], "result": 0.75})
        return JSONResponse(completion(text))

    @property
    def questions(self) -> list[str]:
        return [
            body["messages"][-1]["content"]
            for body in self.asked
            if "messages" in body and "response_format" not in body
        ]


def completion(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return {"id": "chatcmpl-1", "model": "internal", "choices": choices, "usage": usage}


def response(body: dict[str, Any]) -> dict[str, Any]:
    text = body["input"][-1]["content"]
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    usage = {"input_tokens": 3, "output_tokens": 2}
    return {"id": "resp_1", "model": "internal", "status": "completed", "output": [message], "usage": usage}


@dataclass(frozen=True)
class Lab:
    """`service` is what users call; `work_off` is what the background does until nothing is due. All that is seen must
    fit the wire's forms."""

    world: World
    service: EvalService
    runner: EvalRuns

    async def eval(self, *criteria: dict[str, Any], config: dict[str, Any] | None = None) -> Eval:
        made = await self.service.create(
            self.world.caller,
            name=None,
            metadata=None,
            config=CUSTOM if config is None else config,
            criteria=list(criteria) or [EQUAL],
        )
        assert eval_object(made).id == made.id
        return made

    async def begin(self, found: Eval, source: dict[str, Any]) -> EvalRun:
        return await self.service.create_run(
            self.world.caller, found.id, name=None, metadata=None, data_source=source
        )

    async def seen(self, run: EvalRun) -> EvalRun:
        found = await self.service.run(self.world.caller, run.eval_id, run.id)
        assert run_object(found, base_url="http://test/").report_url.endswith(run.id)
        return found

    async def done(self, found: Eval, source: dict[str, Any]) -> EvalRun:
        run = await self.begin(found, source)
        await self.work_off()
        return await self.seen(run)

    async def work_off(self) -> None:
        while await self.runner.take_turn():
            pass

    async def outputs(self, run: EvalRun, **more: Any) -> list[OutputItem]:
        asked = {"status": None, "order": "asc", "after": None, "limit": 100} | more
        page = await self.service.output_items(self.world.caller, run.eval_id, run.id, **asked)
        assert [output_item_object(item).id for item in page.items] == [item.id for item in page.items]
        return list(page.items)


@asynccontextmanager
async def lab(
    world: World, answer: Answer, *, requests_per_minute: int = 10_000, turns: Turns | None = None
) -> AsyncIterator[Lab]:
    async with fake_replica(answer) as client:
        yield await lab_over(world, Replicas([client]), requests_per_minute, turns)


async def lab_over(
    world: World, replicas: Replicas, requests_per_minute: int, turns: Turns | None = None
) -> Lab:
    shared: dict[str, Any] = {"database": world.database, "new_id": world.new_id}
    audit = AuditLog(**shared)
    models = ModelService(
        database=world.database, blobs=world.blobs, audit=audit, replicas=replicas, salt_key="salt"
    )
    limits = LimitService(
        database=world.database,
        audit=audit,
        metering=Metering(database=world.database),
        base_models=[BASE],
        default_requests=requests_per_minute,
        default_tokens=1_000_000,
    )
    await models.remember_bases()
    asking, sandbox = Asking(models=models, limits=limits), Sandbox(turns=turns)
    graders = GraderService(models=models, asking=asking, sandbox=sandbox)
    service = EvalService(
        audit=audit,
        graders=graders,
        models=models,
        new_uuid=lambda: str(uuid4()),
        wakes=Wakeup(),
        **shared,
    )
    answers = EvalAnswers(asking=asking, sandbox=sandbox)
    return Lab(world, service, EvalRuns(blobs=world.blobs, answers=answers, woken_by=Wakeup(), **shared))


def rows(count: int = ITEMS) -> list[dict[str, Any]]:
    """The model repeats the question, so that every second answer is right."""
    return [{"item": {"question": f"q{n}", "answer": f"q{n}" if n % 2 else "no"}} for n in range(count)]


def inline(content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "file_content", "content": content}


async def uploaded(world: World, lines: list[Any], *, purpose: str = "evals") -> dict[str, Any]:
    data = "\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines).encode()
    file = await world.files.create(
        world.caller, filename="items.jsonl", purpose=purpose, source=io.BytesIO(data), size_bytes=len(data)
    )
    return {"type": "file_id", "id": file.id}


async def change(world: World, run: EvalRun, columns: str) -> None:
    async with world.database.transaction() as connection:
        await connection.execute(f"update eval_run set {columns} where id = %s".encode(), (run.id,))


async def test_a_model_is_asked_and_graded(world: World) -> None:
    replica = FaultyReplica()
    async with lab(world, replica.answer) as our:
        found = await our.eval(EQUAL, JUDGE)
        source = {**ASKING, "type": "completions", "source": await uploaded(world, rows())}
        run = await our.done(found, {**source, "sampling_params": {"temperature": 0.5, "seed": 7}})
    assert (run.status, run.error, run.model) == ("completed", None, BASE)
    assert (run.total, run.passed, run.failed, run.errored) == (ITEMS, ITEMS // 2, ITEMS // 2, 0)
    equal, judge = (criterion.id for criterion in found.criteria)
    assert equal.startswith("equal-") and len(equal) == len("equal-") + 36
    assert run.per_testing_criteria_results == [
        {"testing_criteria": equal, "passed": ITEMS // 2, "failed": ITEMS // 2},
        {"testing_criteria": judge, "passed": ITEMS, "failed": 0},
    ]
    assert run.per_model_usage == [
        {
            "model_name": BASE,
            "invocation_count": 2 * ITEMS,
            "prompt_tokens": 6 * ITEMS,
            "completion_tokens": 4 * ITEMS,
            "total_tokens": 10 * ITEMS,
            "cached_tokens": 0,
        }
    ]
    assert {body["priority"] for body in replica.asked} == {LOW_PRIORITY}
    first, second = (await our.outputs(run))[:2]
    assert (first.item.status, second.item.status) == ("fail", "pass")
    assert second.item.item == rows()[1]["item"]
    told = second.item.told
    assert told is not None
    assert told["input"] == [{"role": "user", "content": "q1"}]
    assert told["output"] == [{"role": "assistant", "content": "q1"}]
    assert (told["finish_reason"], told["model"], told["temperature"], told["seed"]) == ("stop", BASE, 0.5, 7)
    assert [(r["name"], r["score"], r["passed"]) for r in second.item.results] == [
        (equal, 1.0, True),
        (judge, 0.75, True),
    ]


async def test_only_what_has_no_answer_is_asked_again(world: World) -> None:
    replica = FaultyReplica(until=ITEMS_AT_ONCE + 3)
    async with lab(world, replica.answer) as our:
        found = await our.eval(EQUAL, JUDGE, JUDGE)
        run = await our.begin(found, {**ASKING, "type": "completions", "source": inline(rows())})
        await our.work_off()
        waiting = await our.seen(run)
        assert (waiting.status, waiting.total, waiting.passed + waiting.failed) == ("in_progress", ITEMS, 0)
    for more in (10, 10, 10**9):  # each time another process, which knows what the database knows
        await change(world, run, "due_at = now()")
        replica.until = len(replica.asked) + more
        async with lab(world, replica.answer) as our:
            await our.work_off()
    done = await our.seen(run)
    assert (done.status, done.passed, done.failed) == ("completed", ITEMS // 2, ITEMS // 2)
    assert sorted(replica.questions) == sorted(row["item"]["question"] for row in rows())
    assert len(replica.asked) == 3 * ITEMS, "no judge was asked twice either"


async def test_a_run_waits_where_others_hold_the_sandboxes(world: World) -> None:
    turns = Turns(wait_seconds=0.3)
    form = {"type": "python", "name": "p", "source": "def grade(sample, item): return 1", "pass_threshold": 1}
    async with lab(world, FaultyReplica().answer, turns=turns) as our:
        found = await our.eval(form, config={"type": "custom", "item_schema": SCHEMA})
        run = await our.begin(found, {"type": "jsonl", "source": inline(rows(AT_ONCE))})
        async with AsyncExitStack() as held:
            for n in range(AT_ONCE):
                await held.enter_async_context(turns.turn(f"other {n}"))
            with pytest.raises(ServiceError) as refused:
                await our.eval(form)
            assert refused.value.kind is ErrorKind.RATE_LIMITED and refused.value.retry_after_seconds
            working = asyncio.create_task(our.work_off())
            await asyncio.sleep(1)
            waiting = await our.seen(run)
            assert (waiting.status, waiting.errored) == ("in_progress", 0)
        await working
        assert ((await our.seen(run)).status, (await our.seen(run)).passed) == ("completed", AT_ONCE)


async def test_the_items_of_a_run_do_not_time_each_other_out(world: World) -> None:
    replica, slow = FaultyReplica(), "import time\ndef grade(sample, item):\n  time.sleep(0.5)\n  return 1"
    python = {"type": "python", "name": "p", "source": slow, "pass_threshold": 1}
    async with lab(world, replica.answer, turns=Turns(wait_seconds=0.3)) as our:
        found = await our.eval(JUDGE, python)
        run = await our.done(found, {**ASKING, "type": "completions", "source": inline(rows(ITEMS_AT_ONCE))})
    assert (run.status, run.passed, len(replica.asked)) == ("completed", ITEMS_AT_ONCE, 2 * ITEMS_AT_ONCE)


async def test_a_run_leaves_sandboxes_to_requests_of_its_owner(world: World) -> None:
    """Who asks waits for the two that run, not for all items of the run."""
    slow = "import time\ndef grade(sample, item):\n  time.sleep(1.5)\n  return 1"
    python = {"type": "python", "name": "p", "source": slow, "pass_threshold": 1}
    async with lab(world, FaultyReplica().answer, turns=Turns(wait_seconds=3)) as our:
        found = await our.eval(python, config={"type": "custom", "item_schema": SCHEMA})
        run = await our.begin(found, {"type": "jsonl", "source": inline(rows(6))})
        working = asyncio.create_task(our.work_off())
        while (await our.seen(run)).status != "in_progress":
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        await our.eval(python)  # its source is loaded in a sandbox
        await working
    assert (await our.seen(run)).passed == 6


async def test_a_killed_runner_loses_what_was_on_its_way_and_no_more(world: World) -> None:
    replica, stuck = FaultyReplica(), asyncio.Event()

    async def stop() -> None:
        if len(replica.asked) > ITEMS_AT_ONCE:
            stuck.set()
            await asyncio.sleep(60)

    replica.meanwhile = stop
    async with lab(world, replica.answer) as our:
        run = await our.begin(await our.eval(), {**ASKING, "type": "completions", "source": inline(rows())})
        working = asyncio.create_task(our.work_off())
        await asyncio.wait_for(stuck.wait(), 20)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    replica.meanwhile = None
    done_before = (await our.seen(run)).passed + (await our.seen(run)).failed
    assert done_before == ITEMS_AT_ONCE
    async with lab(world, replica.answer) as our:
        assert not await our.runner.take_turn(), "the dead one still holds it"
        await change(world, run, "due_at = now()")
        await our.work_off()
    done = await our.seen(run)
    assert (done.status, done.passed + done.failed) == ("completed", ITEMS)
    again = len(replica.questions) - len(set(replica.questions))
    assert again <= ITEMS_AT_ONCE


def nested(levels: int) -> Any:
    return [nested(levels - 1)] if levels else "x"


async def test_what_is_nested_too_deeply_is_refused(world: World) -> None:
    async with lab(world, FaultyReplica().answer) as our:
        found = await our.eval(config={"type": "custom", "item_schema": {"type": "object"}})
        for levels in (80, 900):
            source = {"type": "jsonl", "source": inline([{"item": {"x": nested(levels)}}])}
            with pytest.raises(ServiceError, match="64 levels") as refused:
                await our.begin(found, source)
            assert refused.value.kind is ErrorKind.INVALID


async def test_a_run_that_never_ends_fails_after_a_week(world: World) -> None:
    replica = FaultyReplica(until=ITEMS_AT_ONCE)
    async with lab(world, replica.answer) as our:
        run = await our.done(await our.eval(), {**ASKING, "type": "completions", "source": inline(rows())})
        assert run.status == "in_progress"
        await change(world, run, "due_at = now(), created_at = now() - interval '8 days'")
        await our.work_off()
        failed = await our.seen(run)
        assert (failed.status, failed.error and failed.error.code) == ("failed", "expired")
        assert failed.passed + failed.failed == ITEMS_AT_ONCE == len(await our.outputs(run))


async def test_two_runners_share_runs_and_no_item(world: World) -> None:
    replica = FaultyReplica()
    async with lab(world, replica.answer) as one, lab(world, replica.answer) as other:
        found = await one.eval()
        source = {**ASKING, "type": "completions", "source": inline(rows())}
        begun = [await one.begin(found, source) for _ in range(3)]
        await asyncio.gather(one.work_off(), other.work_off())
        await one.work_off()
        assert [(await one.seen(run)).status for run in begun] == ["completed"] * 3
    assert len(replica.asked) == 3 * ITEMS


async def test_a_reached_limit_makes_a_run_wait(world: World) -> None:
    replica = FaultyReplica()
    async with lab(world, replica.answer, requests_per_minute=5) as our:
        run = await our.done(
            await our.eval(EQUAL, JUDGE), {**ASKING, "type": "completions", "source": inline(rows(6))}
        )
    assert (run.status, run.errored) == ("in_progress", 0)
    assert len(replica.asked) == 5
    await change(world, run, "due_at = now()")
    async with lab(world, replica.answer, requests_per_minute=100) as our:
        await our.work_off()
    assert ((await our.seen(run)).status, len(replica.asked)) == ("completed", 12)


@pytest.mark.parametrize("how", ["cancel", "delete run", "delete eval"])
async def test_a_run_ends_in_the_middle(world: World, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eval_runs_module, "BEAT_SECONDS", 0.05)
    replica, stuck = FaultyReplica(), asyncio.Event()

    async def stop() -> None:
        if len(replica.asked) > ITEMS_AT_ONCE:
            stuck.set()
            await asyncio.sleep(60)

    replica.meanwhile = stop
    async with lab(world, replica.answer) as our:
        run = await our.begin(await our.eval(), {**ASKING, "type": "completions", "source": inline(rows())})
        working = asyncio.create_task(our.work_off())
        await asyncio.wait_for(stuck.wait(), 20)
        caller = world.caller
        if how == "cancel":
            canceled = await our.service.cancel_run(caller, run.eval_id, run.id)
            assert (canceled.status, canceled.passed + canceled.failed) == ("canceled", ITEMS_AT_ONCE)
        elif how == "delete run":
            await our.service.delete_run(caller, run.eval_id, run.id)
        else:
            await our.service.delete(caller, run.eval_id)
        await asyncio.wait_for(working, 10)  # what was on its way is given up, not waited for
        if how == "cancel":
            assert len(await our.outputs(run)) == ITEMS_AT_ONCE
            summary = canceled.per_testing_criteria_results
            assert summary is not None and summary[0]["passed"] == ITEMS_AT_ONCE // 2
            assert (await our.service.cancel_run(caller, run.eval_id, run.id)).status == "canceled"
        else:
            with pytest.raises(ServiceError) as refused:
                await our.seen(run)
            assert refused.value.kind is ErrorKind.NOT_FOUND
    async with world.database.transaction() as connection:
        row = await (await connection.execute(b"select count(*) as items from eval_item")).fetchone()
    assert row == {"items": ITEMS_AT_ONCE if how == "cancel" else 0}


async def test_rows_that_bring_their_answer(world: World) -> None:
    content: list[dict[str, Any]] = [
        {"item": {"answer": "a"}, "sample": {"output_text": "a", "model": "other"}},
        {"item": {"answer": "a"}, "sample": {"choices": [{"message": {"content": "b"}}]}},
        {"item": {"answer": "4"}, "sample": {"output_text": '{"n": 4}'}},
    ]
    python = {
        "type": "python",
        "name": "py",
        "source": "def grade(sample, item):\n    return float(sample['output_text'] == item['answer'])",
    }
    close = {**EQUAL, "type": "text_similarity", "name": "close", "evaluation_metric": "fuzzy_match"}
    close.pop("operation")
    number = {**EQUAL, "name": "number", "input": "{{ sample.output_json.n }}"}
    async with lab(world, FaultyReplica().answer) as our:
        found = await our.eval(python, close | {"pass_threshold": 1.0}, config=CUSTOM)
        run = await our.done(found, {"type": "jsonl", "source": inline(content[:2])})
        assert (run.status, run.passed, run.failed, run.per_model_usage) == ("completed", 1, 1, [])
        good, bad = await our.outputs(run)
        assert good.item.told and good.item.told["model"] == "other" and good.item.told["usage"] is None
        assert bad.item.told and bad.item.told["output"] == [{"role": "assistant", "content": "b"}]
        assert [result["type"] for result in bad.item.results] == ["python", "text_similarity"]
        run = await our.done(await our.eval(number), {"type": "jsonl", "source": inline(content)})
        assert (run.passed, run.errored) == (1, 2)
        errored, _, passed = await our.outputs(run)
        assert (errored.item.status, passed.item.status) == ("error", "pass")
        assert errored.item.results[0]["sample"]["error"]["code"] == "invalid_variable_error"


async def test_labels_and_responses(world: World) -> None:
    label = {
        "type": "label_model",
        "name": "label",
        "model": BASE,
        "input": [{"role": "developer", "content": "{{ sample.output_text }}"}],
        "labels": ["good", "bad"],
        "passing_labels": ["good"],
    }
    replica = FaultyReplica()
    async with lab(world, replica.answer) as our:
        source = {
            "type": "responses",
            "source": inline([{"item": {"answer": "x", "input": [{"role": "user", "content": "x"}]}}]),
            "model": BASE,
            "input_messages": {"type": "item_reference", "item_reference": "item.input"},
            "sampling_params": {"max_completion_tokens": 9, "seed": 1, "text": {"format": {"type": "text"}}},
        }
        run = await our.done(await our.eval(EQUAL, label), source)
        (item,) = await our.outputs(run)
    asked = replica.asked[0]
    assert (asked["max_output_tokens"], asked["seed"], asked["store"]) == (9, 1, False)
    assert (run.status, run.errored) == ("completed", 1), "0.75 is no label"
    assert item.item.results[0]["passed"] is True
    assert item.item.results[1]["sample"]["error"]["code"] == "model_grader_parse_error"
    assert item.item.told and item.item.told["max_completion_tokens"] == 9


async def stored(world: World) -> None:
    keep = StoredService(database=world.database)
    for n, team in enumerate(["doors", "doors", "roofs"]):
        answer = completion(f"said {n}") | {"id": f"chatcmpl-{n}", "model": BASE}
        messages = [{"role": "user", "content": f"asked {n}"}]
        await keep.keep_completion(
            world.caller,
            StoredCompletion(
                id=f"chatcmpl-{n}",
                model=BASE if n else "m",
                messages=messages,
                answer=answer,
                metadata={"team": team},
            ),
        )
        items = [{"type": "message", "role": "user", "content": f"asked {n}"}]
        said = response({"input": items}) | {"id": f"resp_{n}", "model": BASE, "instructions": "Be BRIEF."}
        said |= {"metadata": {"team": team}, "temperature": n / 2, "tools": [{"name": f"tool{n}"}]}
        await keep.keep_response(world.caller, items=items, own_items=1, answer=said)


LOGS = {"type": "logs", "metadata": {"team": "doors"}}
TEXT = {**EQUAL, "name": "text", "input": "{{ sample.output_text }}", "operation": "like"}


@pytest.mark.parametrize(
    ("config", "filters", "expected"),
    [
        (LOGS, {}, [0, 1]),
        (LOGS, {"model": BASE}, [1]),
        (LOGS, {"metadata": {"team": "roofs"}}, []),
        ({"type": "stored_completions"}, {"metadata": {"team": "roofs"}}, [2]),
        ({"type": "stored_completions"}, {"limit": 2}, [0, 1]),
        ({"type": "logs"}, {"created_after": 1}, [0, 1, 2]),
        ({"type": "logs"}, {"created_before": 1}, []),
    ],
)
async def test_stored_completions(
    world: World, config: dict[str, Any], filters: dict[str, Any], expected: list[int]
) -> None:
    await stored(world)
    source = {"type": "stored_completions", **filters}
    async with lab(world, FaultyReplica().answer) as our:
        found = await our.eval({**TEXT, "reference": "said"}, config=config)
        run = await our.done(found, {"type": "completions", "source": source})
        if not expected:
            assert (run.status, run.error and run.error.code) == ("failed", "no_items")
            return
        assert (run.status, run.passed, run.total) == ("completed", len(expected), len(expected))
        outputs = await our.outputs(run)
        assert [item.item.item["id"] for item in outputs] == [f"chatcmpl-{n}" for n in expected]
        told = outputs[0].item.told
        assert told is not None and told["input"] == [{"role": "user", "content": f"asked {expected[0]}"}]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [0, 1]),
        ({"model": "m"}, []),
        ({"temperature": 0.5}, [1]),
        ({"tools": ["tool0", "tool2"]}, [0]),
        ({"instructions_search": "brief"}, [0, 1]),
        ({"instructions_search": "long"}, []),
    ],
)
async def test_stored_responses(world: World, filters: dict[str, Any], expected: list[int]) -> None:
    await stored(world)
    async with lab(world, FaultyReplica().answer) as our:
        found = await our.eval({**TEXT, "reference": "asked"}, config=LOGS)
        run = await our.done(found, {"type": "responses", "source": {"type": "responses", **filters}})
        assert run.total == len(expected) and run.status == ("completed" if expected else "failed")
        assert [item.item.item["id"] for item in await our.outputs(run)] == [f"resp_{n}" for n in expected]


async def test_stored_prompts_are_asked_again(world: World) -> None:
    await stored(world)
    replica = FaultyReplica()
    async with lab(world, replica.answer) as our:
        found = await our.eval({**TEXT, "reference": "asked"}, config=LOGS)
        source = {"type": "completions", "source": {"type": "stored_completions"}, "model": BASE}
        run = await our.done(found, source)
    assert (run.status, run.passed) == ("completed", 2)
    assert sorted(replica.questions) == ["asked 0", "asked 1"]


BAD_LINES: dict[str, tuple[list[Any], str]] = {
    "no JSON": ([{"item": {"answer": "a"}}, "{"], "Line 2 is not valid JSON"),
    "no item": ([{"item": {"answer": "a"}}, "", {"question": "a"}], "Line 3: give an object whose 'item'"),
    "no object": (["[]"], "Line 1: it is no object"),
    "wrong type": ([{"item": {"answer": 1}}], "Line 1: item.answer: 1 is not of type 'string'"),
    "missing": ([{"item": {}}], "Line 1: item: 'answer' is a required property"),
    "no sample": ([{"item": {"answer": "a"}}], "Line 1: it has no 'sample'"),
    "NUL": ([{"item": {"answer": "\x00"}, "sample": {}}], "Line 1: it holds a NUL character"),
    "empty": ([" "], "The data source has no items"),
}


@pytest.mark.parametrize("name", BAD_LINES)
async def test_a_bad_file_fails_by_line(world: World, name: str) -> None:
    lines, message = BAD_LINES[name]
    async with lab(world, FaultyReplica().answer) as our:
        run = await our.done(await our.eval(), {"type": "jsonl", "source": await uploaded(world, lines)})
        assert (run.status, run.total) == ("failed", 0)
        assert run.error is not None and run.error.message.startswith(message)
        assert await our.outputs(run) == []


async def test_a_file_is_in_use_until_its_run_has_begun(world: World) -> None:
    async with lab(world, FaultyReplica().answer) as our:
        source = await uploaded(world, rows())
        run = await our.begin(await our.eval(), {**ASKING, "type": "completions", "source": source})
        with pytest.raises(ServiceError, match=run.id):
            await world.files.delete(world.caller, source["id"])
        assert await our.runner.take_turn()
        await world.files.delete(world.caller, source["id"])
        await our.work_off()
        assert (await our.seen(run)).status == "completed"


async def test_a_file_past_its_time_is_there_for_a_run_that_waits_and_for_no_other(world: World) -> None:
    async with lab(world, FaultyReplica().answer) as our:
        found, source = await our.eval(), await uploaded(world, rows())
        body = {**ASKING, "type": "completions", "source": source}
        run = await our.begin(found, body)
        gone = await our.begin(found, {**body, "source": await uploaded(world, rows())})
        async with world.database.transaction() as connection:
            await connection.execute(b"update file set expires_at = now() - interval '1 minute'")
            await connection.execute(b"delete from file where id <> %s", (source["id"],))
        await swept(world)
        with pytest.raises(ServiceError, match="No such File object"):
            await our.begin(found, body)
        await our.work_off()
        assert (await our.seen(run)).status == "completed"
        failed = await our.seen(gone)
        assert failed.error is not None and failed.error.message.startswith("No such File object")


async def test_an_item_that_cannot_be_asked_is_an_error_and_no_more(world: World) -> None:
    async with lab(world, FaultyReplica().answer) as our:
        content = [{"item": {"answer": "a"}}, {"item": {"answer": "q", "question": "q"}}]
        run = await our.done(await our.eval(), {**ASKING, "type": "completions", "source": inline(content)})
        assert (run.status, run.errored, run.passed) == ("completed", 1, 1)
        (errored, _) = await our.outputs(run)
        assert errored.item.results == () or errored.item.results == []
        assert errored.item.told and errored.item.told["error"]["code"] == "invalid_variable_error"


async def test_an_answer_that_nobody_foresaw_does_not_trip_the_service(world: World) -> None:
    async def nonsense(_request: Request) -> Response:
        return JSONResponse({"model": "m", "choices": "none"})

    async with lab(world, nonsense) as our:
        run = await our.done(await our.eval(), {**ASKING, "type": "completions", "source": inline(rows(2))})
        assert (run.status, run.errored) == ("completed", 2)
        assert [i.item.told and i.item.told["error"]["code"] for i in await our.outputs(run)] == [
            "server_error"
        ] * 2


async def test_text_that_postgres_cannot_hold_is_mended(world: World) -> None:
    async def odd(_request: Request) -> Response:
        return JSONResponse(completion("a\x00b"))

    async with lab(world, odd) as our:
        run = await our.done(await our.eval(), {**ASKING, "type": "completions", "source": inline(rows(1))})
        assert run.status == "completed"
        (item,) = await our.outputs(run)
        assert item.item.told and item.item.told["output"][0]["content"] == "a\ufffdb"


async def test_output_items_are_filtered_and_paged(world: World) -> None:
    async with lab(world, FaultyReplica().answer) as our:
        run = await our.done(await our.eval(), {**ASKING, "type": "completions", "source": inline(rows(7))})
        assert [i.item.number for i in await our.outputs(run, status="pass")] == [1, 3, 5]
        assert [i.item.number for i in await our.outputs(run, status="fail", order="desc")] == [6, 4, 2, 0]
        page = await our.outputs(run, limit=3)
        assert [i.item.number for i in await our.outputs(run, limit=3, after=page[-1].id)] == [3, 4, 5]
        one = await our.service.output_item(world.caller, run.eval_id, run.id, page[1].id)
        assert one == page[1]
        other = await our.eval()
        with pytest.raises(ServiceError, match="No output item"):
            await our.service.output_item(world.caller, other.id, run.id, page[1].id)


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**400, float("inf"), float("nan")])
async def test_numbers_that_cannot_be_kept_are_refused(world: World, number: float) -> None:
    inline_row = {"type": "file_content", "content": [{"item": {"answer": "a"}, "more": number}]}
    sampling = {**ASKING, "type": "completions", "source": inline(rows(1))}
    async with lab(world, FaultyReplica().answer) as our:
        found = await our.eval()
        for source in (
            {"type": "jsonl", "source": inline_row},
            {**sampling, "sampling_params": {"tools": [{"x": number}]}},
        ):
            with pytest.raises(ServiceError, match="beyond 64 bits") as refused:
                await our.begin(found, source)
            assert refused.value.kind is ErrorKind.INVALID
        with pytest.raises(ServiceError, match="item_schema"):
            await our.eval(config={"type": "custom", "item_schema": {"maximum": number}})


async def test_samples_that_items_bring_may_hold_anything(world: World) -> None:
    odd = {"output_text": "blue", "finish_reason": ["stop"], "model": {}, "usage": {"total_tokens": "many"}}
    told = {"output_text": "blue", "finish_reason": "length", "model": "m", "usage": {"total_tokens": 7}}
    content = [{"item": {"answer": "blue"}, "sample": sample} for sample in (odd, {**odd, "usage": 5}, told)]
    async with lab(world, FaultyReplica().answer) as our:
        source = {"type": "jsonl", "source": {"type": "file_content", "content": content}}
        run = await our.done(await our.eval(), source)
        shown = [output_item_object(item).sample for item in await our.outputs(run)]
    nothing = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "cached_tokens": 0}
    assert [(sample.finish_reason, sample.model) for sample in shown] == [(None, None)] * 2 + [
        ("length", "m")
    ]
    assert [sample.usage and sample.usage.model_dump() for sample in shown] == [
        nothing,
        None,
        {**nothing, "total_tokens": 7},
    ]


async def test_its_end_is_told_to_webhooks(world: World) -> None:
    async with world.database.tenant(world.caller.project_id) as connection:
        await connection.execute(
            b"insert into webhook_endpoint (id, project_id, name, url, event_types, secret) values "
            b"('we_1', %s, 'n', 'https://example.com', "
            b"'{eval.run.succeeded,eval.run.failed,eval.run.canceled}', 's')",
            (world.caller.project_id,),
        )
    async with lab(world, FaultyReplica().answer) as our:
        found = await our.eval()
        good = {**ASKING, "type": "completions", "source": inline(rows(1))}
        succeeded = await our.done(found, good)
        failed = await our.done(found, {"type": "jsonl", "source": await uploaded(world, ["{"])})
        canceled = await our.begin(found, good)
        await our.service.cancel_run(world.caller, found.id, canceled.id)
        await our.work_off()
    async with world.database.transaction() as connection:
        told = await (
            await connection.execute(b"select type, data from webhook_event order by created_at")
        ).fetchall()
    assert [(row["type"], row["data"]["id"]) for row in told] == [
        ("eval.run.succeeded", succeeded.id),
        ("eval.run.failed", failed.id),
        ("eval.run.canceled", canceled.id),
    ]


async def test_the_audit_log_has_every_change(world: World) -> None:
    async with lab(world, FaultyReplica().answer) as our:
        found = await our.eval()
        run = await our.begin(found, {**ASKING, "type": "completions", "source": inline(rows(1))})
        caller = world.caller
        await our.service.cancel_run(caller, found.id, run.id)
        await our.service.cancel_run(caller, found.id, run.id)
        await our.service.update(caller, found.id, name="new", set_metadata=False, metadata=None)
        await our.service.delete_run(caller, found.id, run.id)
        await our.service.delete(caller, found.id)
    async with world.database.transaction() as connection:
        rows_ = await (
            await connection.execute(b"select type from audit_log where type like 'eval.%' order by sequence")
        ).fetchall()
    assert [row["type"] for row in rows_] == [
        "eval.created",
        "eval.run.created",
        "eval.run.canceled",
        "eval.updated",
        "eval.run.deleted",
        "eval.deleted",
    ]
