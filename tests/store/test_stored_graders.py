"""Graders that an earlier release took, beyond what a request may give now: their owners' lists and runs go on."""

from dataclasses import fields
from typing import Any

import pytest
from psycopg.types.json import Json, Jsonb

from api.domain.errors import ServiceError
from api.domain.jobs import ReinforcementHyperparameters
from engine.contract import wire
from engine.contract.grader_forms import MAX_TEXT, GraderFormError, grader_from
from tests.store.test_evals import ASKING, BASE, FaultyReplica, inline, lab
from tests.store.test_leases import lease, queued
from tests.support.stores import World

LONG = "x" * (MAX_TEXT + 1)
CHECK = {"type": "string_check", "name": "c", "input": "a", "reference": "a", "operation": "eq"}
JUDGE = {"type": "score_model", "name": "judge", "model": BASE, "range": [0.0, 1.0], "pass_threshold": 0.5}
STORED: dict[str, dict[str, Any]] = {
    "a long text": {**CHECK, "input": LONG, "reference": LONG},
    "a long message": {**JUDGE, "input": [{"role": "user", "content": LONG, "type": "message"}]},
    "a long tag": {"type": "python", "name": "p", "source": "def grade(s, i): return 1", "image_tag": LONG},
    "a long key": {"type": "multi", "name": "m", "graders": {LONG: CHECK}, "calculate_output": LONG},
}


@pytest.mark.parametrize("name", STORED)
async def test_a_job_keeps_its_grader(world: World, name: str) -> None:
    form = STORED[name]
    with pytest.raises(GraderFormError):
        grader_from(form)
    job = await queued(world)
    numbers = {each.name: 1 for each in fields(ReinforcementHyperparameters) if each.default == "auto"}
    method = {"hyperparameters": numbers, "grader": form, "response_format": None}
    async with world.database.transaction() as connection:
        await connection.execute(
            "update job set method = %s where id = %s", (Jsonb({"reinforcement": method}), job.id)
        )
    page = await world.jobs.list(world.caller, after=None, limit=10, metadata=None)
    assert [each.id for each in page.items] == [job.id]
    begun = await lease(world)
    assert begun is not None and wire.spec_from_pb(wire.spec_to_pb(begun.spec)) == begun.spec


async def test_an_eval_keeps_its_graders_and_its_runs_go_on(world: World) -> None:
    nested = {"role": "user", "content": [["q", [LONG]]] + ["x"] * 64}
    source = {
        **ASKING,
        "type": "completions",
        "source": inline([{"item": {"answer": "a"}}]),
        "input_messages": {"type": "template", "template": [nested]},
    }
    criteria = [{**STORED[name], "id": name} for name in ("a long text", "a long message")]
    replica = FaultyReplica()
    async with lab(world, replica.answer) as our:
        found = await our.eval()
        with pytest.raises(ServiceError):
            await our.eval(STORED["a long message"])
        with pytest.raises(ServiceError):
            await our.begin(found, source)
        run = await our.begin(found, {**ASKING, "type": "completions", "source": source["source"]})
        async with world.database.transaction() as connection:
            await connection.execute("update eval set testing_criteria = %s", (Jsonb(criteria),))
            await connection.execute("update eval_run set data_source = %s", (Json(source),))
        page = await our.service.list(world.caller, order_by="created_at", order="asc", after=None, limit=10)
        assert [[each.id for each in one.criteria] for one in page.items] == [list(STORED)[:2]]
        await our.work_off()
        assert ((await our.seen(run)).status, (await our.seen(run)).passed) == ("completed", 1)
    assert replica.questions == ["q" + LONG + "x" * 64]
