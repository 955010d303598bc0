"""Uploads in parts through the SDK."""

import hashlib

import openai
import pytest
from conftest import ROWS, jsonl

DATA = jsonl(ROWS)


def begin(client, **more):
    asked = {"bytes": len(DATA), "filename": "big.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"}
    return client.uploads.create(**(asked | more))


def test_parts_become_a_file_in_the_order_that_is_named(client) -> None:
    upload = begin(client)
    assert upload.id.startswith("upload_") and upload.status == "pending"
    assert upload.expires_at == upload.created_at + 3600
    second = client.uploads.parts.create(upload.id, data=DATA[500:])
    first = client.uploads.parts.create(upload.id, data=DATA[:500])
    done = client.uploads.complete(
        upload.id, part_ids=[first.id, second.id], md5=hashlib.md5(DATA).hexdigest()
    )
    assert (done.status, done.file.bytes, done.file.filename) == ("completed", len(DATA), "big.jsonl")
    assert client.files.content(done.file.id).read() == DATA
    with pytest.raises(openai.BadRequestError, match="completed"):
        client.uploads.parts.create(upload.id, data=b"more")
    with pytest.raises(openai.BadRequestError, match="completed"):
        client.uploads.complete(upload.id, part_ids=[first.id])


def test_the_sdks_own_chunks(client, tmp_path) -> None:
    path = tmp_path / "chunks.jsonl"
    path.write_bytes(DATA)
    done = client.uploads.upload_file_chunked(
        file=path, mime_type="text/jsonl", purpose="fine-tune", part_size=300
    )
    assert done.status == "completed"
    assert client.files.content(done.file.id).read() == DATA


def test_a_cancelled_upload_takes_nothing_more(client) -> None:
    upload = begin(client)
    assert client.uploads.cancel(upload.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="cancelled"):
        client.uploads.parts.create(upload.id, data=DATA)


def test_what_does_not_add_up_is_named(client) -> None:
    upload = begin(client)
    with pytest.raises(openai.BadRequestError, match="exceed"):
        client.uploads.parts.create(upload.id, data=DATA + b"x")
    part = client.uploads.parts.create(upload.id, data=DATA[:100])
    for part_ids, words in (
        ([part.id], "100 bytes together"),
        ([part.id, "part_nothere"], "no part part_nothere"),
        ([part.id, part.id], "once only"),
    ):
        with pytest.raises(openai.BadRequestError, match=words):
            client.uploads.complete(upload.id, part_ids=part_ids)
    rest = client.uploads.parts.create(upload.id, data=DATA[100:])
    with pytest.raises(openai.BadRequestError, match="MD5"):
        client.uploads.complete(upload.id, part_ids=[part.id, rest.id], md5="0" * 32)
    with pytest.raises(openai.BadRequestError, match="Line 1"):
        client.uploads.complete(upload.id, part_ids=[rest.id, part.id])
    with pytest.raises(openai.NotFoundError, match="upload_nothere"):
        client.uploads.cancel("upload_nothere")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"bytes": 0}, "bytes"),
        ({"bytes": 9 * 1024**3}, "bytes"),
        ({"purpose": "magic"}, "purpose"),
        ({"filename": "a.csv"}, "file"),
        ({"filename": ""}, "filename"),
    ],
)
def test_a_bad_announcement_is_named(client, change, param) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        begin(client, **change)
    assert refused.value.param == param
