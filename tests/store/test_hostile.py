"""Hostile input: a clear 4xx, and nothing stored."""

import gzip
import json

import httpx
import pytest

from tests.support.app import OUR_KEY, Rest

BOMB = b"[" * 200_000 + b"]" * 200_000
HUGE_NUMBER = b"1" * 100_000


@pytest.fixture
def client(api: Rest) -> httpx.AsyncClient:
    return api.as_key(OUR_KEY)


def field(name: str, value: bytes) -> bytes:
    return b'{"model": "tiny-base", "training_file": "file-x", "' + name.encode() + b'": ' + value + b"}"


@pytest.mark.parametrize(
    "body",
    [
        BOMB,
        field("metadata", BOMB),
        field("metadata", b'{"a": ' * 100_000 + b"1" + b"}" * 100_000),
        field("seed", HUGE_NUMBER),
        field("seed", b"1e999"),
        field("suffix", b'"\\u0000"'),
        field("suffix", b'"a\\u0000b"'),
        field("suffix", b'"\\ud800"'),
        field("metadata", b'{"a\\u0000": "b"}'),
        field("lora", b'{"target_modules": [' + b'"q_proj",' * 100_000 + b'"x"]}'),
        b"\xff\xfe{}",
        b'{"model": "tiny-base\\u0000", "training_file": "file-x"}',
        b'{"model": "tiny-base", "training_file": "file-\\u0000"}',
        b'{"model": "tiny-base", "training_file": "../../etc/passwd"}',
    ],
)
async def test_bodies(client: httpx.AsyncClient, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    for path in ("fine_tuning/jobs", "chat/completions", "responses", "messages", "organization/projects"):
        reply = await client.post(path, content=body, headers=headers)
        assert 400 <= reply.status_code < 500, (path, reply.status_code, reply.text[:300])
        assert "error" in reply.json()
    assert (await client.get("fine_tuning/jobs")).json()["data"] == []


@pytest.mark.parametrize(
    "path",
    [
        "files/%00",
        "files/..%2f..%2fetc",
        "models/%00",
        "models/ft:%00:x",
        "models/" + "x" * 5000,
        "fine_tuning/jobs/%ff",
        "fine_tuning/jobs?after=%00",
        "fine_tuning/jobs?metadata[%00]=x",
        "files?after=%00",
        "files?purpose=%00",
        "chat/completions?after=%00",
        "chat/completions?metadata[a]=%00",
        "responses/%00",
        "uploads/%00",
        "webhook_endpoints/%00",
        "organization/projects/%00",
        "organization/users/%00",
        "organization/audit_logs?event_types[]=%00",
    ],
)
async def test_paths_and_queries(client: httpx.AsyncClient, path: str) -> None:
    reply = await client.get(path)
    assert reply.status_code < 500, reply.text[:300]
    if reply.status_code >= 400:
        assert "error" in reply.json()


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b\\c.txt", "\u202egpj.exe", "x" * 4000, "a\r\nb"])
async def test_a_files_name_is_only_a_name(client: httpx.AsyncClient, name: str) -> None:
    reply = await client.post("files", files={"file": (name, b"x")}, data={"purpose": "user_data"})
    assert reply.status_code in (200, 400), reply.text
    if reply.status_code == 200:
        file = reply.json()
        assert len(file["filename"]) <= 255
        assert (await client.get(f"files/{file['id']}/content")).content == b"x"


async def test_a_packed_body_is_not_unpacked(client: httpx.AsyncClient) -> None:
    packed = gzip.compress(b" " * 50_000_000)
    for path in ("fine_tuning/jobs", "chat/completions"):
        reply = await client.post(
            path,
            content=packed,
            headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
        )
        assert 400 <= reply.status_code < 500


@pytest.mark.parametrize(
    "form",
    [
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhello',
        b"--x\r\nContent-Disposition: form-data\r\n\r\nhello\r\n--x--\r\n",
        b"\x00" * 1000,
        b"--x\r\n" + b"A: b\r\n" * 10_000 + b"\r\n\r\n--x--",
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n'
        + b"y" * 3_000_000
        + b"\r\n--x--\r\n",
    ],
)
async def test_broken_forms(client: httpx.AsyncClient, form: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    reply = await client.post("files", content=form, headers=headers)
    assert 400 <= reply.status_code < 500, reply.text
    json.dumps(reply.json()["error"])
    assert (await client.get("files")).json()["data"] == []


NESTED = b"[" * 400 + b'"x"' + b"]" * 400
MESSAGES = (
    b'{"type": "score_model", "name": "s", "model": "tiny-base", "input": [{"role": "user", "content": %s}]}'
)
CHECK = b'{"type": "string_check", "name": "c", "operation": "eq", "input": %s, "reference": "{{item.x}}"}'


@pytest.mark.parametrize(
    ("grader", "item", "sample"),
    [
        (MESSAGES % NESTED, b"{}", b'"a"'),
        (MESSAGES % b'"\\ud800"', b"{}", b'"a"'),
        (CHECK % b'"\\ud800"', b"{}", b'"a"'),
        (CHECK % b'"x"', b'{"x": "\\ud800"}', b'"a"'),
        (CHECK % b'"x"', b'{"x": ' + NESTED + b"}", b'"a"'),
        (CHECK % b'"x"', b'{"x": "y"}', b'"\\ud800"'),
        (b'{"type": "string_check", "\\ud800": 1}', b"{}", b'"a"'),
    ],
)
async def test_graders(client: httpx.AsyncClient, grader: bytes, item: bytes, sample: bytes) -> None:
    body = b'{"grader": %s, "item": %s, "model_sample": %s}' % (grader, item, sample)
    headers = {"Content-Type": "application/json"}
    reply = await client.post("fine_tuning/alpha/graders/run", content=body, headers=headers)
    assert reply.status_code == 400, (reply.status_code, reply.text[:300])
    assert reply.json()["error"]["param"]
