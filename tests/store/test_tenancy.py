"""Organizations, projects, members, keys: who may do what, and that nobody sees another's."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.support.app import OUR_KEY, THEIR_KEY, Rest

ROW = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
DATA = "\n".join([json.dumps(ROW)] * 12).encode()


async def made(client: httpx.AsyncClient, path: str, **body: object) -> dict[str, Any]:
    reply = await client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


async def account_key(owner: httpx.AsyncClient, project_id: str, **body: object) -> str:
    path = f"organization/projects/{project_id}/service_accounts"
    account = await made(owner, path, **({"name": "robot"} | body))
    return str(account["api_key"]["value"])


async def upload(client: httpx.AsyncClient) -> httpx.Response:
    return await client.post("files", files={"file": ("a.jsonl", DATA)}, data={"purpose": "fine-tune"})


async def status_of(client: httpx.AsyncClient, path: str) -> int:
    return (await client.get(path)).status_code


async def test_a_project_has_its_own_keys_and_data(api: Rest) -> None:
    owner = api.as_key(OUR_KEY)
    project = await made(owner, "organization/projects", name="doors")
    assert (project["object"], project["status"]) == ("organization.project", "active")
    robot = api.as_key(await account_key(owner, project["id"]))
    file = (await upload(robot)).json()
    assert await status_of(robot, f"files/{file['id']}") == 200
    assert await status_of(owner, f"files/{file['id']}") == 404, "the owner's own project is another one"
    job = await owner.post("fine_tuning/jobs", json={"model": "tiny-base", "training_file": file["id"]})
    assert job.json()["error"]["code"] == "file_not_found"


async def test_a_key_is_shown_once_and_works_until_revoked(api: Rest) -> None:
    owner = api.as_key(OUR_KEY)
    project = await made(owner, "organization/projects", name="doors")
    path = f"organization/projects/{project['id']}"
    value = await account_key(owner, project["id"], name="ci")
    assert await status_of(api.as_key(value), "models") == 200
    (key,) = (await owner.get(f"{path}/api_keys")).json()["data"]
    assert key["owner"]["service_account"]["name"] == "ci" and key["last_used_at"] is not None
    assert value not in json.dumps(key) and key["redacted_value"].endswith(value[-4:])
    assert (await owner.delete(f"{path}/api_keys/{key['id']}")).json()["deleted"]
    assert await status_of(api.as_key(value), "models") == 401
    assert await status_of(owner, f"{path}/api_keys/{key['id']}") == 404


async def test_a_deleted_account_takes_its_keys_with_it(api: Rest) -> None:
    owner = api.as_key(OUR_KEY)
    project = await made(owner, "organization/projects", name="doors")
    path = f"organization/projects/{project['id']}/service_accounts"
    account = await made(owner, path, name="ci")
    second = await made(owner, f"{path}/{account['id']}/api_keys", name="second")
    keys = [account["api_key"]["value"], second["value"]]
    assert [await status_of(api.as_key(key), "models") for key in keys] == [200, 200]
    assert (await owner.delete(f"{path}/{account['id']}")).status_code == 200
    assert [await status_of(api.as_key(key), "models") for key in keys] == [401, 401]


async def test_an_archived_project_is_shut(api: Rest) -> None:
    owner = api.as_key(OUR_KEY)
    project = await made(owner, "organization/projects", name="doors")
    value = await account_key(owner, project["id"])
    archived = await made(owner, f"organization/projects/{project['id']}/archive")
    assert archived["status"] == "archived"
    assert await status_of(api.as_key(value), "models") == 401
    again = await owner.post(f"organization/projects/{project['id']}/service_accounts", json={"name": "x"})
    assert "archived" in again.json()["error"]["message"]
    listed = (await owner.get("organization/projects")).json()["data"]
    assert project["id"] not in [one["id"] for one in listed]
    everything = (await owner.get("organization/projects?include_archived=true")).json()["data"]
    assert project["id"] in [one["id"] for one in everything]


@pytest.mark.parametrize(
    ("role", "scopes", "may_upload", "may_manage"),
    [
        ("owner", None, True, False),
        ("member", None, True, False),
        ("reader", None, False, False),
        ("member", ["read"], False, False),
        ("owner", ["read", "write", "sample", "admin"], True, True),
        ("reader", ["read", "write", "sample", "admin"], False, False),
    ],
)
async def test_what_roles_and_scopes_allow(
    api: Rest, role: str, scopes: list[str] | None, may_upload: bool, may_manage: bool
) -> None:
    owner = api.as_key(OUR_KEY)
    project = await made(owner, "organization/projects", name="doors")
    path = f"organization/projects/{project['id']}/service_accounts"
    account = await made(owner, path, name="ci", role=role)
    body = {} if scopes is None else {"scopes": scopes}
    key = (await made(owner, f"{path}/{account['id']}/api_keys", **body))["value"]
    client = api.as_key(key)
    assert await status_of(client, "models") == 200
    assert (await upload(client)).status_code == (200 if may_upload else 403)
    refused = await client.get(f"organization/projects/{project['id']}")
    assert refused.status_code == (200 if may_manage else 403)
    if not may_manage:
        assert "scope 'admin'" in refused.json()["error"]["message"]


async def test_an_owner_of_a_project_owns_no_more(api: Rest) -> None:
    owner = api.as_key(OUR_KEY)
    project = await made(owner, "organization/projects", name="doors")
    other = await made(owner, "organization/projects", name="gates")
    path = f"organization/projects/{project['id']}"
    ann = await made(owner, "organization/users", name="Ann", email="ann@example.com", role="reader")
    await made(owner, f"{path}/users", user_id=ann["id"], role="owner")
    anns = api.as_key((await made(owner, f"{path}/api_keys", user_id=ann["id"]))["value"])
    operator = (await owner.get("organization/users")).json()["data"][0]
    assert operator["role"] == "owner"
    await made(owner, f"{path}/users", user_id=operator["id"], role="owner")
    ours = await made(owner, f"{path}/api_keys", user_id=operator["id"], scopes=["read"])
    for refused in (
        await anns.post(f"organization/users/{ann['id']}", json={"role": "owner"}),
        await anns.delete(f"organization/users/{operator['id']}"),
        await anns.post("organization/users", json={"name": "B", "email": "b@example.com", "role": "owner"}),
        await anns.get("organization/users"),
        await anns.get("organization/projects"),
        await anns.post("organization/projects", json={"name": "more"}),
        await anns.get("organization/audit_logs"),
        await anns.get("organization/costs?start_time=1"),
        await anns.get(f"organization/projects/{other['id']}"),
        await anns.post(f"organization/projects/{other['id']}/service_accounts", json={"name": "x"}),
        await anns.post(
            f"organization/projects/{other['id']}/users", json={"user_id": ann["id"], "role": "owner"}
        ),
        await anns.post(f"{path}/quotas", json={}),
        await anns.post(
            f"{path}/api_keys", json={"user_id": operator["id"]}
        ),  # it would do what its holder may
        await anns.post(f"{path}/api_keys/{ours['id']}", json={"scopes": ["admin"]}),
        await anns.delete(f"{path}/api_keys/{ours['id']}"),
    ):
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_permissions"), (
            refused.url
        )
    await made(anns, path, name="windows")
    assert await account_key(anns, project["id"])
    assert await status_of(api.as_key(ours["value"]), "models") == 200
    assert len((await anns.get(f"{path}/users")).json()["data"]) == 2


async def test_a_key_expires(api: Rest) -> None:
    owner = api.as_key(OUR_KEY)
    project = await made(owner, "organization/projects", name="doors")
    value = await account_key(owner, project["id"], expires_in_seconds=60)
    assert await status_of(api.as_key(value), "models") == 200
    async with api.world.database.transaction() as connection:
        await connection.execute("update api_key set expires_at = now() where expires_at is not null")
    await asyncio.sleep(1.1)  # what a cached key outlives its revocation by elsewhere
    assert await status_of(api.as_key(value), "models") == 401


async def test_members_and_their_roles_in_projects(api: Rest) -> None:
    owner = api.as_key(OUR_KEY)
    project = await made(owner, "organization/projects", name="doors")
    path = f"organization/projects/{project['id']}"
    ann = await made(owner, "organization/users", name="Ann", email="ann@example.com")
    refused = await owner.post(f"{path}/api_keys", json={"user_id": ann["id"]})
    assert refused.status_code == 404, "not in the project yet"
    await made(owner, f"{path}/users", user_id=ann["id"], role="reader")
    key = api.as_key((await made(owner, f"{path}/api_keys", user_id=ann["id"]))["value"])
    assert (await upload(key)).status_code == 403
    await made(owner, f"{path}/users/{ann['id']}", role="member")
    assert (await upload(key)).status_code == 200
    assert (await owner.delete(f"{path}/users/{ann['id']}")).status_code == 200
    assert await status_of(key, "models") == 403
    assert (await owner.delete(f"organization/users/{ann['id']}")).status_code == 200
    assert await status_of(key, "models") == 401


async def test_the_last_owner_stays(api: Rest) -> None:
    owner = api.as_key(OUR_KEY)
    (operator,) = (await owner.get("organization/users")).json()["data"]
    assert operator["role"] == "owner"
    for reply in (
        await owner.delete(f"organization/users/{operator['id']}"),
        await owner.post(f"organization/users/{operator['id']}", json={"role": "member"}),
    ):
        assert reply.status_code == 400 and "last owner" in reply.json()["error"]["message"]


async def counts(api: Rest) -> list[int]:
    async with api.world.database.transaction() as connection:
        tables = ("organization", "project", "member", "api_key")
        found = [
            await (await connection.execute(f"select count(*) as n from {table}".encode())).fetchone()
            for table in tables
        ]
    return [row["n"] for row in found if row is not None]


async def test_the_operators_key_stays_in_the_organization_of_its_home(
    api: Rest, caplog: pytest.LogCaptureFixture
) -> None:
    before, caller = await counts(api), await api.world.keys.authenticate(OUR_KEY)
    for organization, warnings in (("personal", 0), ("acme", 1)):
        await api.world.keys.bootstrap(organization=organization, key=OUR_KEY)
        assert len(caplog.records) == warnings
    assert "'personal'" in caplog.messages[0] and "'acme'" in caplog.messages[0]
    api.world.keys.forget()
    assert await api.world.keys.authenticate(OUR_KEY) == caller
    assert await counts(api) == before


async def test_a_start_says_that_the_operators_key_is_revoked(
    api: Rest, caplog: pytest.LogCaptureFixture
) -> None:
    """And does not make it valid again: it may have become known to others."""
    operator = api.as_key(OUR_KEY)
    caller = await api.world.keys.authenticate(OUR_KEY)
    path = f"organization/projects/{caller.project_id}"
    ann = await made(operator, "organization/users", name="Ann", email="ann@example.com", role="owner")
    await made(operator, f"{path}/users", user_id=ann["id"], role="owner")
    anns = api.as_key((await made(operator, f"{path}/api_keys", user_id=ann["id"]))["value"])
    assert (await anns.delete(f"{path}/api_keys/{caller.key_id}")).json()["deleted"]
    await api.world.keys.bootstrap(organization="personal", key=OUR_KEY)
    assert await status_of(operator, "models") == 401
    assert [message for message in caplog.messages if "operator's key is refused" in message]


async def test_every_change_is_in_the_audit_log(api: Rest) -> None:
    owner = api.as_key(OUR_KEY)
    project = await made(owner, "organization/projects", name="doors")
    secret = await account_key(owner, project["id"])
    await made(owner, f"organization/projects/{project['id']}", name="gates")
    log = (await owner.get("organization/audit_logs?limit=100")).json()
    types = [entry["type"] for entry in log["data"]]
    assert types == ["project.updated", "api_key.created", "service_account.created", "project.created"]
    assert log["data"][0]["project.updated"]["changes_requested"] == {"name": "gates"}
    assert all(entry["actor"]["api_key"]["id"].startswith("key_") for entry in log["data"])
    assert secret not in json.dumps(log)
    only = await owner.get("organization/audit_logs", params={"event_types[]": "project.created"})
    assert [entry["type"] for entry in only.json()["data"]] == ["project.created"]
    page = (
        await owner.get("organization/audit_logs", params={"limit": 2, "after": log["data"][1]["id"]})
    ).json()
    assert [entry["id"] for entry in page["data"]] == [entry["id"] for entry in log["data"][2:]]


async def test_another_organization_sees_nothing(api: Rest) -> None:
    ours, theirs = api.as_key(OUR_KEY), api.as_key(THEIR_KEY)
    project = await made(ours, "organization/projects", name="doors")
    path = f"organization/projects/{project['id']}"
    account = await made(ours, f"{path}/service_accounts", name="ci")
    member = (await ours.get("organization/users")).json()["data"][0]
    for url in (
        path,
        f"{path}/service_accounts",
        f"{path}/service_accounts/{account['id']}",
        f"{path}/api_keys",
        f"{path}/api_keys/{account['api_key']['id']}",
        f"{path}/users",
        f"organization/users/{member['id']}",
    ):
        assert await status_of(theirs, url) == 404, url
    for url, body in (
        (path, {"name": "x"}),
        (f"{path}/archive", {}),
        (f"{path}/service_accounts", {"name": "x"}),
        (f"{path}/api_keys", {"service_account_id": account["id"]}),
        (f"{path}/users", {"user_id": member["id"], "role": "owner"}),
    ):
        assert (await theirs.post(url, json=body)).status_code == 404, url
    listed = (await theirs.get("organization/projects")).json()["data"]
    assert project["id"] not in [one["id"] for one in listed]
    assert (await theirs.get("organization/audit_logs")).json()["data"] == []


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("organization/projects", {}, "name"),
        ("organization/projects", {"name": ""}, "name"),
        ("organization/projects", {"name": "a\u0000b"}, "name"),
        ("organization/projects", {"name": "default"}, "name"),
        ("organization/projects", {"name": "x", "colour": 1}, "colour"),
        ("organization/users", {"name": "Ann", "email": "nobody"}, "email"),
        ("organization/users", {"name": "Ann", "email": "a@b.c", "role": "king"}, "role"),
    ],
)
async def test_bad_requests_are_named(api: Rest, path: str, body: dict[str, object], param: str) -> None:
    reply = await api.as_key(OUR_KEY).post(path, json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


async def test_changes_of_a_projects_objects_are_in_the_log(api: Rest) -> None:
    owner = api.as_key(OUR_KEY)
    project = await made(owner, "organization/projects", name="doors")
    robot = api.as_key(await account_key(owner, project["id"]))
    file = (await upload(robot)).json()
    job = await made(robot, "fine_tuning/jobs", model="tiny-base", training_file=file["id"])
    assert (await robot.delete(f"files/{file['id']}")).status_code == 400, "in use: nothing has changed"
    await made(robot, f"fine_tuning/jobs/{job['id']}/cancel")
    await robot.delete(f"files/{file['id']}")
    endpoint = {"name": "n", "url": "https://example.com", "event_types": ["batch.failed"]}
    webhook = await made(robot, "webhook_endpoints", **endpoint)
    await made(robot, f"webhook_endpoints/{webhook['id']}/rotate_secret")
    await robot.delete(f"webhook_endpoints/{webhook['id']}")
    log = (await owner.get(f"organization/audit_logs?project_ids[]={project['id']}")).json()["data"]
    ours = [(entry["type"], entry[entry["type"]]["id"]) for entry in reversed(log)][-7:]
    assert ours == [
        ("file.created", file["id"]),
        ("fine_tuning.job.created", job["id"]),
        ("fine_tuning.job.cancelled", job["id"]),
        ("file.deleted", file["id"]),
        ("webhook_endpoint.created", webhook["id"]),
        ("webhook_endpoint.secret_rotated", webhook["id"]),
        ("webhook_endpoint.deleted", webhook["id"]),
    ]
