"""Every route of the OpenAPI document, tried with another organization's key on our ids: as if nothing were there."""

import json
import re
from typing import Any

import httpx

from tests.store.test_leases import checkpoint, leased, queued, report, upload
from tests.store.test_tenancy import made
from tests.support.app import OUR_KEY, THEIR_KEY, Rest
from tests.support.evals import evaluated

BODIES: dict[str, dict[str, Any]] = {
    "post /v1/organization/projects/{project_id}": {"name": "theirs"},
    "post /v1/organization/projects/{project_id}/service_accounts": {"name": "theirs"},
    "post /v1/organization/projects/{project_id}/service_accounts/{account_id}": {"name": "theirs"},
    "post /v1/organization/projects/{project_id}/service_accounts/{account_id}/api_keys": {},
    "post /v1/organization/projects/{project_id}/api_keys": {"service_account_id": "x"},
    "post /v1/organization/projects/{project_id}/api_keys/{key_id}": {"scopes": ["read"]},
    "post /v1/organization/projects/{project_id}/users": {"user_id": "x", "role": "owner"},
    "post /v1/organization/projects/{project_id}/users/{member_id}": {"role": "owner"},
    "post /v1/organization/projects/{project_id}/rate_limits/{rate_limit_id}": {
        "max_requests_per_1_minute": 1
    },
    "post /v1/organization/projects/{project_id}/quotas": {"max_queued_jobs": 1},
    "post /v1/organization/users/{member_id}": {"role": "owner"},
    "post /v1/fine_tuning/checkpoints/{name}/permissions": {"project_ids": ["proj_x"]},
    "post /v1/uploads/{upload_id}/complete": {"part_ids": ["x"]},
    "post /v1/chat/completions/{completion_id}": {"metadata": {}},
    "post /v1/evals/{eval_id}": {"name": "theirs"},
    "post /v1/evals/{eval_id}/runs": {
        "data_source": {
            "type": "jsonl",
            "source": {"type": "file_content", "content": [{"item": {"a": "b"}}]},
        }
    },
    "post /v1/webhook_endpoints/{endpoint_id}": {"name": "theirs"},
    "post /v1/webhook_endpoints/{endpoint_id}/test": {"event_type": "batch.failed"},
}


async def test_another_organization_finds_nothing_on_any_route(api: Rest) -> None:
    ours, theirs = api.as_key(OUR_KEY), api.as_key(THEIR_KEY)
    ids = await everything(api, ours)
    before = await seen(ours, ids)
    schema = (await ours.get("http://test/openapi.json")).json()
    tried = 0
    for path, methods in schema["paths"].items():
        names = re.findall(r"{(\w+)}", path)
        if not names:
            continue
        url = path
        for name in names:
            url = url.replace("{" + name + "}", ids[name])
        for method in methods:
            sent = sending(f"{method} {path}")
            reply = await theirs.request(method, "http://test" + url, **sent)
            assert reply.status_code == 404, (method, path, reply.status_code, reply.text)
            assert ids["canary"] not in reply.text
            tried += 1
    assert tried >= 45
    assert await seen(ours, ids) == before, "nothing of ours has changed"


def sending(route: str) -> dict[str, Any]:
    if route.endswith("/parts"):
        return {"files": {"data": b"x"}}
    return {"json": BODIES[route]} if route in BODIES else {}


async def everything(api: Rest, ours: httpx.AsyncClient) -> dict[str, str]:
    """One of each object that a path can name, all of them ours."""
    world = api.world
    job = await queued(world)
    run = await leased(world)
    await upload(world, run)
    await report(world, run, checkpoint(final=False))
    page = await world.jobs.checkpoints(world.caller, job.id, after=None, limit=1)
    project = await made(ours, "organization/projects", name="canary")
    account = await made(ours, f"organization/projects/{project['id']}/service_accounts", name="canary")
    member = await made(ours, "organization/users", name="canary", email="canary@example.com")
    await made(ours, f"organization/projects/{project['id']}/users", user_id=member["id"], role="reader")
    webhook = await made(
        ours, "webhook_endpoints", name="canary", url="https://example.com", event_types=["batch.failed"]
    )
    pending = await made(
        ours, "uploads", bytes=1, filename="canary.txt", mime_type="text/plain", purpose="user_data"
    )
    await stored(api)
    return {
        **await evaluated(world),
        "canary": "canary",
        "file_id": job.training_file,
        "job_id": job.id,
        "name": page.items[0].model_name,
        "project_id": project["id"],
        "account_id": account["id"],
        "key_id": account["api_key"]["id"],
        "member_id": member["id"],
        "rate_limit_id": "rl-tiny-base",
        "endpoint_id": webhook["id"],
        "upload_id": pending["id"],
        "permission_id": "cp_x",
        "completion_id": "chatcmpl-1234",
        "response_id": "resp_1234",
        "batch_id": "batch_1234",
    }


async def stored(api: Rest) -> None:
    project_id = api.world.caller.project_id
    async with api.world.database.tenant(project_id) as connection:
        await connection.execute(
            b"insert into stored_completion (id, project_id, model, messages, answer) "
            b"values ('chatcmpl-1234', %s, 'm', '[]', '{\"id\": \"chatcmpl-1234\"}')",
            (project_id,),
        )
        await connection.execute(
            b"insert into batch (id, project_id, api_key_id, endpoint, input_file_id) "
            b"values ('batch_1234', %s, %s, '/v1/completions', 'file-x')",
            (project_id, api.world.caller.key_id),
        )
        await connection.execute(
            b"insert into stored_response (id, project_id, items, own_items, answer) "
            b"values ('resp_1234', %s, '[]', 0, '{\"id\": \"resp_1234\"}')",
            (project_id,),
        )


async def seen(ours: httpx.AsyncClient, ids: dict[str, str]) -> str:
    """All that we see of it, but for when our key was last used."""
    paths = [
        f"files/{ids['file_id']}",
        f"fine_tuning/jobs/{ids['job_id']}",
        f"models/{ids['name']}",
        f"organization/projects/{ids['project_id']}",
        f"organization/projects/{ids['project_id']}/service_accounts",
        f"organization/projects/{ids['project_id']}/users",
        f"organization/projects/{ids['project_id']}/rate_limits",
        f"organization/projects/{ids['project_id']}/quotas",
        f"organization/users/{ids['member_id']}",
        f"webhook_endpoints/{ids['endpoint_id']}",
        f"chat/completions/{ids['completion_id']}",
        f"responses/{ids['response_id']}",
        f"batches/{ids['batch_id']}",
        f"evals/{ids['eval_id']}",
        f"evals/{ids['eval_id']}/runs/{ids['run_id']}",
        f"evals/{ids['eval_id']}/runs/{ids['run_id']}/output_items/{ids['output_item_id']}",
    ]
    replies = [await ours.get(path) for path in paths]
    assert {reply.status_code for reply in replies} == {200}, [
        r.text for r in replies if r.status_code != 200
    ]
    return json.dumps([reply.json() for reply in replies])
