"""A checkpoint that is shared may be asked by the other project, and nothing else."""

from typing import Any

import httpx

from tests.store.test_leases import checkpoint, leased, queued, report, upload
from tests.store.test_limits import served  # noqa: F401
from tests.store.test_tenancy import account_key, made, status_of
from tests.support.app import OUR_KEY, Rest


async def our_checkpoint(rest: Rest) -> str:
    world = rest.world
    job = await queued(world)
    run = await leased(world)
    await upload(world, run)
    await report(world, run, checkpoint(final=False))
    page = await world.jobs.checkpoints(world.caller, job.id, after=None, limit=1)
    return page.items[0].model_name


async def ask(client: httpx.AsyncClient, model: str) -> int:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return (await client.post("chat/completions", json=body)).status_code


async def test_a_shared_checkpoint(served: Rest) -> None:  # noqa: F811
    owner = served.as_key(OUR_KEY)
    name = await our_checkpoint(served)
    project = await made(owner, "organization/projects", name="doors")
    other = served.as_key(await account_key(owner, project["id"], role="owner"))
    path = f"fine_tuning/checkpoints/{name}/permissions"
    assert await ask(other, name) == 404
    granted = await made(owner, path, project_ids=[project["id"]])
    assert [one["project_id"] for one in granted["data"]] == [project["id"]]
    again = await made(owner, path, project_ids=[project["id"]])
    assert again["data"] == granted["data"], "granting twice is granting once"

    assert await ask(other, name) == 200
    assert name in [model["id"] for model in (await other.get("models")).json()["data"]]
    assert (await other.get(f"models/{name}")).json()["id"] == name
    assert (await other.delete(f"models/{name}")).status_code == 404
    assert await status_of(other, f"models/{name}/adapter") == 404
    assert await status_of(other, path) in (403, 404)

    listed = (await owner.get(path, params={"project_id": project["id"], "order": "ascending"})).json()
    assert listed["first_id"] == listed["last_id"] == granted["data"][0]["id"]
    assert (await owner.get(path, params={"project_id": "proj_x"})).json()["data"] == []
    gone = (await owner.delete(f"{path}/{granted['data'][0]['id']}")).json()
    assert (gone["object"], gone["deleted"]) == ("checkpoint.permission", True)
    assert await ask(other, name) == 404
    assert (await owner.delete(f"{path}/{granted['data'][0]['id']}")).status_code == 404
    log = (await owner.get("organization/audit_logs?limit=1")).json()["data"]
    assert log[0]["type"] == "checkpoint.permission.deleted"


async def test_only_with_projects_of_the_organization(served: Rest) -> None:  # noqa: F811
    owner = served.as_key(OUR_KEY)
    path = f"fine_tuning/checkpoints/{await our_checkpoint(served)}/permissions"
    for project_ids, status in (([served.world.stranger.project_id], 404), (["proj_x"], 404), ([], 400)):
        reply = await owner.post(path, json={"project_ids": project_ids})
        assert reply.status_code == status
    missing = await owner.post("fine_tuning/checkpoints/ft:x:y::z/permissions", json={"project_ids": ["a"]})
    assert missing.json()["error"]["code"] == "model_not_found"
