"""A list goes on after an object that is there. One that has gone is said, not taken for the end."""

import httpx
import pytest

from tests.store.test_tenancy import upload
from tests.support.app import OUR_KEY, THEIR_KEY, Rest

LISTS = (
    "files",
    "fine_tuning/jobs",
    "batches",
    "evals",
    "chat/completions",
    "webhook_endpoints",
    "organization/projects",
    "organization/users",
    "organization/audit_logs",
    "organization/deletions",
)


@pytest.fixture
def client(api: Rest) -> httpx.AsyncClient:
    return api.as_key(OUR_KEY)


@pytest.mark.parametrize("path", LISTS)
async def test_a_list_does_not_go_on_after_nothing(client: httpx.AsyncClient, path: str) -> None:
    reply = await client.get(path, params={"after": "gone"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "after")


async def test_a_cursor_that_was_deleted_is_told(api: Rest, client: httpx.AsyncClient) -> None:
    ids = [(await upload(client)).json()["id"] for _ in range(3)]
    newest = {"after": ids[2], "limit": 1}
    assert [each["id"] for each in (await client.get("files", params=newest)).json()["data"]] == [ids[1]]
    last = await client.get("files", params={"after": ids[0]})
    assert (last.status_code, last.json()["data"]) == (200, []), "the end of the list"
    assert (await api.as_key(THEIR_KEY).get("files", params=newest)).status_code == 400
    await client.delete(f"files/{ids[2]}")
    gone = await client.get("files", params=newest)
    assert (gone.status_code, gone.json()["error"]["type"]) == (400, "invalid_request_error")
    deleted = await client.get("organization/deletions", params={"after": ids[2]})
    assert (deleted.status_code, deleted.json()["data"]) == (200, [])
